//! The same seed gives the same run: byte for byte with plain TLS, datagram for datagram with real TLS.

use snocat_core::sim::{Rng, Trace};
use snocat_tests::scenario::{Crypto, Scenario};
use snocat_tests::seed::seed;

/// Scenarios that have nothing to do with each other.
fn scenarios(count: usize) -> Vec<Scenario> {
    let mut rng = Rng::new(seed());
    let mut bytes = |length| (0..length).flat_map(|_| rng.draw().to_le_bytes()).collect::<Vec<_>>();
    (0..count).map(|_| Scenario::from_bytes(&bytes(100))).collect()
}

fn trace(scenario: &Scenario, crypto: &Crypto) -> Trace {
    match scenario.run_with(crypto) {
        Ok(report) => report.trace.unwrap(),
        Err(failure) => panic!("{failure}\n{scenario:?}"),
    }
}

#[test]
fn with_plain_tls_the_same_seed_gives_the_same_bytes() {
    for scenario in scenarios(50) {
        let first = trace(&scenario, &Crypto::Plain);
        assert!(first.datagrams > 10);
        assert_eq!(first, trace(&scenario, &Crypto::Plain), "{scenario:?}");
        let other = Scenario { seed: scenario.seed ^ 1, ..scenario.clone() };
        assert_ne!(first.bytes, trace(&other, &Crypto::Plain).bytes, "{scenario:?}");
    }
}

#[test]
fn with_real_tls_the_same_seed_gives_the_same_schedule() {
    let crypto = Crypto::tls();
    for scenario in scenarios(20) {
        let (first, second) = (trace(&scenario, &crypto), trace(&scenario, &crypto));
        assert_eq!(first.schedule, second.schedule, "{scenario:?}");
        assert_ne!(first.bytes, second.bytes, "its keys are new every time");
    }
}
