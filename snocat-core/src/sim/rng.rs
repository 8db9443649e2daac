//! The generator of a simulation, written out so that a seed means the same in every version and everywhere.

/// SplitMix64. Small, fast, and predictable on purpose: it must never choose anything that is to be secret.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator with this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias is below one in 2^32 for all that a simulation draws.
        u64::try_from((u128::from(self.draw()) * u128::from(bound)) >> 64).unwrap_or(0)
    }

    /// Whether something of this chance happens.
    pub fn happens(&mut self, chance: Chance) -> bool {
        chance != Chance::NEVER && self.below(Chance::WHOLE.into()) < u64::from(chance.0)
    }

    /// A generator of its own for a part of the simulation.
    pub const fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    /// 32 bytes, as the seed of an endpoint.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for piece in bytes.chunks_exact_mut(8) {
            piece.copy_from_slice(&self.draw().to_le_bytes());
        }
        bytes
    }
}

/// A bijection that makes neighbouring numbers look unrelated.
pub(super) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// How likely something is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Chance(u32);

impl Chance {
    const WHOLE: u32 = 1_000_000;
    /// It does not happen.
    pub const NEVER: Self = Self(0);
    /// It always happens.
    pub const ALWAYS: Self = Self(Self::WHOLE);

    /// So many times in a thousand.
    pub const fn per_mille(times: u32) -> Self {
        Self::per_million(times.saturating_mul(1000))
    }

    /// So many times in a million.
    pub const fn per_million(times: u32) -> Self {
        Self(if times > Self::WHOLE { Self::WHOLE } else { times })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that the authors of SplitMix64 publish for the seed 1234567.
    #[test]
    fn it_is_splitmix64() {
        let mut rng = Rng::new(1_234_567);
        let numbers: Vec<_> = (0..3).map(|_| rng.draw()).collect();
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn chances() {
        let mut rng = Rng::new(1);
        let count = |chance| (0..100_000).filter(|_| rng.clone().fork().happens(chance)).count();
        assert_eq!(count(Chance::NEVER), 0);
        assert_eq!(count(Chance::ALWAYS), 100_000);
        let often = (0..100_000).filter(|_| rng.happens(Chance::per_mille(100))).count();
        assert!((9_500..10_500).contains(&often), "{often}");
        assert_eq!(rng.below(0), 0);
    }
}
