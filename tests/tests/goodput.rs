//! What the congestion control promises, on the path of the benchmark `goodput`, for a shorter time.
//!
//! A sixth of its rate, so that a test takes seconds: round trips, queue and loss are the same.

use std::time::Duration;

use snocat_driver::core::CongestionControl::{self, Bbr, Cubic};
use snocat_driver::core::sim::Chance;
use snocat_tests::goodput::{Outcome, Path, Sender, goodput, jain};

fn path() -> Path {
    Path {
        rate: 50,
        round_trip: Duration::from_millis(50),
        queue: Duration::from_millis(50),
        loss: Chance::NEVER,
        later: None,
    }
}

fn sender(congestion: CongestionControl, start: u64) -> Sender {
    Sender { congestion, streams: 1, start: Duration::from_secs(start) }
}

/// What is counted begins and ends with these seconds.
fn run(path: &Path, senders: &[Sender], from: u64, until: u64) -> Outcome {
    goodput(1, path, senders, Duration::from_secs(from), Duration::from_secs(until))
}

#[test]
fn a_bottleneck_is_filled_and_its_queue_stays_short() {
    for streams in [1, 8] {
        let outcome = run(&path(), &[Sender { streams, ..sender(Bbr, 0) }], 3, 13);
        assert!(outcome.shares[0] > 0.9, "{outcome:?}");
        assert!(outcome.added < Duration::from_millis(10), "{outcome:?}");
    }
}

#[test]
fn one_percent_of_loss_costs_little() {
    let outcome = run(&Path { loss: Chance::per_mille(10), ..path() }, &[sender(Bbr, 0)], 3, 13);
    assert!(outcome.shares[0] > 0.75, "{outcome:?}");
}

/// As much is under way as at 300 Mbit/s and 50 ms. There is always a gap somewhere; waiting for it would leave a half.
#[test]
fn one_percent_of_loss_costs_one_visitor_little_where_much_is_under_way() {
    let round_trip = Duration::from_millis(300);
    let path = Path { loss: Chance::per_mille(10), round_trip, queue: round_trip, ..path() };
    let outcome = run(&path, &[sender(Bbr, 0)], 10, 25);
    assert!(outcome.shares[0] > 0.7, "{outcome:?}");
}

/// Sending less mends nothing there. At a tenth, nothing was left of the path once.
#[test]
fn more_loss_leaves_less_and_there_is_no_cliff() {
    for (per_mille, least) in [(50, 0.5), (80, 0.35), (120, 0.25)] {
        let lossy = Path { loss: Chance::per_mille(per_mille), ..path() };
        let outcome = run(&lossy, &[sender(Bbr, 0)], 5, 15);
        assert!(outcome.shares[0] > least, "{per_mille}: {outcome:?}");
    }
}

/// They begin one after the other, so all but the first find a queue. What they drain together shows them the path without it.
#[test]
fn the_queue_of_many_tunnels_drains_and_they_share_evenly() {
    let path = Path { rate: 20, queue: Duration::from_secs(2), ..path() };
    let senders: Vec<Sender> = (0..12).map(|start| sender(Bbr, start)).collect();
    let outcome = run(&path, &senders, 60, 80);
    assert!(outcome.added < path.round_trip * 2, "{outcome:?}");
    assert!(outcome.shares.iter().sum::<f64>() > 0.9, "{outcome:?}");
    assert!(jain(&outcome.shares) > 0.9, "{outcome:?}");
}

/// A queue that overflows before a round trip looks long.
#[test]
fn on_a_very_short_queue_cubic_has_a_quarter() {
    let path = Path { rate: 100, queue: Duration::from_millis(2), ..path() };
    let outcome = run(&path, &[sender(Bbr, 0), sender(Cubic, 0)], 5, 35);
    assert!(outcome.shares[1] > 0.25, "{outcome:?}");
}

#[test]
fn beside_cubic_each_has_a_quarter_at_least() {
    for starts in [[0, 0], [3, 0], [0, 3]] {
        let senders = [sender(Bbr, starts[0]), sender(Cubic, starts[1])];
        let outcome = run(&path(), &senders, 3, 33);
        assert!(outcome.shares.iter().all(|share| *share > 0.25), "{starts:?}: {outcome:?}");
    }
}

#[test]
fn two_tunnels_share_evenly_whoever_came_first() {
    for start in [0, 5] {
        let outcome = run(&path(), &[sender(Bbr, 0), sender(Bbr, start)], 5, 35);
        assert!(jain(&outcome.shares) > 0.9, "{start}: {outcome:?}");
    }
}

#[test]
fn a_path_that_becomes_narrow_is_followed_at_once() {
    let narrow = Path { later: Some((Duration::from_secs(5), 10)), ..path() };
    let outcome = run(&narrow, &[sender(Bbr, 0)], 6, 16);
    assert!(outcome.shares[0] > 0.9, "{outcome:?}");
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    let lossy = Path { loss: Chance::per_mille(10), ..path() };
    for congestion in [Bbr, Cubic] {
        let again = || run(&lossy, &[sender(congestion, 0)], 1, 3);
        assert_eq!(again(), again());
    }
}
