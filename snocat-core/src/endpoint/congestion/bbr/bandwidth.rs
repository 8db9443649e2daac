//! Bytes per second, and the most of them that a path has delivered lately.

use std::time::Duration;

/// Bytes per second. Time counts in microseconds, which 64 bits multiply without a detour: this is done for each acknowledgement.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Bandwidth(u64);

const SECOND: u64 = 1_000_000;

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Bandwidth {
    pub(super) const ZERO: Self = Self(0);

    /// So many bytes in this time. What takes no time at all tells nothing.
    pub(super) fn of(bytes: u64, time: Duration) -> Self {
        Self(bytes.saturating_mul(SECOND).checked_div(micros(time)).unwrap_or(0))
    }

    /// The bytes that it delivers in this time.
    pub(super) fn during(self, time: Duration) -> u64 {
        self.0.saturating_mul(micros(time)) / SECOND
    }

    pub(super) fn percent(self, percent: u64) -> Self {
        Self(super::percent(self.0, percent))
    }
}

/// The greatest of two spans of time, each from one look for more to the next. A span without a sample does not count: a tunnel
/// that is idle keeps what it knows.
#[derive(Clone, Debug, Default)]
pub(super) struct MaxBandwidth {
    before: Bandwidth,
    now: Bandwidth,
}

impl MaxBandwidth {
    pub(super) fn get(&self) -> Bandwidth {
        self.before.max(self.now)
    }

    /// Less than is known counts only if the path was what limited it.
    pub(super) fn update(&mut self, bandwidth: Bandwidth, app_limited: bool) {
        if !app_limited || bandwidth >= self.get() {
            self.now = self.now.max(bandwidth);
        }
    }

    pub(super) fn advance(&mut self) {
        if self.now != Bandwidth::ZERO {
            self.before = std::mem::take(&mut self.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overflows() {
        let most = Bandwidth::of(u64::MAX, Duration::from_micros(1));
        assert!(most.during(Duration::MAX) > 1 << 40);
        assert_eq!(Bandwidth::of(1000, Duration::ZERO), Bandwidth::ZERO);
        assert_eq!(Bandwidth::of(1000, Duration::from_millis(10)).during(Duration::from_secs(1)), 100_000);
    }

    #[test]
    fn a_path_that_became_slower_is_believed_after_two_spans() {
        let mut most = MaxBandwidth::default();
        for (bandwidth, known) in [(9, 9), (4, 9), (4, 4), (5, 5)] {
            most.update(Bandwidth(bandwidth), false);
            assert_eq!(most.get(), Bandwidth(known));
            most.advance();
        }
    }

    #[test]
    fn an_application_that_sends_little_says_nothing_about_the_path() {
        let mut most = MaxBandwidth::default();
        most.update(Bandwidth(9), false);
        for _ in 0..5 {
            most.advance();
            most.update(Bandwidth(1), true);
        }
        assert_eq!(most.get(), Bandwidth(9));
        most.update(Bandwidth(10), true);
        assert_eq!(most.get(), Bandwidth(10), "but it shows what is possible");
    }
}
