//! One direction of the path: what it does to packets, and when. It knows neither devices nor the clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use snocat_core::sim::{Chance, Rng};

use super::program::LATE;
use super::{DELAY, QUEUE, RATE};

/// Packets wait for the bottleneck, in order and without priority; some are lost behind it; the others are on their way
/// for [`DELAY`].
#[derive(Debug)]
pub struct Link {
    loss: Chance,
    rng: Rng,
    /// When the bottleneck has sent all that waits for it.
    busy_until: Instant,
    on_the_way: VecDeque<(Instant, Vec<u8>)>,
    counts: Counts,
}

/// What has become of packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Those that have arrived.
    pub passed: u64,
    /// Those of them that were [`LATE`].
    pub late: u64,
    /// How late the latest of them was.
    pub latest: Duration,
    /// Those that found the queue full.
    pub overflowed: u64,
    /// Those that were lost behind it.
    pub lost: u64,
}

impl Link {
    /// An empty one.
    pub fn new(loss: Chance, seed: u64, now: Instant) -> Self {
        let (rng, on_the_way) = (Rng::new(seed), VecDeque::new());
        Self { loss, rng, busy_until: now, on_the_way, counts: Counts::default() }
    }

    /// A packet comes in.
    pub fn enter(&mut self, now: Instant, packet: &[u8]) {
        let length = packet.len() as u64;
        let waiting = self.busy_until.saturating_duration_since(now);
        let queued = waiting.as_nanos() * u128::from(RATE) / 1_000_000_000;
        if queued + u128::from(length) > u128::from(QUEUE) {
            self.counts.overflowed += 1;
            return;
        }
        self.busy_until = self.busy_until.max(now) + Duration::from_nanos(length * 1_000_000_000 / RATE);
        // A lost packet has had its share of the bottleneck.
        if self.rng.happens(self.loss) {
            self.counts.lost += 1;
            return;
        }
        self.on_the_way.push_back((self.busy_until + DELAY, packet.to_vec()));
    }

    /// When the next packet arrives.
    pub fn next(&self) -> Option<Instant> {
        self.on_the_way.front().map(|(at, _)| *at)
    }

    /// The next packet that has arrived.
    pub fn leave(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.next().filter(|at| *at <= now)?;
        let (at, packet) = self.on_the_way.pop_front()?;
        let late = now.duration_since(at);
        self.counts.passed += 1;
        self.counts.late += u64::from(late > LATE);
        self.counts.latest = self.counts.latest.max(late);
        Some(packet)
    }

    /// What has happened since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }
}
