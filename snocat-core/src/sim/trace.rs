//! What happened in a simulation, as two hashes: equal runs have equal hashes.

use std::fmt;
use std::time::Duration;

use ring::digest::{Context, SHA256};

/// The hashes of all datagrams of a simulation.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Of when which host sent how many bytes to which, and what became of them. With real TLS this much
    /// repeats with the seed.
    pub schedule: [u8; 32],
    /// Of the bytes, too. With plain TLS all of it repeats.
    pub bytes: [u8; 32],
    /// How many datagrams were sent.
    pub datagrams: u64,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = |hash: &[u8; 32]| u64::from_be_bytes(hash.first_chunk().copied().unwrap_or_default());
        let (schedule, bytes) = (start(&self.schedule), start(&self.bytes));
        write!(f, "Trace({} datagrams, schedule {schedule:016x}, bytes {bytes:016x})", self.datagrams)
    }
}

pub(super) struct Recorder {
    schedule: Context,
    bytes: Context,
    datagrams: u64,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { schedule: Context::new(&SHA256), bytes: Context::new(&SHA256), datagrams: 0 }
    }

    /// Notes that `from` sent `data` to `to`, and when it arrives there.
    pub(super) fn sent(
        &mut self,
        now: Duration,
        from: usize,
        to: Option<usize>,
        data: &[u8],
        arrivals: impl Iterator<Item = Duration>,
    ) {
        self.datagrams += 1;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut words = vec![nanos(now), from as u64, to.map_or(u64::MAX, |to| to as u64), data.len() as u64];
        words.extend(arrivals.map(nanos));
        let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.schedule.update(&words);
        self.bytes.update(&words);
        self.bytes.update(data);
    }

    pub(super) fn trace(&self) -> Trace {
        let finish =
            |context: &Context| context.clone().finish().as_ref().first_chunk().copied().unwrap_or_default();
        Trace { schedule: finish(&self.schedule), bytes: finish(&self.bytes), datagrams: self.datagrams }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trace().fmt(f)
    }
}
