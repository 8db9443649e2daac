//! What a round trip was like, and whether so much was lost that the path must be full.
//!
//! A percent of loss is what a bad radio does, and nothing that sending less would mend. More counts where there was a queue; without
//! any, only a part as large as a queue that hardly exists would cause. It is judged over a round trip, and over several
//! where one has few packets: one lost of twenty says nothing.

use std::time::Duration;

use super::bandwidth::Bandwidth;
use super::delivery::Sample;

/// Loss beyond this many percent is congestion.
const TOLERATED: u64 = 2;
/// The same where no round trip was longer than the shortest by a sixteenth.
const TOLERATED_WITHOUT_QUEUE: u64 = 10;
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
    pub(super) greatest_rtt: Duration,
}

impl Round {
    pub(super) const EMPTY: Self = Self {
        bandwidth: Bandwidth::ZERO,
        delivered: 0,
        least_rtt: Duration::MAX,
        greatest_rtt: Duration::ZERO,
    };

    pub(super) fn add(&mut self, sample: &Sample) {
        self.bandwidth = self.bandwidth.max(sample.bandwidth);
        self.delivered = self.delivered.saturating_add(sample.acknowledged);
        self.least_rtt = self.least_rtt.min(sample.rtt);
        self.greatest_rtt = self.greatest_rtt.max(sample.rtt);
    }

    fn has_queue(&self, min_rtt: Duration) -> bool {
        self.greatest_rtt > min_rtt + min_rtt / 16
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Loss {
    delivered: u64,
    lost: u64,
    marked: bool,
}

impl Loss {
    pub(super) fn add(&mut self, bytes: u64) {
        self.lost = self.lost.saturating_add(bytes);
    }

    /// The path has said itself that it is full (RFC 3168).
    pub(super) fn mark(&mut self) {
        self.marked = true;
    }

    /// A round has ended. Whether the path was full.
    pub(super) fn judge(&mut self, round: &Round, min_rtt: Duration, mtu: u64) -> bool {
        self.delivered = self.delivered.saturating_add(round.delivered);
        let total = self.delivered.saturating_add(self.lost);
        if !self.marked && total < PACKETS * mtu {
            return false;
        }
        let Self { lost, marked, .. } = std::mem::take(self);
        let tolerated = if round.has_queue(min_rtt) { TOLERATED } else { TOLERATED_WITHOUT_QUEUE };
        marked || (lost >= LOST * mtu && lost > super::percent(total, tolerated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1200;
    const MIN_RTT: Duration = Duration::from_millis(50);

    fn judge(rtt: u64, rounds: &[(u64, u64)]) -> Vec<bool> {
        let mut loss = Loss::default();
        let judge = |&(delivered, lost): &(u64, u64)| {
            let rtt = Duration::from_millis(rtt);
            let round = Round { delivered: delivered * MTU, greatest_rtt: rtt, ..Round::EMPTY };
            loss.add(lost * MTU);
            loss.judge(&round, MIN_RTT, MTU)
        };
        rounds.iter().map(judge).collect()
    }

    #[test]
    fn two_percent_are_tolerated_and_three_are_not() {
        assert_eq!(judge(60, &[(980, 20), (970, 30), (1000, 0)]), [false, true, false]);
    }

    #[test]
    fn without_a_queue_it_takes_more() {
        assert_eq!(judge(52, &[(950, 50), (850, 150)]), [false, true]);
    }

    #[test]
    fn few_packets_are_judged_together() {
        assert_eq!(judge(60, &[(19, 1), (19, 1), (17, 3)]), [false, false, true]);
        assert_eq!(judge(60, &[(49, 1), (48, 2), (47, 3)]), [false, false, true]);
    }

    #[test]
    fn a_mark_counts_at_once_and_once() {
        let mut loss = Loss::default();
        loss.mark();
        assert!(loss.judge(&Round::EMPTY, MIN_RTT, MTU));
        assert!(!loss.judge(&Round::EMPTY, MIN_RTT, MTU));
    }
}
