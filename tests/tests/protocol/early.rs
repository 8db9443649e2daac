//! What comes before OUTCOME: buffered within limits, and taken in behind it.

use std::time::Duration;

use snocat_core::wire::Frame;
use snocat_core::{ClosedBy, Code, Event};
use snocat_tests::bench::{Bench, End, Heard, Role};

use super::bindings::bind;
use super::{HEADER, ROUND_TRIP};

/// A node that has not seen the end of the authentication, and a peer that may send control frames.
fn before_the_outcome(role: Role) -> Bench {
    let mut bench = Bench::new(role);
    match role {
        Role::Listening => bench.frame(Frame::OFFER, b"\0\0\x01\x04none"),
        Role::Connecting => bench.frame(Frame::SELECT, b"\0\x04none"),
    }
    bench
}

fn finish_authentication(bench: &mut Bench, role: Role) {
    match role {
        Role::Listening => bench.frame(Frame::PROOF, b""),
        Role::Connecting => bench.frame(Frame::OUTCOME, b"\x04peer\0"),
    }
    bench.pass(4 * ROUND_TRIP);
}

#[test]
fn control_frames_are_buffered_until_the_outcome_and_then_taken_in_in_their_order() {
    for role in Role::BOTH {
        let mut bench = before_the_outcome(role);
        (0..64).for_each(|id| bind(&mut bench, id));
        (64..128).for_each(|_| bench.frame(0x3e, b""));
        bench.pass(ROUND_TRIP);
        assert!(bench.events.is_empty(), "{:?}", bench.events);
        finish_authentication(&mut bench, role);
        assert!(matches!(bench.events.pop_front(), Some(Event::Authenticated(_))));
        let requests = |event: &Event| matches!(event, Event::BindingRequested { .. });
        assert!(bench.events.len() == 64 && bench.events.iter().all(requests), "{:?}", bench.events);
    }
}

#[test]
fn four_kibibytes_of_control_frames_are_buffered() {
    for role in Role::BOTH {
        for (length, closed) in [(2045, None), (2046, Some(Code::LIMIT))] {
            let mut bench = before_the_outcome(role);
            bench.frame(0x3e, &vec![7; length]);
            bench.frame(0x3e, &[7; 2045]);
            bench.pass(ROUND_TRIP);
            assert_eq!(bench.closed(), closed, "{length}");
        }
    }
}

/// With their deadlines, which begin behind OUTCOME.
#[test]
fn streams_are_left_unread_until_the_outcome() {
    for role in Role::BOTH {
        let mut bench = before_the_outcome(role);
        let [whole, half, ended] = [HEADER, b"\x09", HEADER].map(|bytes| {
            let stream = bench.open();
            bench.send(stream, bytes);
            stream
        });
        bench.reset(ended, Code::RESET);
        bench.pass(Duration::from_secs(6));
        assert!(bench.events.is_empty(), "{:?}", bench.events);
        assert_eq!(bench.heard(whole), Heard::default());
        finish_authentication(&mut bench, role);
        assert!(matches!(bench.events.pop_front(), Some(Event::Authenticated(_))));
        assert!(matches!(bench.events.pop_front(), Some(Event::OpenRequested { .. })));
        assert!(bench.events.is_empty(), "{:?}", bench.events);
        assert_eq!(bench.heard(ended).end, Some(End::Reset(Code::RESET)));
        bench.pass(Duration::from_secs(4));
        assert_eq!(bench.heard(half).end, None, "five seconds from OUTCOME");
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.heard(half).stopped, Some(Code::TIMEOUT));
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.heard(whole).stopped, Some(Code::TARGET_TIMEOUT), "ten seconds from OUTCOME");
    }
}

#[test]
fn the_connecting_side_has_eleven_seconds_of_its_own() {
    let mut bench = Bench::new(Role::Connecting);
    bench.pass(Duration::from_millis(10_900));
    assert_eq!(bench.closed(), None);
    bench.pass(Duration::from_millis(200));
    assert_eq!(bench.closed(), Some(Code::TIMEOUT));
    let reason = bench.events.pop_back();
    assert!(matches!(reason, Some(Event::Closed(reason)) if reason.by == ClosedBy::Local));
}
