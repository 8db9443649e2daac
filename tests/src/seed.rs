//! quickcheck with a seed: what fails can be run again, and is printed as Rust.

use std::cell::RefCell;

use quickcheck::{Gen, QuickCheck, TestResult};

use crate::scenario::{Failure, Report, Scenario};

/// How long a scenario may be: in operations, about.
const SIZE: usize = 250;

/// The seed of a run of tests: `SNOCAT_SEED`, or always the same one, so that nobody's commit is stopped by
/// what it has not caused. `random` gives a new one.
///
/// # Panics
/// If `SNOCAT_SEED` is something else.
pub fn seed() -> u64 {
    match std::env::var("SNOCAT_SEED").as_deref() {
        Ok("random") => {
            let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
            now.map_or(0, |now| u64::from(now.subsec_nanos()) ^ now.as_secs() << 20)
        }
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("SNOCAT_SEED is a number or `random`: {text}")),
        Err(_) => 1,
    }
}

/// How many scenarios to run: `SNOCAT_SCENARIOS`, or this many.
pub fn scenarios(otherwise: u64) -> u64 {
    std::env::var("SNOCAT_SCENARIOS").ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

thread_local! {
    static TOTAL: RefCell<(u64, Report)> = RefCell::default();
}

/// Runs so many scenarios, in two threads; every tenth of them twice, with the same trace.
///
/// # Panics
/// With the smallest scenario that fails, as Rust.
pub fn check(count: u64) -> Report {
    let seed = seed();
    println!("{count} scenarios, SNOCAT_SEED={seed}");
    let half = |number: u64| {
        TOTAL.with_borrow_mut(|total| *total = Default::default());
        let tests = (count + number) / 2;
        let generator = Gen::from_size_and_seed(SIZE, seed.wrapping_mul(2).wrapping_add(number));
        let quickcheck = QuickCheck::new().tests(tests).max_tests(tests).min_tests_passed(tests);
        quickcheck.rng(generator).quickcheck(holds as fn(Scenario) -> TestResult);
        TOTAL.take().1
    };
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|number| scope.spawn(move || half(number)));
        let mut report = Report::default();
        for thread in threads {
            match thread.join() {
                Ok(half) => report.add(&half),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        report
    })
}

fn holds(scenario: Scenario) -> TestResult {
    let number = TOTAL.with_borrow(|total| total.0);
    let result = scenario.run().and_then(|report| match number % 10 {
        0 => again(&scenario, report),
        _ => Ok(report),
    });
    match result {
        Ok(report) => {
            TOTAL.with_borrow_mut(|total| {
                total.0 += 1;
                total.1.add(&report);
            });
            TestResult::passed()
        }
        Err(failure) => TestResult::error(failure.to_string()),
    }
}

fn again(scenario: &Scenario, first: Report) -> Result<Report, Failure> {
    let second = scenario.run()?;
    if first.trace == second.trace {
        return Ok(first);
    }
    let what = format!("two runs differ: {:?} and {:?}", first.trace, second.trace);
    Err(Failure { at: second.time, after: scenario.ops.len(), what })
}
