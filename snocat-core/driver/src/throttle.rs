//! Warnings about what can happen with every visitor: one in a while, and how many were left out.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// The least time between two warnings.
const INTERVAL: Duration = Duration::from_secs(10);

/// Says when it is time for a warning again.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// Whether to warn now: then, how many warnings were left out since the last one.
    pub(crate) fn allows(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.0);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do, to count from")]
    fn one_warning_in_a_while_and_the_number_of_the_others() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let at = |seconds| throttle.allows(start + Duration::from_secs(seconds));
        assert_eq!(
            [at(0), at(0), at(9), at(10), at(11), at(30)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}
