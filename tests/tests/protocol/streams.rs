//! How streams end until the answer is there, and STOP_SENDING behind it.

use std::collections::VecDeque;
use std::time::Duration;

use snocat_core::auth::{ListeningConfig, NoProof};
use snocat_core::{Code, Event, ReadStatus, Refusal, WriteError};
use snocat_tests::bench::{Bench, End, Heard, Methods, Role};

use super::{CODE, HEADER, ROUND_TRIP, asked, expect, offered, refused};

/// A refusal, as an acceptor sends it.
const REFUSAL: &[u8] = b"\x06\x23\x04gone";

#[test]
fn a_reset_before_the_answer_comes_back_with_its_code() {
    for (role, code) in Role::BOTH.into_iter().flat_map(|role| [CODE, Code::NONE].map(|code| (role, code))) {
        let mut bench = Bench::established(role);
        let (_, theirs) = asked(&mut bench);
        bench.reset(theirs, code);
        bench.pass(ROUND_TRIP);
        assert_eq!(bench.heard(theirs).end, Some(End::Reset(code)), "of the acceptor");
        assert_eq!(refused(&mut bench).code, code);

        let (_, theirs) = offered(&mut bench);
        bench.reset(theirs, code);
        bench.pass(ROUND_TRIP);
        let heard = Heard { end: Some(End::Reset(code)), ..Heard::default() };
        assert_eq!(bench.heard(theirs), heard, "of the opener, behind the header");

        let theirs = bench.open();
        bench.send(theirs, b"\x09\x01");
        bench.pass(ROUND_TRIP);
        bench.reset(theirs, code);
        bench.pass(ROUND_TRIP);
        assert_eq!(bench.heard(theirs), heard, "of the opener, within the header");
        assert_eq!(bench.tunnel().open_streams(), 0);
    }
}

#[test]
fn an_opener_that_is_stopped_before_the_answer_resets_at_once_and_waits_for_the_answer() {
    for role in Role::BOTH {
        let mut bench = Bench::established(role);
        let (stream, theirs) = asked(&mut bench);
        bench.stop(theirs, CODE);
        bench.pass(ROUND_TRIP);
        assert!(bench.was_reset(theirs, CODE), "RFC 9000, section 3.5");
        assert!(bench.events.is_empty(), "the answer may still say more: {:?}", bench.events);
        let now = bench.now;
        let more = bench.tunnel().write(now, stream, &mut b"more"[..].into());
        assert_eq!(more, Err(WriteError::Blocked));
        bench.send(theirs, REFUSAL);
        bench.finish(theirs);
        bench.pass(ROUND_TRIP);
        assert_eq!(refused(&mut bench), Refusal::new(Code::TARGET_REFUSED, "gone"));
        assert_eq!(bench.tunnel().open_streams(), 0);
    }
}

/// As an acceptor refuses: in one datagram, in which STOP_SENDING comes first.
#[test]
fn an_opener_that_wants_no_bytes_waits_for_the_answer_even_if_it_is_stopped() {
    for role in Role::BOTH {
        let mut bench = Bench::established(role);
        let (stream, theirs) = asked(&mut bench);
        bench.stop(theirs, CODE);
        bench.pass(ROUND_TRIP);
        let now = bench.now;
        bench.tunnel().stop(now, stream, Code::CANCELLED);
        bench.send(theirs, REFUSAL);
        bench.finish(theirs);
        bench.pass(ROUND_TRIP);
        assert_eq!(refused(&mut bench), Refusal::new(Code::TARGET_REFUSED, "gone"));

        let (stream, theirs) = asked(&mut bench);
        bench.stop(theirs, CODE);
        bench.pass(ROUND_TRIP);
        let now = bench.now;
        bench.tunnel().reset(now, stream, Code::CANCELLED);
        bench.tunnel().stop(now, stream, Code::CANCELLED);
        assert_eq!(bench.tunnel().open_streams(), 0, "whoever resets its half as well gives the stream up");
    }
}

#[test]
fn a_refusal_does_not_lose_its_code_over_stop_sending() {
    for role in Role::BOTH {
        let mut bench = Bench::established(role);
        let (_, theirs) = asked(&mut bench);
        bench.stop(theirs, CODE);
        bench.send(theirs, REFUSAL);
        bench.finish(theirs);
        bench.pass(ROUND_TRIP);
        assert_eq!(refused(&mut bench), Refusal::new(Code::TARGET_REFUSED, "gone"));
        assert!(bench.was_reset(theirs, CODE));
    }
}

#[test]
fn an_acceptor_may_stop_what_it_accepts_and_go_on_writing() {
    for role in Role::BOTH {
        let mut bench = Bench::established(role);
        let (stream, theirs) = asked(&mut bench);
        bench.stop(theirs, CODE);
        bench.pass(ROUND_TRIP);
        bench.send(theirs, b"\x01\x00bytes");
        bench.finish(theirs);
        bench.pass(ROUND_TRIP);
        expect(&mut bench, &Event::Accepted { stream });
        expect(&mut bench, &Event::Stopped { stream, code: CODE });
        let (now, mut out) = (bench.now, VecDeque::new());
        let more = bench.tunnel().write(now, stream, &mut b"more"[..].into());
        assert_eq!(more, Err(WriteError::Stopped(CODE)));
        assert_eq!(bench.tunnel().read(now, stream, 100, &mut out), Ok(ReadStatus::Finished));
        assert_eq!(out, [&b"bytes"[..]]);
        assert_eq!(bench.tunnel().open_streams(), 0);
    }
}

#[test]
fn an_acceptor_that_stops_and_says_nothing_has_twenty_seconds() {
    let mut bench = Bench::established(Role::Listening);
    let (_, theirs) = asked(&mut bench);
    bench.stop(theirs, CODE);
    bench.pass(Duration::from_secs(21));
    assert_eq!(refused(&mut bench).code, Code::TIMEOUT);
    assert_eq!(bench.tunnel().open_streams(), 0);
}

#[test]
fn a_stream_that_is_not_answered_in_time_is_ended_with_timeout() {
    for role in Role::BOTH {
        let mut bench = Bench::established(role);
        let (_, theirs) = asked(&mut bench);
        bench.pass(Duration::from_secs(21));
        let Heard { end, stopped, .. } = bench.heard(theirs);
        assert_eq!((end, stopped), (Some(End::Reset(Code::TIMEOUT)), Some(Code::TIMEOUT)));
    }
}

#[test]
fn an_opener_that_stops_before_the_answer_has_taken_its_stream_back() {
    for role in Role::BOTH {
        let mut bench = Bench::established(role);
        let (stream, theirs) = offered(&mut bench);
        bench.stop(theirs, CODE);
        bench.pass(ROUND_TRIP);
        expect(&mut bench, &Event::OpenCancelled { stream });
        assert!(bench.was_reset(theirs, CODE) && bench.was_stopped(theirs, CODE));
        assert_eq!(bench.tunnel().open_streams(), 0);
    }
}

/// STOP_SENDING stands before everything else in a datagram.
#[test]
fn a_stream_that_is_stopped_together_with_its_header_is_not_offered() {
    for role in Role::BOTH {
        let mut bench = Bench::established(role);
        let theirs = bench.open();
        bench.send(theirs, HEADER);
        bench.stop(theirs, CODE);
        bench.pass(ROUND_TRIP);
        assert!(bench.events.is_empty(), "{:?}", bench.events);
        assert!(bench.was_reset(theirs, CODE) && bench.was_stopped(theirs, CODE));
        assert_eq!(bench.tunnel().open_streams(), 0);
    }
}

#[test]
fn a_stream_that_runs_answers_stop_sending_with_a_reset_whatever_its_application_does() {
    for role in Role::BOTH {
        let mut bench = Bench::established(role);
        let (stream, theirs) = offered(&mut bench);
        let now = bench.now;
        bench.tunnel().accept(now, stream).unwrap();
        bench.pass(ROUND_TRIP);
        bench.events.clear();
        bench.stop(theirs, CODE);
        bench.pass(ROUND_TRIP);
        assert!(bench.was_reset(theirs, CODE));
        expect(&mut bench, &Event::Stopped { stream, code: CODE });
        // The other direction is not touched.
        bench.send(theirs, b"bytes");
        bench.finish(theirs);
        bench.pass(ROUND_TRIP);
        let (now, mut out) = (bench.now, VecDeque::new());
        assert_eq!(bench.tunnel().read(now, stream, 100, &mut out), Ok(ReadStatus::Finished));
        assert_eq!(out, [&b"bytes"[..]]);
        assert_eq!(bench.tunnel().open_streams(), 0);
    }
}

/// The peer takes less than the whole answer, and then nothing more.
#[test]
fn a_refusal_that_is_stopped_before_it_has_left_is_reset() {
    let mut bench = Bench::with(Methods::Accepted(ListeningConfig::only(NoProof)), 64).up();
    let (stream, theirs) = offered(&mut bench);
    let now = bench.now;
    let refusal = Refusal::new(Code::BUSY, "x".repeat(200));
    bench.tunnel().refuse(now, stream, refusal).unwrap();
    bench.pass(ROUND_TRIP);
    bench.stop(theirs, CODE);
    bench.pass(ROUND_TRIP);
    assert!(bench.was_reset(theirs, CODE));
    assert_eq!(bench.tunnel().open_streams(), 0);
}
