//! Requests for bindings that use an id twice, or are too many.

use std::net::SocketAddr;

use snocat_core::auth::{ListeningConfig, NoProof};
use snocat_core::route::RouteAddress;
use snocat_core::wire::Frame;
use snocat_core::{Code, Event, Refusal};
use snocat_tests::bench::{Bench, Methods, Role};

use super::ROUND_TRIP;

/// BIND with this id, below 16,384.
pub(super) fn bind(bench: &mut Bench, id: u16) {
    let [high, low] = (id | 0x4000).to_be_bytes();
    bench.frame(Frame::BIND, &[&[high, low], &b"\x00\x02/x"[..]].concat());
}

/// Has the node answer everything that was asked for.
fn answer_bindings(bench: &mut Bench, result: &Result<Vec<SocketAddr>, Refusal>) -> usize {
    bench.pass(ROUND_TRIP);
    let mut count = 0;
    for event in std::mem::take(&mut bench.events) {
        if let Event::BindingRequested { binding, .. } = event {
            let now = bench.now;
            bench.tunnel().answer_binding(now, binding, result.clone()).unwrap();
            count += 1;
        }
    }
    count
}

#[test]
fn a_binding_id_that_stands_twice_is_a_violation_however_many_there_are() {
    let refused = Err(Refusal::new(Code::PORT_TAKEN, "taken"));
    for (role, (repeated, result)) in Role::BOTH.into_iter().flat_map(|role| {
        [(0, Ok(vec![])), (63, Ok(vec![])), (64, Ok(vec![])), (70, Ok(vec![])), (5, refused.clone())]
            .map(|case| (role, case))
    }) {
        let mut bench = Bench::established(role);
        (0..=70).for_each(|id| bind(&mut bench, id));
        answer_bindings(&mut bench, &result);
        assert_eq!(bench.closed(), None);
        bind(&mut bench, repeated);
        bench.pass(ROUND_TRIP);
        assert_eq!(bench.closed(), Some(Code::PROTOCOL), "{repeated}");
    }
}

#[test]
fn bindings_that_were_refused_do_not_count() {
    let mut bench = Bench::established(Role::Listening);
    (0..64).for_each(|id| bind(&mut bench, id));
    assert_eq!(answer_bindings(&mut bench, &Err(Refusal::new(Code::PORT_TAKEN, "taken"))), 64);
    (64..130).for_each(|id| bind(&mut bench, id));
    assert_eq!(answer_bindings(&mut bench, &Ok(vec![])), 64, "two are too many");
    assert_eq!(bench.closed(), None);
}

#[test]
fn a_peer_may_not_ask_for_bindings_without_end() {
    let mut bench = Bench::established(Role::Listening);
    for id in 0..1024 {
        bind(&mut bench, id);
        answer_bindings(&mut bench, &Err(Refusal::new(Code::PORT_TAKEN, "taken")));
    }
    assert_eq!(bench.closed(), None);
    bind(&mut bench, 1024);
    bench.pass(ROUND_TRIP);
    assert_eq!(bench.closed(), Some(Code::LIMIT));
}

/// Each request is refused, so that more may follow, and none is read.
#[test]
fn a_peer_that_does_not_read_stream_0_is_not_waited_for_without_end() {
    let mut bench = Bench::with(Methods::Accepted(ListeningConfig::only(NoProof)), 64).up();
    let address = RouteAddress::new(["x".repeat(2000)]).unwrap();
    let mut requests = 0;
    while bench.closed().is_none() {
        let now = bench.now;
        bench.tunnel().request_binding(now, 0, &address).unwrap();
        let [high, low] = (requests | 0x4000_u16).to_be_bytes();
        bench.frame(Frame::BOUND, &[high, low, 5, 0]);
        bench.pass(ROUND_TRIP);
        requests += 1;
    }
    assert_eq!(bench.closed(), Some(Code::LIMIT));
    assert!((255..270).contains(&requests), "{requests} of some 2,009 bytes are half a mebibyte");
}
