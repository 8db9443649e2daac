//! A router under a bad network: whatever is lost, doubled or overtaken, each visitor gets the right answer.
//!
//! `cargo test -p snocat-core --features sim --example test_your_router` runs it as the test that it is,
//! `cargo run` with the same options as a program.

#![expect(clippy::expect_used, reason = "a failed assumption is a failed test")]
#![expect(clippy::disallowed_methods, reason = "any instant will do, to begin a simulation at")]

use snocat_core::sim::{LinkConfig, Pair, PairError};
use snocat_core::{Code, Refusal, open::Header, route::Policy};

/// What is tested: this side offers its web server and nothing else.
fn router(header: &Header) -> Result<(), Refusal> {
    let policy = Policy::only(["/tcp/80".parse().expect("an address")]);
    policy.decide(header).map(drop)
}

#[cfg_attr(test, test)]
fn main() {
    for seed in 0..100 {
        let start = std::time::Instant::now();
        let mut pair = Pair::connect(start, seed, &LinkConfig::mobile()).expect("a tunnel");
        let mut visit = |target: &str| {
            let header = Header::forward(target.parse().expect("an address"));
            pair.visit(&header, router)
        };
        let (web, ssh) = (visit("/tcp/80"), visit("/tcp/22"));
        assert!(web.is_ok(), "seed {seed}: {web:?}");
        let refused = |error| matches!(error, PairError::Refused(why) if why.code == Code::NOT_ALLOWED);
        assert!(ssh.clone().is_err_and(refused), "seed {seed}: {ssh:?}");
    }
    println!("200 visits, each with the right answer");
}
