//! Where a credential may be used.

use std::sync::Arc;
use std::time::{Duration, Instant};

use snocat_core::auth::{ConnectingConfig, Grant, ListeningConfig, TokenKey, TokenKeys, TokenSecret};
use snocat_core::sim::{LinkConfig, World, plain};
use snocat_core::{Code, ConnectConfig, Event};

/// A packet that says that its sender has moved to a permitted address may have a forged source: nobody was seen to
/// receive there.
#[test]
fn an_address_that_was_not_validated_gives_no_right() {
    let secret = || TokenSecret::new([7; 32]).unwrap();
    let sources = Some(vec!["203.0.113.0/24".parse().unwrap()]);
    let key = TokenKey { grant: Grant { sources, ..Grant::default() }, ..TokenKey::nameless(secret()) };
    let mut world = World::new(Instant::now(), 1);
    let accepts = ListeningConfig { methods: vec![Arc::new(TokenKeys::new(vec![key]))] };
    let server = world.add(plain::listening(1, accepts, &world.clock()));
    let client = world.add(plain::connecting(2));
    world.link(client, server, &LinkConfig::delay(Duration::from_millis(50)));
    let offers = ConnectingConfig::only(secret());
    let config = ConnectConfig { hold: true, ..plain::connect(offers) };
    let tunnel = world.connect(client, server, &config, plain::NAME).unwrap().unwrap();
    world.run(Duration::from_secs(1), |_, _, _, _| false).unwrap();
    world.network_mut().rebind(client, "203.0.113.9:4433".parse().unwrap());
    let now = world.now();
    world.tunnel_mut(client, tunnel).unwrap().authenticate(now);
    let mut seen = None;
    world
        .run(Duration::from_secs(5), |_, host, _, event| {
            if host == server {
                seen = Some(event);
            }
            seen.is_some()
        })
        .unwrap();
    assert!(matches!(&seen, Some(Event::Closed(reason)) if reason.code == Code::AUTH_REFUSED), "{seen:?}");
}
