//! Requests for bindings that use an id twice, or are too many.

use std::net::SocketAddr;

use snocat_core::wire::Frame;
use snocat_core::{Code, Event, Refusal};
use snocat_tests::bench::{Bench, Role};

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
