//! The round trip of a path without a queue: the least of the last ten seconds.

use std::time::{Duration, Instant};

/// How long it is believed.
const WINDOW: Duration = Duration::from_secs(10);
/// After so long without one as short it is time to look for it.
const LOOK: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default)]
pub(super) struct MinRtt {
    value: Option<(Duration, Instant)>,
    /// The least since it was last time to look.
    recent: Option<(Duration, Instant)>,
}

impl MinRtt {
    /// Zero before the first sample.
    pub(super) fn get(&self) -> Duration {
        self.value.map_or(Duration::ZERO, |(rtt, _)| rtt)
    }

    /// Returns whether it is time to look.
    pub(super) fn update(&mut self, now: Instant, rtt: Duration) -> bool {
        let is_older = |at: Instant, time: Duration| now.saturating_duration_since(at) > time;
        let is_due = self.recent.is_some_and(|(_, at)| is_older(at, LOOK));
        if is_due || self.recent.is_none_or(|(least, _)| rtt <= least) {
            self.recent = Some((rtt, now));
        }
        if let Some((recent, _)) = self.recent
            && self.value.is_none_or(|(least, at)| recent <= least || is_older(at, WINDOW))
        {
            self.value = self.recent;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do, to begin at")]
    fn a_longer_way_is_believed_after_ten_seconds_and_looked_for_before() {
        let start = Instant::now();
        let mut least = MinRtt::default();
        let (short, long) = (Duration::from_millis(10), Duration::from_millis(30));
        assert!(!least.update(start, long) && !least.update(start, short));
        let looks: Vec<u64> = (1..=12)
            .filter(|second| {
                let due = least.update(start + Duration::from_secs(*second), long);
                assert_eq!(least.get(), if *second <= 10 { short } else { long });
                due
            })
            .collect();
        assert_eq!(looks, [6], "and then it is what there is");
        least.update(start + Duration::from_secs(12), short);
        assert_eq!(least.get(), short, "a shorter one at once");
    }
}
