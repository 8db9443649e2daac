//! Scenarios from bytes: any bytes give one.

use super::*;

/// The most operations of a scenario.
const MOST: usize = 300;

impl Scenario {
    /// The scenario that these bytes stand for. There is one for all bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut source = Source(bytes);
        let config = Config::read(&mut source);
        let seed = u64::from(source.word()) << 16 | u64::from(source.word());
        let mut ops = Vec::new();
        while !source.0.is_empty() && ops.len() < MOST {
            ops.push(Op::read(&mut source));
        }
        Self { config, seed, ops }
    }
}

/// Bytes, and zeros after them.
pub(super) struct Source<'a>(pub(super) &'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Small numbers most of the time.
    fn length(&mut self) -> u16 {
        let word = self.word();
        word >> (word & 7)
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Yes, three times out of four.
    fn mostly(&mut self) -> bool {
        !self.byte().is_multiple_of(4)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    fn side(&mut self) -> Side {
        self.pick(&[Side::Client, Side::Server])
    }

    fn way(&mut self) -> Way {
        self.pick(&[Way::Up, Way::Down, Way::Both])
    }
}

impl Config {
    fn read(from: &mut Source<'_>) -> Self {
        let sizes = [Size::Default, Size::Tight];
        let timings = [Timing::AtOnce, Timing::Late];
        Self {
            weather: from.pick(&[Weather::Calm, Weather::Still, Weather::Far, Weather::Mobile]),
            more_clients: from.byte() % 3,
            server: from.pick(&sizes),
            client: from.pick(&sizes),
            decisions: from.pick(&timings),
            answers: from.pick(&timings),
            hold: from.flag(),
            segments: from.flag(),
            long_chain: from.byte() % 4 == 1,
        }
    }
}

impl Op {
    pub(super) fn read(from: &mut Source<'_>) -> Self {
        let kind = from.byte() % 64;
        let (nth, tunnel, client, host) = (from.byte(), from.byte(), from.byte(), from.byte());
        match kind {
            0..5 => {
                let credential = from.pick(&[
                    Credential::Right,
                    Credential::Right,
                    Credential::Right,
                    Credential::Wrong,
                    Credential::Nothing,
                    Credential::NothingFirst,
                ]);
                Self::Connect { client, credential, bindings: from.byte() % 3 }
            }
            5..7 => Self::Decide { nth, admit: from.mostly() },
            7..17 => {
                let (by, ahead) = (from.side(), from.length());
                let kind = from.byte();
                let pace = if kind / 8 % 4 == 1 { Pace::Asleep } else { Pace::Eager };
                Self::Open { tunnel, by, ahead, long: kind % 8 == 1, pace }
            }
            17..21 => Self::Answer { nth, accept: from.mostly() },
            21..27 => Self::Write { nth, length: from.length() },
            27..32 => Self::Pace { nth, pace: from.pick(&[Pace::Asleep, Pace::Asleep, Pace::Eager]) },
            32 => Self::Read { nth, length: from.length() },
            33..36 => Self::Finish { nth },
            36 => Self::Reset { nth, code: from.byte() },
            37 => Self::Stop { nth, code: from.byte() },
            38..40 => Self::Bind { tunnel, by: from.side() },
            40 => Self::Probe { tunnel, by: from.side() },
            41 => Self::Close { tunnel, by: from.side(), code: from.byte() },
            42..45 => {
                let fault = from.pick(&[
                    Fault::Loss,
                    Fault::Bursts,
                    Fault::Delay,
                    Fault::Duplicate,
                    Fault::Reorder,
                    Fault::Corrupt,
                    Fault::Narrow,
                    Fault::Short,
                    Fault::Cut,
                ]);
                Self::Impair { client, way: from.way(), fault }
            }
            45..47 => Self::Mend { client },
            47 => Self::Rebind { client },
            // Most of what a crash would end has not happened yet where crashes are frequent.
            48 if host.is_multiple_of(2) => Self::Crash { host: nth },
            48 | 49 => Self::Restart { host },
            50 => Self::Noise { client, way: from.way(), length: from.length() % 1472 },
            51 => {
                // A few most of the time, sometimes more than a source may have by default.
                let size = from.byte();
                let size = if size < 240 { size % 8 } else { size - 170 };
                let crowd = from.pick(&[Crowd::Unknown, Crowd::Forged, Crowd::Scattered]);
                Self::Flood { client, size, crowd }
            }
            52 => Self::Fail { nth, code: from.byte() },
            // Mostly milliseconds, sometimes a minute.
            _ => Self::Wait { milliseconds: from.length() >> (host & 7) },
        }
    }
}
