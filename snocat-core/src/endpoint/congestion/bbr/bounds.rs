//! What a path that was full has taken: bounds of the window.
//!
//! The high one is what was under way when looking for more has filled the path. It stays until a later look gets
//! beyond it. The low one is what is left when the path is full without that, because others have come or it has become
//! narrower. It lasts until the next look.

use super::bandwidth::Bandwidth;
use super::percent;
use super::round::Round;

/// What is left after congestion, in percent, unless more than that was delivered.
const BETA: u64 = 70;
/// How much of the high bound is used while not looking for more, in percent: the rest is for others who do.
const HEADROOM: u64 = 88;

#[derive(Clone, Debug)]
pub(super) struct Bounds {
    high: u64,
    low: Option<(Bandwidth, u64)>,
}

impl Bounds {
    pub(super) const NONE: Self = Self { high: u64::MAX, low: None };

    /// The window while looking for more.
    pub(super) fn looking(&self) -> u64 {
        self.high
    }

    pub(super) fn using(&self) -> u64 {
        percent(self.high, HEADROOM).min(self.low.map_or(u64::MAX, |(_, window)| window))
    }

    pub(super) fn bandwidth(&self) -> Option<Bandwidth> {
        self.low.map(|(bandwidth, _)| bandwidth)
    }

    /// Looking for more, with this window, has filled the path.
    pub(super) fn found(&mut self, window: u64, round: &Round) {
        self.high = round.delivered.max(percent(window, BETA));
    }

    /// It is full without that.
    pub(super) fn narrowed(&mut self, bandwidth: Bandwidth, window: u64, round: &Round) {
        let (bandwidth, window) = self.low.unwrap_or((bandwidth, window));
        self.low =
            Some((round.bandwidth.max(bandwidth.percent(BETA)), round.delivered.max(percent(window, BETA))));
    }

    pub(super) fn forget_low(&mut self) {
        self.low = None;
    }

    /// The high bound is in the way, and nothing is lost.
    pub(super) fn raise(&mut self, bytes: u64) {
        self.high = self.high.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn round(delivered: u64) -> Round {
        let bandwidth = Bandwidth::of(delivered, Duration::from_secs(1));
        Round { delivered, bandwidth, ..Round::EMPTY }
    }

    #[test]
    fn what_was_delivered_fits_and_what_was_not_goes_down_by_three_tenths_at_most() {
        let mut bounds = Bounds::NONE;
        bounds.found(1000, &round(900));
        assert_eq!((bounds.looking(), bounds.using()), (900, 792));
        bounds.found(1000, &round(100));
        assert_eq!(bounds.looking(), 700);
        bounds.raise(50);
        assert_eq!(bounds.looking(), 750);
    }

    #[test]
    fn the_low_bound_goes_down_with_each_round_and_is_forgotten() {
        let mut bounds = Bounds::NONE;
        for window in [700, 490, 343] {
            bounds.narrowed(round(1000).bandwidth, 1000, &round(10));
            assert_eq!((bounds.using(), bounds.bandwidth()), (window, Some(round(window).bandwidth)));
        }
        bounds.narrowed(round(1000).bandwidth, 1000, &round(300));
        assert_eq!(bounds.using(), 300, "no further than what is delivered");
        bounds.forget_low();
        assert_eq!((bounds.using(), bounds.bandwidth()), (percent(u64::MAX, HEADROOM), None));
    }
}
