//! What a round trip was like, and whether so much was lost that the path must be full.
//!
//! Some paths lose packets whatever is sent: a percent is what a bad radio does. Sending less mends nothing there. So loss is
//! compared to what is lost anyway, which is learned while no more than the known share is under way: the *usual* loss.
//! More than that by 2 % is congestion (draft-ietf-ccwg-bbr, `BBR.LossThresh`). The length of the queue is no sign: a queue of
//! 2 ms on a path of 50 ms overflows before any round trip looks long.
//!
//! Loss is judged over a round trip, and over several where one has few packets: one lost of twenty says nothing.

use std::time::Duration;

use super::bandwidth::Bandwidth;
use super::delivery::Sample;
use super::percent;

/// Loss beyond the usual by so many percent is congestion.
const TOLERATED: u64 = 2;
/// The most that passes for usual, in thousandths. It is also what a new tunnel assumes, so that it can start on such a path.
const MOST_USUAL: u64 = 150;
/// Packets to judge from at least.
const PACKETS: u64 = 50;
/// Lost packets at least: two of fifty are not rare where one percent is lost.
const LOST: u64 = 3;

/// Between two samples that end a round.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) bandwidth: Bandwidth,
    pub(super) delivered: u64,
    pub(super) least_rtt: Duration,
}

impl Round {
    pub(super) const EMPTY: Self =
        Self { bandwidth: Bandwidth::ZERO, delivered: 0, least_rtt: Duration::MAX };

    pub(super) fn add(&mut self, sample: &Sample) {
        self.bandwidth = self.bandwidth.max(sample.bandwidth);
        self.delivered = self.delivered.saturating_add(sample.acknowledged);
        self.least_rtt = self.least_rtt.min(sample.rtt);
    }
}

/// Bytes that arrived, and bytes that did not.
#[derive(Clone, Debug, Default)]
struct Count {
    delivered: u64,
    lost: u64,
}

impl Count {
    fn total(&self) -> u64 {
        self.delivered.saturating_add(self.lost)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Loss {
    /// Not judged yet.
    now: Count,
    marked: bool,
    /// Since the last look for more, while no more than the known share was under way.
    resting: Count,
    /// In thousandths.
    usual: u64,
}

impl Default for Loss {
    fn default() -> Self {
        Self { now: Count::default(), marked: false, resting: Count::default(), usual: MOST_USUAL }
    }
}

impl Loss {
    pub(super) fn add(&mut self, bytes: u64) {
        self.now.lost = self.now.lost.saturating_add(bytes);
    }

    /// The path has said itself that it is full (RFC 3168).
    pub(super) fn mark(&mut self) {
        self.marked = true;
    }

    /// A round has ended. Returns whether the path was full.
    pub(super) fn judge(&mut self, round: &Round, mtu: u64) -> bool {
        self.now.delivered = self.now.delivered.saturating_add(round.delivered);
        if !self.marked && self.now.total() < PACKETS * mtu {
            return false;
        }
        let marked = std::mem::take(&mut self.marked);
        let count = std::mem::take(&mut self.now);
        self.resting.delivered = self.resting.delivered.saturating_add(count.delivered);
        self.resting.lost = self.resting.lost.saturating_add(count.lost);
        let usual = count.total() / 1000 * self.usual;
        // Of packets that are lost at random, more than two standard deviations beyond the usual are rare.
        let noise = 2 * (usual / mtu).isqrt() * mtu;
        let most = usual.saturating_add(noise.max(percent(count.total(), TOLERATED)));
        marked || (count.lost >= LOST * mtu && count.lost > most)
    }

    /// What was under way until now was more than the known share, or left over from that.
    pub(super) fn rest(&mut self) {
        self.resting = Count::default();
    }

    /// What was lost since [`rest`](Self::rest) is lost whatever is sent.
    pub(super) fn learn(&mut self, mtu: u64) {
        let count = std::mem::take(&mut self.resting);
        if count.total() >= PACKETS * mtu {
            self.usual = (count.lost / (count.total() / 1000).max(1)).min(MOST_USUAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1200;

    fn round(delivered: u64) -> Round {
        Round { delivered: delivered * MTU, ..Round::EMPTY }
    }

    /// Each round has so many delivered and so many lost packets.
    fn judge(loss: &mut Loss, rounds: &[(u64, u64)]) -> Vec<bool> {
        let judge = |&(delivered, lost): &(u64, u64)| {
            loss.add(lost * MTU);
            loss.judge(&round(delivered), MTU)
        };
        rounds.iter().map(judge).collect()
    }

    /// Has learned that so many of a thousand are lost anyway.
    fn used_to(lost: u64) -> Loss {
        let mut loss = Loss::default();
        judge(&mut loss, &[(1000 - lost, lost)]);
        loss.learn(MTU);
        loss
    }

    #[test]
    fn two_percent_are_tolerated_and_three_are_not() {
        assert_eq!(judge(&mut used_to(0), &[(980, 20), (970, 30), (1000, 0)]), [false, true, false]);
    }

    #[test]
    fn what_is_lost_anyway_is_no_congestion() {
        assert_eq!(judge(&mut used_to(80), &[(910, 90), (890, 110)]), [false, true]);
        assert_eq!(judge(&mut used_to(120), &[(870, 130), (840, 160)]), [false, true]);
    }

    #[test]
    fn a_fifth_is_congestion_whatever_was_lost_before() {
        assert_eq!(judge(&mut used_to(300), &[(830, 170), (800, 200)]), [false, true]);
        assert_eq!(judge(&mut Loss::default(), &[(830, 170), (800, 200)]), [false, true]);
    }

    #[test]
    fn what_a_look_for_more_has_lost_is_not_learned() {
        let mut loss = used_to(0);
        judge(&mut loss, &[(800, 200)]);
        loss.rest();
        judge(&mut loss, &[(1000, 0)]);
        loss.learn(MTU);
        assert_eq!(judge(&mut loss, &[(970, 30)]), [true]);
    }

    #[test]
    fn few_packets_are_judged_together() {
        assert_eq!(judge(&mut used_to(0), &[(19, 1), (19, 1), (17, 3)]), [false, false, true]);
        assert_eq!(judge(&mut used_to(0), &[(49, 1), (48, 2), (47, 3)]), [false, false, true]);
        assert_eq!(judge(&mut used_to(80), &[(43, 7), (39, 11)]), [false, true], "chance has its part");
    }

    #[test]
    fn a_mark_counts_at_once_and_once() {
        let mut loss = Loss::default();
        loss.mark();
        assert!(loss.judge(&Round::EMPTY, MTU));
        assert!(!loss.judge(&Round::EMPTY, MTU));
    }
}
