//! One direction between two hosts: what it does to datagrams.

use std::time::Duration;

use super::rng::{Chance, Rng};

/// What one direction of a link does to the datagrams on it. The default delivers all of them at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// How long the way takes.
    pub delay: Duration,
    /// How much longer it takes at most. Alone it does not change the order.
    pub jitter: Duration,
    /// Which datagrams are lost.
    pub loss: Loss,
    /// How likely a datagram arrives twice.
    pub duplicate: Chance,
    /// How likely a datagram is overtaken by those behind it, by up to the delay.
    pub reorder: Chance,
    /// How likely a bit of a datagram is flipped.
    pub corrupt: Chance,
    /// Bytes per second; `None` for no limit.
    pub rate: Option<u64>,
    /// Bytes that wait for the rate; what does not fit is lost.
    pub queue: u64,
    /// The longest UDP payload that gets through.
    pub mtu: usize,
    /// Nothing gets through.
    pub cut: bool,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Loss::NONE,
            duplicate: Chance::NEVER,
            reorder: Chance::NEVER,
            corrupt: Chance::NEVER,
            rate: None,
            queue: 256 * 1024,
            mtu: 1472,
            cut: false,
        }
    }
}

impl LinkConfig {
    /// A link without faults that takes this long.
    pub fn delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// A bad mobile network: 60 ms and up to 40 more, bursts of loss, some datagrams twice or out of order,
    /// 1 MB/s.
    pub fn mobile() -> Self {
        Self {
            delay: Duration::from_millis(60),
            jitter: Duration::from_millis(40),
            loss: Loss::bursts(Chance::per_mille(10), Chance::per_mille(200)),
            duplicate: Chance::per_mille(2),
            reorder: Chance::per_mille(5),
            rate: Some(1_000_000),
            queue: 64 * 1024,
            ..Self::default()
        }
    }
}

/// Loss in bursts (Gilbert-Elliott): a link is in a good or in a bad state, each with its own loss, and each
/// datagram may move it to the other.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Loss in the good state.
    pub good: Chance,
    /// Loss in the bad state.
    pub bad: Chance,
    /// How likely a datagram makes the good state bad.
    pub worsen: Chance,
    /// How likely a datagram makes the bad state good.
    pub recover: Chance,
}

impl Loss {
    /// No loss.
    pub const NONE: Self = Self::even(Chance::NEVER);

    /// Each datagram is lost with this chance, whatever became of the others.
    pub const fn even(chance: Chance) -> Self {
        Self { good: chance, bad: chance, worsen: Chance::NEVER, recover: Chance::NEVER }
    }

    /// Bursts that begin with one chance, end with the other, and lose half of what falls into them.
    pub const fn bursts(worsen: Chance, recover: Chance) -> Self {
        Self { good: Chance::NEVER, bad: Chance::per_mille(500), worsen, recover }
    }
}

/// One direction with its state.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) config: LinkConfig,
    rng: Rng,
    bad: bool,
    /// When the last byte that has to wait for the rate is gone.
    busy_until: Duration,
    /// When the last datagram arrives that was not overtaken.
    last: Duration,
    /// The delay of then: what takes a shorter path may overtake it after all.
    last_delay: Duration,
}

/// What becomes of one datagram: when its copies arrive, and which bit of each is flipped.
pub(super) type Copies = [Option<(Duration, Option<u64>)>; 2];

impl Link {
    pub(super) fn new(config: LinkConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            bad: false,
            busy_until: Duration::ZERO,
            last: Duration::ZERO,
            last_delay: Duration::ZERO,
        }
    }

    /// Whether the next datagram is lost on the way; it takes its place in the queue nevertheless.
    pub(super) fn loses(&mut self) -> bool {
        let loss = self.config.loss;
        let (chance, change) = if self.bad { (loss.bad, loss.recover) } else { (loss.good, loss.worsen) };
        self.bad ^= self.rng.happens(change);
        self.rng.happens(chance)
    }

    /// What becomes of `length` bytes of which the last is on its way at `sent`.
    pub(super) fn carry(&mut self, sent: Duration, length: usize) -> Copies {
        if self.config.cut || length > self.config.mtu {
            return [None, None];
        }
        let first = self.arrives(sent, length);
        let second = self.rng.happens(self.config.duplicate).then(|| self.arrives(sent, length));
        [Some(first), second]
    }

    /// When the last byte is on its way, if the queue takes it.
    pub(super) fn leaves(&mut self, now: Duration, length: u64) -> Option<Duration> {
        let Some(rate) = self.config.rate else { return Some(now) };
        let rate = rate.max(1);
        let waiting = self.busy_until.saturating_sub(now);
        let queued = waiting.as_nanos() * u128::from(rate) / 1_000_000_000;
        if queued + u128::from(length) > u128::from(self.config.queue) {
            return None;
        }
        self.busy_until = self.busy_until.max(now) + Duration::from_nanos(length * 1_000_000_000 / rate);
        Some(self.busy_until)
    }

    fn arrives(&mut self, sent: Duration, length: usize) -> (Duration, Option<u64>) {
        let mut at = sent + self.config.delay + self.up_to(self.config.jitter);
        if self.rng.happens(self.config.reorder) {
            at += self.up_to(self.config.delay.max(self.config.jitter));
        } else {
            if self.config.delay >= self.last_delay {
                at = at.max(self.last);
            }
            (self.last, self.last_delay) = (at, self.config.delay);
        }
        let flipped = self.rng.happens(self.config.corrupt).then(|| self.rng.below(length as u64 * 8));
        (at, flipped)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.rng.below(nanos + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Link {
        fn send(&mut self, now: Duration, length: usize) -> Copies {
            let lost = self.loses();
            match self.leaves(now, length as u64) {
                Some(sent) if !lost => self.carry(sent, length),
                _ => [None, None],
            }
        }
    }

    fn link(config: LinkConfig) -> Link {
        Link::new(config, Rng::new(1))
    }

    fn arrivals(link: &mut Link, count: u32) -> Vec<Duration> {
        (0..count).flat_map(|_| link.send(Duration::ZERO, 1000)).flatten().map(|(at, _)| at).collect()
    }

    #[test]
    fn jitter_alone_keeps_the_order_and_reordering_does_not() {
        let jitter = Duration::from_millis(50);
        let mut calm = link(LinkConfig { jitter, ..LinkConfig::default() });
        assert!(arrivals(&mut calm, 100).is_sorted());
        let reorder = Chance::per_mille(300);
        let mut wild = link(LinkConfig { jitter, reorder, ..LinkConfig::default() });
        assert!(!arrivals(&mut wild, 100).is_sorted());
    }

    #[test]
    fn the_rate_spaces_datagrams_and_the_queue_bounds_them() {
        let mut link = link(LinkConfig { rate: Some(100_000), queue: 3000, ..LinkConfig::default() });
        let ten = Duration::from_millis(10);
        assert_eq!(arrivals(&mut link, 5), [ten, ten * 2, ten * 3]);
        assert!(link.send(ten, 1000)[0].is_some(), "there is room again");
    }

    #[test]
    fn loss_comes_in_bursts() {
        let mut link = link(LinkConfig {
            loss: Loss::bursts(Chance::per_mille(10), Chance::per_mille(100)),
            ..LinkConfig::default()
        });
        let lost: Vec<_> = (0..100_000).map(|_| link.send(Duration::ZERO, 1)[0].is_none()).collect();
        let total = lost.iter().filter(|lost| **lost).count();
        let pairs = lost.windows(2).filter(|pair| pair[0] && pair[1]).count();
        assert!((3_000..6_000).contains(&total), "{total}");
        assert!(pairs * 3 > total, "{pairs} of {total}: far more than the 5 % of even loss");
    }

    #[test]
    fn what_is_too_long_or_cut_off_does_not_arrive() {
        let mut link = link(LinkConfig { mtu: 1200, ..LinkConfig::default() });
        assert!(link.send(Duration::ZERO, 1201)[0].is_none());
        assert!(link.send(Duration::ZERO, 1200)[0].is_some());
        link.config.cut = true;
        assert!(link.send(Duration::ZERO, 1)[0].is_none());
    }

    #[test]
    fn copies_and_flipped_bits() {
        let mut link =
            link(LinkConfig { duplicate: Chance::ALWAYS, corrupt: Chance::ALWAYS, ..LinkConfig::default() });
        for copy in link.send(Duration::ZERO, 10) {
            assert!(matches!(copy, Some((_, Some(bit))) if bit < 80));
        }
    }
}
