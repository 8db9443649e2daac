//! Scenarios for quickcheck.

use quickcheck::{Arbitrary, Gen};

use super::decode::Source;
use super::*;

impl Arbitrary for Scenario {
    fn arbitrary(g: &mut Gen) -> Self {
        // About ten bytes an operation, the more of them the larger the generator is.
        let length = 12 + usize::arbitrary(g) % (g.size() * 10 + 1);
        let bytes: Vec<u8> = (0..length).map(|_| u8::arbitrary(g)).collect();
        Self::from_bytes(&bytes)
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let (by_ops, by_config) = (self.clone(), self.clone());
        let ops = self.ops.shrink().map(move |ops| Self { ops, ..by_ops.clone() });
        let config =
            self.config.simpler().into_iter().map(move |config| Self { config, ..by_config.clone() });
        Box::new(ops.chain(config))
    }
}

impl Config {
    /// The same with one thing as it is by default.
    fn simpler(&self) -> Vec<Self> {
        let own = *self;
        let plain = Self::default();
        let candidates = [
            Self { weather: plain.weather, ..own },
            Self { more_clients: 0, ..own },
            Self { server: plain.server, ..own },
            Self { client: plain.client, ..own },
            Self { decisions: plain.decisions, ..own },
            Self { answers: plain.answers, ..own },
            Self { hold: plain.hold, ..own },
            Self { segments: plain.segments, ..own },
            Self { long_chain: plain.long_chain, ..own },
        ];
        candidates.into_iter().filter(|candidate| *candidate != own).collect()
    }
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Self {
        let bytes: Vec<u8> = (0..12).map(|_| u8::arbitrary(g)).collect();
        Self::read(&mut Source(&bytes))
    }

    /// Smaller numbers; nothing else, as whole operations are taken out first.
    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let mut simpler = Vec::new();
        let mut own = self.clone();
        for index in 0..own.numbers().len() {
            for smaller in own.numbers()[index].smaller() {
                let mut other = self.clone();
                other.numbers()[index].set(smaller);
                simpler.push(other);
            }
        }
        Box::new(simpler.into_iter())
    }
}

enum Number<'a> {
    Byte(&'a mut u8),
    Word(&'a mut u16),
}

impl Number<'_> {
    fn smaller(&self) -> Vec<u16> {
        let own = match self {
            Self::Byte(byte) => u16::from(**byte),
            Self::Word(word) => **word,
        };
        own.shrink().collect()
    }

    fn set(&mut self, value: u16) {
        match self {
            Self::Byte(byte) => **byte = u8::try_from(value).unwrap_or(0),
            Self::Word(word) => **word = value,
        }
    }
}

impl Op {
    fn numbers(&mut self) -> Vec<Number<'_>> {
        use Number::{Byte, Word};
        match self {
            Self::Connect { client, bindings, .. } => vec![Byte(client), Byte(bindings)],
            Self::Flood { client, size, .. } => vec![Byte(client), Byte(size)],
            Self::Open { tunnel, ahead, .. } => vec![Byte(tunnel), Word(ahead)],
            Self::Write { nth, length } | Self::Read { nth, length } => vec![Byte(nth), Word(length)],
            Self::Reset { nth, code } | Self::Fail { nth, code } | Self::Stop { nth, code } => {
                vec![Byte(nth), Byte(code)]
            }
            Self::Close { tunnel, code, .. } => vec![Byte(tunnel), Byte(code)],
            Self::Noise { client, length, .. } => vec![Byte(client), Word(length)],
            Self::Wait { milliseconds } => vec![Word(milliseconds)],
            Self::Decide { nth, .. } | Self::Answer { nth, .. } | Self::Pace { nth, .. } => vec![Byte(nth)],
            Self::Finish { nth } => vec![Byte(nth)],
            Self::Bind { tunnel, .. } | Self::Probe { tunnel, .. } => vec![Byte(tunnel)],
            Self::Impair { client, .. } | Self::Mend { client } | Self::Rebind { client } => {
                vec![Byte(client)]
            }
            Self::Crash { host } | Self::Restart { host } => vec![Byte(host)],
        }
    }
}
