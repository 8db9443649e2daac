//! A network that fails and comes back, and a server that is gone: the driver tells them apart by what ICMP says. In
//! virtual time; `snocat-cli/tests/cli/outage.rs` does the same in real networks.

use std::net::IpAddr;
use std::time::Duration;

use snocat_driver::core::sim::LinkConfig;
use snocat_driver::core::{ClosedBy, Limits};
use snocat_driver::{ConnectError, Icmp, Runtime};
use snocat_tests::simruntime::{
    CLIENT, Forwarding, Machines, Peer, SERVER, World, connect_client, each_seed, simulate,
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The server's host says that the server is gone.
const GONE: Icmp = Icmp::PortUnreachable(IpAddr::V4(SERVER));
/// Another host says so, which cannot know.
const HEARSAY: Icmp = Icmp::PortUnreachable(IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 9, 9)));

fn machines(seed: u64) -> Machines {
    // A path that is seconds long is another matter.
    Machines { link: LinkConfig::delay(Duration::from_millis(1 + seed % 100)), ..Machines::drawn(seed) }
}

/// A visitor that says something each half second, and hears all of it in the end.
struct Visitor {
    peer: Peer,
    said: u64,
}

impl Visitor {
    async fn talk(&mut self, world: &World, time: Duration) {
        let runtime = world.visitors();
        let until = runtime.now() + time;
        while runtime.now() < until {
            self.peer.write_pattern(self.said, 100).await.unwrap();
            self.said += 100;
            runtime.sleep_until(runtime.now() + Duration::from_millis(500)).await;
        }
    }
}

/// A tunnel in use, and what happens to its network, with 20 seeds.
fn in_use(happens: impl AsyncFn(World, Forwarding, Visitor)) {
    each_seed(20, |seed| {
        simulate(seed, machines(seed), async |world: World| {
            let target = world.echo();
            let forwarding = Forwarding::start(&world.sim, target, &Limits::default()).await;
            let peer = Peer::connect(&world.visitors(), forwarding.port).await.unwrap();
            happens(world, forwarding, Visitor { peer, said: 0 }).await;
        });
    });
}

/// What is said during these outages, one after the other, arrives after them.
fn survives(outages: &[(Icmp, Duration)]) {
    in_use(async |world: World, forwarding: Forwarding, mut visitor: Visitor| {
        visitor.talk(&world, seconds(2)).await;
        for (said, time) in outages {
            world.sim.set_outage(Some(*said));
            visitor.talk(&world, *time).await;
        }
        world.sim.set_outage(None);
        visitor.peer.expect_pattern(0, visitor.said as usize).await.unwrap();
        visitor.peer.shutdown().unwrap();
        assert_eq!(visitor.peer.verify_pattern(visitor.said).await.unwrap(), 0);
        forwarding.stop().await;
    });
}

#[test]
fn what_a_router_says_costs_no_tunnel_within_the_idle_time() {
    survives(&[(Icmp::Other, seconds(8))]);
    survives(&[(Icmp::Other, seconds(25))]);
}

#[test]
fn only_the_servers_host_knows_that_the_server_is_gone() {
    survives(&[(HEARSAY, seconds(25))]);
}

/// It may be a router that has the server's address, and does not forward yet.
#[test]
fn a_server_that_is_gone_for_as_long_as_a_router_dials_in_is_waited_for() {
    survives(&[(GONE, seconds(8))]);
}

#[test]
fn one_word_of_the_servers_host_and_an_outage_are_an_outage() {
    survives(&[(GONE, seconds(1)), (Icmp::Other, seconds(24))]);
}

#[test]
fn a_server_that_is_gone_is_noticed_before_the_idle_time_is_over() {
    in_use(async |world: World, forwarding: Forwarding, mut visitor: Visitor| {
        visitor.talk(&world, seconds(2)).await;
        let began = world.sim.elapsed();
        world.sim.set_outage(Some(GONE));
        assert_eq!(forwarding.tunnel.closed().await.by, ClosedBy::Idle);
        // The next keep-alive, and what the path gets.
        let took = world.sim.elapsed() - began;
        assert!(took >= seconds(10) && took < seconds(12 + 10 + 2), "{took:?}");
        world.sim.set_outage(None);
        forwarding.stop().await;
    });
}

fn attempt(seed: u64, said: Icmp) -> (Result<(), ConnectError>, Duration) {
    let (result, _) = simulate(seed, machines(seed), async |world: World| {
        world.sim.set_outage(Some(said));
        let result = connect_client(&world.sim, "10.0.0.1", None, &Limits::default()).await.map(drop);
        (result, world.sim.elapsed())
    });
    result
}

#[test]
fn an_attempt_that_the_servers_host_refuses_ends_within_a_second() {
    each_seed(20, |seed| {
        let (result, took) = attempt(seed, GONE);
        assert!(matches!(result, Err(ConnectError::NoAnswer { unreachable: true, .. })), "{result:?}");
        assert!(took < seconds(1), "{took:?}");
    });
}

#[test]
fn an_attempt_goes_on_whatever_routers_say() {
    each_seed(20, |seed| {
        let (result, took) = attempt(seed, [HEARSAY, Icmp::Other][seed as usize % 2]);
        assert!(matches!(result, Err(ConnectError::NoAnswer { unreachable: false, .. })), "{result:?}");
        assert!(took >= seconds(10), "{took:?}");
    });
}

#[test]
fn a_forged_word_costs_nothing_where_the_server_answers() {
    each_seed(20, |seed| {
        simulate(seed, machines(seed), async |world: World| {
            let target = world.echo();
            let runtime = world.sim.host(CLIENT);
            runtime.clone().spawn(async move {
                // The first time before the server's first answer, then while the tunnel is up.
                for after in [500, 2_000_000, 3_000_000] {
                    runtime.sleep_until(runtime.now() + Duration::from_micros(after)).await;
                    runtime.tell(GONE);
                }
            });
            let forwarding = Forwarding::start(&world.sim, target, &Limits::default()).await;
            let peer = Peer::connect(&world.visitors(), forwarding.port).await.unwrap();
            let mut visitor = Visitor { peer, said: 0 };
            visitor.talk(&world, seconds(20)).await;
            visitor.peer.expect_pattern(0, visitor.said as usize).await.unwrap();
            drop(visitor);
            forwarding.stop().await;
        });
    });
}
