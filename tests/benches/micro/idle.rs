//! What asking costs where nothing is to be done: the same, however many tunnels there are (the contract of the core, 6).

use divan::Bencher;
use snocat_tests::{CLIENT, Joined, Protection, SERVER};

/// Everything that a driver asks of a tunnel.
#[divan::bench]
fn tunnel_poll(bencher: Bencher) {
    let mut joined = Joined::idle(Protection::Plain, 1);
    let mut buffer = Vec::new();
    let (now, tunnel) = joined.tunnel(SERVER);
    bencher.bench_local(|| {
        assert!(tunnel.poll_endpoint_event().is_none());
        assert!(tunnel.poll().is_none());
        assert!(tunnel.poll_transmit(now, 32, &mut buffer).is_none());
        tunnel.poll_timeout()
    });
}

/// Everything that a loop around a node asks of it.
#[divan::bench(args = [1, 1_000])]
fn node_poll(bencher: Bencher, tunnels: usize) {
    let mut joined = Joined::idle(Protection::Plain, tunnels);
    let mut buffer = Vec::new();
    let (now, node) = joined.node(SERVER);
    bencher.bench_local(|| {
        assert!(node.poll().is_none());
        assert!(node.poll_transmit(now, 32, &mut buffer).is_none());
        node.poll_timeout()
    });
}

/// A tunnel that was looked at, among others: it is polled, and its deadline is found to be the same.
#[divan::bench(args = [1, 1_000])]
fn node_poll_one(bencher: Bencher, tunnels: usize) {
    let mut joined = Joined::idle(Protection::Plain, tunnels);
    let mut buffer = Vec::new();
    let id = joined.tunnel(CLIENT).1.id();
    let (now, node) = joined.node(CLIENT);
    bencher.bench_local(|| {
        assert!(node.tunnel_mut(id).is_some());
        assert!(node.poll().is_none());
        assert!(node.poll_transmit(now, 32, &mut buffer).is_none());
        node.poll_timeout()
    });
}
