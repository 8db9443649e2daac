//! A router under a bad network: whatever is lost, doubled or overtaken, each stream gets the right answer.
//!
//! `cargo test -p snocat-core --features sim --example test_your_router` runs it as the test that it is,
//! `cargo run` with the same options as a program.

#![expect(clippy::expect_used, reason = "a failed assumption is a failed test")]
#![expect(clippy::disallowed_methods, reason = "any instant will do, to begin a simulation at")]

use std::time::{Duration, Instant};

use snocat_core::open::Header;
use snocat_core::route::Policy;
use snocat_core::sim::{LinkConfig, World, plain};
use snocat_core::{Code, Event, auth};

/// What is tested: this side offers its web server and nothing else.
fn router(header: &Header) -> Result<(), Code> {
    let policy = Policy::only(["/tcp/80".parse().expect("an address")]);
    policy.decide(header).map(drop).map_err(|refusal| refusal.code)
}

/// Connects with this seed, asks for a target, and returns what came of it.
fn visit(seed: u64, target: &str) -> Option<Result<(), Code>> {
    let mut world = World::new(Instant::now(), seed);
    let accepts = auth::ListeningConfig::only(auth::NoProof);
    let server = world.add(plain::listening(seed, accepts, &world.clock()));
    let client = world.add(plain::connecting(!seed));
    world.link(client, server, &LinkConfig::mobile());

    let offers = auth::ConnectingConfig::only(auth::NoProof);
    world.connect(client, server, &plain::connect(offers), plain::NAME)?.ok()?;
    let mut answer = None;
    let _in_time = world.run(Duration::from_secs(60), |world, host, id, event| {
        let now = world.now();
        let Some(tunnel) = world.tunnel_mut(host, id) else { return true };
        match event {
            Event::AuthRequested { ticket, .. } => {
                let name = "home".parse().expect("a name");
                tunnel.admit(now, ticket, name, Default::default()).expect("nobody has decided");
                // A visitor is there at once.
                let header = Header::forward(target.parse().expect("an address"));
                tunnel.open(now, &header).expect("the client allows streams");
            }
            Event::OpenRequested { stream, header } => match router(&header) {
                Ok(()) => tunnel.accept(now, stream).expect("nobody has answered"),
                Err(code) => {
                    let refusal = snocat_core::Refusal::new(code, "not here");
                    tunnel.refuse(now, stream, refusal).expect("nobody has answered");
                }
            },
            Event::Accepted { .. } => answer = Some(Ok(())),
            Event::Refused { refusal, .. } => answer = Some(Err(refusal.code)),
            _ => {}
        }
        answer.is_some()
    });
    answer
}

#[cfg_attr(test, test)]
fn main() {
    for seed in 0..100 {
        assert_eq!(visit(seed, "/tcp/80"), Some(Ok(())), "seed {seed}");
        assert_eq!(visit(seed, "/tcp/22"), Some(Err(Code::NOT_ALLOWED)), "seed {seed}");
    }
    println!("200 visits, each with the right answer");
}
