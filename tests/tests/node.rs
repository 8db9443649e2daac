//! Two nodes in virtual time: what the core promises about time, order and memory, without a runtime around it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use snocat_driver::Bytes;
use snocat_driver::core::auth::{ConnectingConfig, ListeningConfig, TokenKeys, TokenSecret};
use snocat_driver::core::open::Header;
use snocat_driver::core::route::RouteAddress;
use snocat_driver::core::sim::{LinkConfig, World, plain};
use snocat_driver::core::{
    ClosedBy, Code, Event, Limits, OpenError, ReadError, ReadStatus, Refusal, StreamId, TunnelError,
    WriteError,
};
use snocat_tests::{CLIENT, DELAY, Duo, SERVER, pattern};

const RTT: Duration = Duration::from_millis(40);

fn duo() -> Duo {
    let mut duo = Duo::new(Limits::default(), Limits::default());
    duo.establish();
    duo
}

fn header() -> Header {
    Header::forward("/tcp/80".parse().unwrap())
}

/// Opens a stream and lets the other side accept it.
fn running(duo: &mut Duo, opener: usize) -> StreamId {
    let now = duo.now;
    let stream = duo.tunnel(opener).open(now, &header()).unwrap();
    let event = duo.wait(1 - opener, |event| matches!(event, Event::OpenRequested { .. }));
    let Event::OpenRequested { stream: offered, .. } = event else { unreachable!() };
    assert_eq!(offered, stream);
    let now = duo.now;
    duo.tunnel(1 - opener).accept(now, stream).unwrap();
    duo.wait(opener, |event| matches!(event, Event::Accepted { stream: accepted } if *accepted == stream));
    stream
}

fn write(duo: &mut Duo, side: usize, stream: StreamId, bytes: &'static [u8]) -> Result<usize, WriteError> {
    let now = duo.now;
    duo.tunnel(side).write(now, stream, &mut Bytes::from_static(bytes))
}

fn read(duo: &mut Duo, side: usize, stream: StreamId) -> (Vec<u8>, Result<ReadStatus, ReadError>) {
    let now = duo.now;
    let mut out = VecDeque::new();
    let status = duo.tunnel(side).read(now, stream, usize::MAX, &mut out);
    (out.into_iter().flatten().collect(), status)
}

#[test]
fn authentication_and_a_binding_take_two_round_trips() {
    let mut duo = Duo::new(Limits::default(), Limits::default());
    duo.connect(false);
    let (now, web) = (duo.now, RouteAddress::tcp("web", 80).unwrap());
    let asked = duo.tunnel(CLIENT).request_binding(now, 8080, &web).unwrap();
    let answered = duo.run(Duration::from_secs(5), |duo, side, event| {
        let now = duo.now;
        match event {
            Event::AuthRequested { ticket, .. } => {
                duo.tunnel(side).admit(now, ticket, "x".parse().unwrap(), Default::default()).unwrap();
            }
            Event::BindingRequested { binding, port, address } => {
                assert_eq!((port, &address), (8080, &web));
                let bound = Ok(vec!["127.0.0.1:8080".parse().unwrap()]);
                duo.tunnel(side).answer_binding(now, binding, bound).unwrap();
            }
            Event::BindingAnswered { binding, result } => {
                assert_eq!((side, binding), (CLIENT, asked));
                assert_eq!(result.unwrap(), ["127.0.0.1:8080".parse().unwrap()]);
                return true;
            }
            _ => {}
        }
        false
    });
    assert!(answered);
    assert_eq!(duo.elapsed(), 2 * RTT);
}

#[test]
fn bytes_go_both_ways_and_each_direction_ends_on_its_own() {
    for opener in [CLIENT, SERVER] {
        let mut duo = duo();
        let stream = running(&mut duo, opener);
        let other = 1 - opener;
        assert_eq!(write(&mut duo, opener, stream, b"question"), Ok(8));
        let now = duo.now;
        duo.tunnel(opener).finish(now, stream);
        duo.wait(opener, |event| matches!(event, Event::Finished { .. }));
        assert_eq!(read(&mut duo, other, stream), (b"question".to_vec(), Ok(ReadStatus::Finished)));
        assert_eq!(write(&mut duo, opener, stream, b"more"), Err(WriteError::Closed));

        assert_eq!(write(&mut duo, other, stream, b"answer"), Ok(6));
        let now = duo.now;
        duo.tunnel(other).finish(now, stream);
        duo.wait(other, |event| matches!(event, Event::Finished { .. }));
        assert_eq!(read(&mut duo, opener, stream), (b"answer".to_vec(), Ok(ReadStatus::Finished)));
        for side in [SERVER, CLIENT] {
            assert_eq!(duo.tunnel(side).open_streams(), 0, "nothing is left of it");
            assert_eq!(read(&mut duo, side, stream).1, Err(ReadError::Closed));
        }
    }
}

/// Whoever knows that everything has arrived may end the tunnel, however late the other side reads.
#[test]
fn what_has_arrived_can_be_read_after_the_end() {
    for (writer, closer) in [(CLIENT, CLIENT), (CLIENT, SERVER), (SERVER, CLIENT), (SERVER, SERVER)] {
        let mut duo = duo();
        let reader = 1 - writer;
        let (whole, half) = (running(&mut duo, writer), running(&mut duo, reader));
        let text = pattern(0, 100_000);
        for stream in [whole, half] {
            let mut rest = text;
            while !rest.is_empty() {
                rest = &rest[write(&mut duo, writer, stream, rest).unwrap_or(0)..];
                duo.pass(RTT);
            }
        }
        let now = duo.now;
        duo.tunnel(writer).finish(now, whole);
        duo.wait(writer, |event| matches!(event, Event::Finished { .. }));
        let now = duo.now;
        duo.tunnel(closer).close(now, Refusal::new(Code::CLOSED, "done"));
        duo.wait(reader, |event| matches!(event, Event::Closed(_)));

        let mut out = VecDeque::new();
        let first = duo.tunnel(reader).read(now, whole, 1000, &mut out);
        assert_eq!((first, out.iter().map(Bytes::len).sum::<usize>()), (Ok(ReadStatus::More), 1000));
        assert_eq!(read(&mut duo, reader, whole), (text[1000..].to_vec(), Ok(ReadStatus::Finished)));
        assert_eq!(read(&mut duo, reader, half), (text.to_vec(), Ok(ReadStatus::More)));
        assert_eq!(duo.tunnel(reader).open_streams(), 1);
        for stream in [whole, half] {
            assert_eq!(read(&mut duo, reader, stream), (Vec::new(), Err(ReadError::Closed)));
            assert_eq!(write(&mut duo, reader, stream, b"x"), Err(WriteError::Closed));
        }
        assert_eq!(duo.tunnel(reader).open_streams(), 0, "nothing more of them is kept");
        duo.pass(Duration::from_secs(5));
        assert!(duo.nodes.iter().all(|node| node.is_empty()));
    }
}

/// Nobody is to take a part for the whole.
#[test]
fn after_the_end_nothing_is_read_from_beyond_a_gap() {
    let mut duo = duo();
    let stream = running(&mut duo, CLIENT);
    assert_eq!(write(&mut duo, CLIENT, stream, b"before"), Ok(6));
    duo.pass(RTT);
    // One datagram is lost, and what comes behind it is not.
    duo.passes[CLIENT] = 0;
    assert_eq!(write(&mut duo, CLIENT, stream, b"lost"), Ok(4));
    duo.pass(Duration::from_millis(1));
    duo.passes[CLIENT] = usize::MAX;
    assert_eq!(write(&mut duo, CLIENT, stream, b"beyond"), Ok(6));
    duo.pass(DELAY);
    let now = duo.now;
    duo.tunnel(SERVER).close(now, Refusal::new(Code::CLOSED, "done"));
    assert_eq!(read(&mut duo, SERVER, stream), (b"before".to_vec(), Ok(ReadStatus::More)));
    assert_eq!(read(&mut duo, SERVER, stream), (Vec::new(), Err(ReadError::Closed)));
}

#[test]
fn streams_that_were_stopped_or_refused_are_not_kept_after_the_end() {
    let mut duo = duo();
    let (stopped, unread) = (running(&mut duo, CLIENT), running(&mut duo, CLIENT));
    let now = duo.now;
    let offered = duo.tunnel(CLIENT).open(now, &header()).unwrap();
    for stream in [stopped, unread, offered] {
        assert_eq!(write(&mut duo, CLIENT, stream, b"bytes"), Ok(5));
    }
    duo.pass(RTT);
    let now = duo.now;
    let tunnel = duo.tunnel(SERVER);
    tunnel.close(now, Refusal::new(Code::CLOSED, "done"));
    tunnel.stop(now, stopped, Code::CANCELLED);
    assert_eq!(tunnel.open_streams(), 1);
    for stream in [stopped, offered] {
        assert_eq!(read(&mut duo, SERVER, stream), (Vec::new(), Err(ReadError::Closed)));
    }
    assert_eq!(read(&mut duo, SERVER, unread).0, b"bytes");
}

#[test]
fn payload_travels_with_the_header_and_waits_for_the_decision() {
    let mut duo = duo();
    let begin = duo.now;
    let stream = duo.tunnel(CLIENT).open(begin, &header()).unwrap();
    assert_eq!(write(&mut duo, CLIENT, stream, b"GET /"), Ok(5));
    duo.tunnel(CLIENT).finish(begin, stream);
    duo.wait(SERVER, |event| matches!(event, Event::OpenRequested { .. }));
    assert_eq!(duo.now - begin, DELAY, "neither waits for anything");
    assert_eq!(read(&mut duo, SERVER, stream).1, Err(ReadError::Closed), "nothing before the decision");
    let now = duo.now;
    duo.tunnel(SERVER).accept(now, stream).unwrap();
    duo.wait(SERVER, |event| matches!(event, Event::Readable { .. }));
    assert_eq!(duo.now, now, "all of it has been here");
    assert_eq!(read(&mut duo, SERVER, stream), (b"GET /".to_vec(), Ok(ReadStatus::Finished)));
}

#[test]
fn streams_that_are_opened_ahead_of_the_outcome_are_offered_after_it() {
    let mut duo = Duo::new(Limits::default(), Limits::default());
    duo.connect(true);
    let now = duo.now;
    assert_eq!(duo.tunnel(CLIENT).open(now, &header()), Err(OpenError::NotEstablished));
    duo.wait(CLIENT, |event| matches!(event, Event::Connected));
    let now = duo.now;
    duo.tunnel(CLIENT).authenticate(now);
    let stream = duo.tunnel(CLIENT).open(now, &header()).unwrap();
    let mut left = Bytes::from_static(pattern(0, 20_000));
    let early = duo.tunnel(CLIENT).write(now, stream, &mut left).unwrap();
    assert!(early <= Limits::default().early_bytes_outside as usize, "{early} bytes are too much");
    assert_eq!(duo.tunnel(CLIENT).write(now, stream, &mut left), Err(WriteError::Blocked));
    duo.pass(Duration::from_secs(1));
    assert!(!duo.had(SERVER, |event| matches!(event, Event::OpenRequested { .. })), "nobody was let in yet");
    duo.admit();
    duo.wait(CLIENT, |event| matches!(event, Event::Writable { .. }));
    let now = duo.now;
    duo.tunnel(CLIENT).write(now, stream, &mut left).unwrap();
    assert!(left.is_empty());
    duo.tunnel(CLIENT).finish(now, stream);
    duo.wait(SERVER, |event| matches!(event, Event::OpenRequested { .. }));
    let now = duo.now;
    duo.tunnel(SERVER).accept(now, stream).unwrap();
    duo.wait(CLIENT, |event| matches!(event, Event::Finished { .. }));
    let (bytes, status) = read(&mut duo, SERVER, stream);
    assert!(bytes == pattern(0, 20_000) && status == Ok(ReadStatus::Finished));
}

#[test]
fn a_refusal_says_why_and_leaves_nothing_behind() {
    let mut duo = duo();
    let begin = duo.now;
    let stream = duo.tunnel(CLIENT).open(begin, &header()).unwrap();
    write(&mut duo, CLIENT, stream, pattern(0, 10_000)).unwrap();
    duo.wait(SERVER, |event| matches!(event, Event::OpenRequested { .. }));
    let (now, refusal) = (duo.now, Refusal::new(Code::TARGET_REFUSED, "nobody is at home"));
    duo.tunnel(SERVER).refuse(now, stream, refusal.clone()).unwrap();
    let event = duo.wait(CLIENT, |event| matches!(event, Event::Refused { .. }));
    assert!(matches!(event, Event::Refused { refusal: said, .. } if said == refusal));
    assert_eq!(duo.now - begin, RTT);
    assert_eq!(write(&mut duo, CLIENT, stream, b"more"), Err(WriteError::Closed));
    duo.pass(Duration::from_secs(1));
    for side in [SERVER, CLIENT] {
        assert_eq!(duo.tunnel(side).open_streams(), 0);
        assert!(!duo.had(side, |event| matches!(event, Event::Readable { .. } | Event::Stopped { .. })));
    }
}

#[test]
fn an_offer_that_is_taken_back_is_cancelled() {
    let mut duo = duo();
    let now = duo.now;
    let stream = duo.tunnel(CLIENT).open(now, &header()).unwrap();
    duo.wait(SERVER, |event| matches!(event, Event::OpenRequested { .. }));
    let now = duo.now;
    duo.tunnel(CLIENT).reset(now, stream, Code::RESET);
    duo.tunnel(CLIENT).stop(now, stream, Code::RESET);
    duo.wait(SERVER, |event| matches!(event, Event::OpenCancelled { .. }));
    let now = duo.now;
    assert_eq!(duo.tunnel(SERVER).accept(now, stream), Err(TunnelError::StaleOffer));
    assert_eq!([SERVER, CLIENT].map(|side| duo.tunnel(side).open_streams()), [0, 0]);
}

#[test]
fn a_reset_carries_its_code_and_comes_once() {
    let mut duo = duo();
    let stream = running(&mut duo, CLIENT);
    let now = duo.now;
    duo.tunnel(CLIENT).reset(now, stream, Code::RESET);
    duo.tunnel(CLIENT).stop(now, stream, Code::BUSY);
    let event = duo.wait(SERVER, |event| matches!(event, Event::Stopped { .. }));
    assert!(matches!(event, Event::Stopped { code: Code::BUSY, .. }), "{event:?}");
    let event = duo.wait(SERVER, |event| matches!(event, Event::Reset { .. }));
    assert!(matches!(event, Event::Reset { code: Code::RESET, .. }), "{event:?}");
    assert_eq!(read(&mut duo, SERVER, stream).1, Err(ReadError::Closed));
    let now = duo.now;
    duo.tunnel(SERVER).reset(now, stream, Code::BUSY);
    assert_eq!([SERVER, CLIENT].map(|side| duo.tunnel(side).open_streams()), [0, 0]);
}

/// The header takes two datagrams, and the second never comes.
#[test]
fn a_header_has_five_seconds() {
    let mut duo = duo();
    let now = duo.now;
    let address = RouteAddress::new(["x".repeat(2000)]).unwrap();
    duo.passes[CLIENT] = 1;
    duo.tunnel(CLIENT).open(now, &Header::forward(address)).unwrap();
    let event = duo.wait(CLIENT, |event| matches!(event, Event::Refused { .. }));
    let Event::Refused { refusal, .. } = event else { unreachable!() };
    assert_eq!(refusal.code, Code::TIMEOUT);
    assert_eq!(duo.now - now, Duration::from_secs(5) + RTT);
    assert!(
        !duo.had(SERVER, |event| matches!(event, Event::OpenRequested { .. } | Event::OpenCancelled { .. }))
    );
    assert_eq!(duo.tunnel(SERVER).open_streams(), 0);
}

#[test]
fn a_decision_has_ten_seconds() {
    let mut duo = duo();
    let now = duo.now;
    let stream = duo.tunnel(CLIENT).open(now, &header()).unwrap();
    duo.wait(SERVER, |event| matches!(event, Event::OpenCancelled { .. }));
    assert_eq!(duo.now - now, Duration::from_secs(10) + DELAY);
    let late = duo.now;
    assert_eq!(duo.tunnel(SERVER).accept(late, stream), Err(TunnelError::StaleOffer));
    let event = duo.wait(CLIENT, |event| matches!(event, Event::Refused { .. }));
    assert!(matches!(event, Event::Refused { refusal, .. } if refusal.code == Code::TARGET_TIMEOUT));
    assert_eq!(duo.now - now, Duration::from_secs(10) + RTT);
    assert!(duo.tunnel(CLIENT).is_established() && duo.tunnel(SERVER).is_established());
}

/// The acceptor's answer is lost for good; the opener does not wait for ever.
#[test]
fn an_answer_has_twenty_seconds() {
    let mut duo = duo();
    let now = duo.now;
    duo.passes[SERVER] = 0;
    duo.tunnel(CLIENT).open(now, &header()).unwrap();
    let event = duo.wait(CLIENT, |event| matches!(event, Event::Refused { .. }));
    assert!(matches!(event, Event::Refused { refusal, .. } if refusal.code == Code::TIMEOUT));
    assert_eq!(duo.now - now, Duration::from_secs(20));
}

#[test]
fn a_client_that_does_not_authenticate_is_gone_after_ten_seconds() {
    let patient = Limits { authentication_time: Duration::from_secs(60), ..Limits::default() };
    let mut duo = Duo::new(Limits::default(), patient);
    duo.connect(true);
    let closed = |event: &Event| matches!(event, Event::Closed(_));
    let Event::Closed(reason) = duo.wait(SERVER, closed) else { unreachable!() };
    assert_eq!((reason.by, reason.code), (ClosedBy::Local, Code::TIMEOUT));
    assert_eq!(duo.elapsed(), Duration::from_secs(10) + DELAY);
    let Event::Closed(reason) = duo.wait(CLIENT, closed) else { unreachable!() };
    assert_eq!((reason.by, reason.code), (ClosedBy::Peer, Code::TIMEOUT));
    assert_eq!(duo.nodes[SERVER].endpoint().admission().strangers, 1, "until it has drained");
    duo.pass(Duration::from_secs(5));
    assert_eq!(duo.nodes[SERVER].endpoint().admission().strangers, 0);
    assert!(duo.nodes[SERVER].is_empty() && duo.nodes[CLIENT].is_empty());
}

#[test]
fn a_decision_over_a_peer_that_comes_too_late_is_an_error() {
    let mut duo = Duo::new(Limits::default(), Limits::default());
    duo.connect(false);
    let event = duo.wait(SERVER, |event| matches!(event, Event::AuthRequested { .. }));
    let Event::AuthRequested { ticket, .. } = event else { unreachable!() };
    duo.wait(SERVER, |event| matches!(event, Event::Closed(_)));
    let now = duo.now;
    let late = duo.tunnel(SERVER).admit(now, ticket, "x".parse().unwrap(), Default::default());
    assert_eq!(late, Err(TunnelError::StaleTicket));
}

#[test]
fn ids_that_are_stale_are_caught() {
    let mut duo = duo();
    let (now, address) = (duo.now, RouteAddress::tcp("web", 80).unwrap());
    let stream = running(&mut duo, CLIENT);
    assert_eq!(duo.tunnel(SERVER).accept(now, stream), Err(TunnelError::StaleOffer), "decided already");
    let refusal = Refusal::new(Code::BUSY, "");
    assert_eq!(duo.tunnel(SERVER).refuse(now, stream, refusal.clone()), Err(TunnelError::StaleOffer));
    assert_eq!(duo.tunnel(CLIENT).accept(now, stream), Err(TunnelError::StaleOffer), "its own");

    duo.tunnel(CLIENT).request_binding(now, 0, &address).unwrap();
    let event = duo.wait(SERVER, |event| matches!(event, Event::BindingRequested { .. }));
    let Event::BindingRequested { binding, .. } = event else { unreachable!() };
    let now = duo.now;
    assert_eq!(duo.tunnel(SERVER).answer_binding(now, binding, Err(refusal.clone())), Ok(()));
    let again = duo.tunnel(SERVER).answer_binding(now, binding, Err(refusal));
    assert_eq!(again, Err(TunnelError::StaleBinding));

    let old = duo.ids[CLIENT].unwrap();
    duo.tunnel(CLIENT).close(now, Refusal::new(Code::CLOSED, "done"));
    assert_eq!(duo.tunnel(CLIENT).open(now, &header()), Err(OpenError::Closed));
    assert_eq!(duo.tunnel(CLIENT).request_binding(now, 0, &address), Err(TunnelError::Closed));
    assert_eq!(write(&mut duo, CLIENT, stream, b"x"), Err(WriteError::Closed));
    duo.pass(Duration::from_secs(5));
    duo.establish();
    let new = duo.ids[CLIENT].unwrap();
    assert_eq!(new.slot(), old.slot(), "the place is used again");
    assert!(new != old && duo.nodes[CLIENT].tunnel(old).is_none());
}

#[test]
fn a_node_is_due_while_something_waits_and_not_before_its_time_otherwise() {
    let mut duo = duo();
    assert!(duo.nodes[SERVER].poll_timeout().is_some());
    duo.pass(Duration::from_secs(3));
    for side in [SERVER, CLIENT] {
        let due = duo.nodes[side].poll_timeout().unwrap();
        assert!(due > duo.now, "idle, and due in the future");
        assert!(due <= duo.now + Limits::default().idle);
    }
    let now = duo.now;
    duo.tunnel(CLIENT).open(now, &header()).unwrap();
    assert!(duo.nodes[CLIENT].poll_timeout().unwrap() <= now, "something is to be sent");
    assert!(duo.nodes[CLIENT].poll().is_none());
    assert!(duo.nodes[CLIENT].poll_timeout().unwrap() <= now, "still");
    let mut buffer = Vec::new();
    assert!(duo.nodes[CLIENT].poll_transmit(now, 1, &mut buffer).is_some());
    while duo.nodes[CLIENT].poll_transmit(now, 1, &mut buffer).is_some() {}
    assert!(duo.nodes[CLIENT].poll_timeout().unwrap() > now);
}

#[test]
fn a_node_without_tunnels_has_no_deadline() {
    let duo = Duo::new(Limits::default(), Limits::default());
    assert_eq!(duo.nodes.each_ref().map(|node| node.poll_timeout()), [None, None]);
}

#[test]
fn time_that_goes_backwards_stands_still() {
    let mut duo = duo();
    let stream = running(&mut duo, CLIENT);
    let early = duo.now - Duration::from_millis(1);
    for side in [SERVER, CLIENT] {
        duo.nodes[side].handle_timeout(early);
    }
    assert_eq!(duo.tunnel(CLIENT).write(early, stream, &mut Bytes::from_static(b"x")), Ok(1));
    duo.pass(RTT);
    assert_eq!(read(&mut duo, SERVER, stream).0, b"x");
}

/// An idle tunnel stays, for as long as its network does; a silent one goes.
#[test]
fn keep_alives_hold_a_tunnel_and_silence_ends_it() {
    let mut duo = duo();
    duo.pass(Duration::from_secs(200));
    assert!(duo.tunnel(SERVER).is_established() && duo.tunnel(CLIENT).is_established());
    duo.passes = [0, 0];
    let cut = duo.now;
    for side in [SERVER, CLIENT] {
        let event = duo.wait(side, |event| matches!(event, Event::Closed(_)));
        let Event::Closed(reason) = event else { unreachable!() };
        assert_eq!((reason.by, reason.code), (ClosedBy::Idle, Code::TIMEOUT));
    }
    let took = duo.now - cut;
    assert!(
        took < Limits::default().idle + Limits::default().keep_alive + Duration::from_secs(1),
        "{took:?}"
    );
    duo.pass(Duration::from_secs(1));
    assert!(duo.nodes[SERVER].is_empty() && duo.nodes[CLIENT].is_empty());
}

#[test]
fn whoever_ends_a_tunnel_in_the_middle_of_a_transfer_tells_the_peer_at_once() {
    for side in [SERVER, CLIENT] {
        let mut duo = duo();
        let stream = running(&mut duo, CLIENT);
        let mut offset = 0;
        // Both directions as fast as the network takes it: the congestion window is always full.
        let end = duo.now + Duration::from_millis(170);
        while duo.now < end {
            for writer in [SERVER, CLIENT] {
                while let Ok(written) = write(&mut duo, writer, stream, pattern(offset, 60_000)) {
                    offset += written as u64;
                }
                let _both_go_on = read(&mut duo, writer, stream);
            }
            duo.pass(Duration::from_millis(3));
        }
        while write(&mut duo, side, stream, pattern(0, 60_000)).is_ok() {}
        duo.pass(Duration::ZERO);
        let now = duo.now;
        duo.tunnel(side).close(now, Refusal::new(Code::STOPPING, "that was all"));
        let event = duo.wait(1 - side, |event| matches!(event, Event::Closed(_)));
        let Event::Closed(reason) = event else { unreachable!() };
        assert_eq!((reason.by, reason.code), (ClosedBy::Peer, Code::STOPPING));
        assert_eq!(reason.text, "that was all");
        assert_eq!(duo.now - now, DELAY);
        duo.pass(Duration::from_secs(5));
        assert!(duo.nodes[SERVER].is_empty() && duo.nodes[CLIENT].is_empty(), "nothing is left over");
    }
}

/// Streams of the client that are written to as far as they take it, and that the server reads only on demand.
struct Load {
    /// How far each was written, and how far it is to be.
    written: BTreeMap<StreamId, (u64, u64)>,
    /// How far each was read.
    read: BTreeMap<StreamId, u64>,
    /// Which of them the server reads.
    reading: BTreeMap<StreamId, bool>,
    finished: Vec<StreamId>,
    /// Ended by the server, because nobody read them.
    stalled: Vec<StreamId>,
    /// What the client has heard of that.
    reset: Vec<(StreamId, Code)>,
}

impl Load {
    fn new() -> Self {
        Self {
            written: BTreeMap::new(),
            read: BTreeMap::new(),
            reading: BTreeMap::new(),
            finished: Vec::new(),
            stalled: Vec::new(),
            reset: Vec::new(),
        }
    }

    fn add(&mut self, duo: &mut Duo, length: u64, reading: bool) -> StreamId {
        let stream = running(duo, CLIENT);
        self.written.insert(stream, (0, length));
        self.reading.insert(stream, reading);
        self.write(duo, stream);
        stream
    }

    fn write(&mut self, duo: &mut Duo, stream: StreamId) {
        let Some((offset, length)) = self.written.get_mut(&stream) else { return };
        while *offset < *length {
            let piece = (*length - *offset).min(60_000) as usize;
            match write(duo, CLIENT, stream, pattern(*offset, piece)) {
                Ok(written) => *offset += written as u64,
                Err(WriteError::Blocked) => return,
                Err(error) => {
                    assert!(self.stalled.contains(&stream), "{error}");
                    self.written.remove(&stream);
                    return;
                }
            }
        }
        self.written.remove(&stream);
        let now = duo.now;
        duo.tunnel(CLIENT).finish(now, stream);
    }

    fn read(&mut self, duo: &mut Duo, stream: StreamId) {
        let offset = self.read.entry(stream).or_default();
        let mut out = VecDeque::new();
        let now = duo.now;
        let status = duo.tunnel(SERVER).read(now, stream, usize::MAX, &mut out).unwrap();
        for piece in out.iter().flat_map(|chunk| chunk.chunks(60_000)) {
            assert!(piece == pattern(*offset, piece.len()), "bytes from {offset}");
            *offset += piece.len() as u64;
        }
        if status == ReadStatus::Finished {
            self.finished.push(stream);
        }
    }

    /// Runs until `enough`, at most for `time`. Returns whether it was reached.
    fn run(&mut self, duo: &mut Duo, time: Duration, enough: impl Fn(&Self) -> bool) -> bool {
        duo.run(time, |duo, side, event| {
            match event {
                Event::Writable { stream } if side == CLIENT => self.write(duo, stream),
                Event::Readable { stream } if side == SERVER && self.reading[&stream] => {
                    self.read(duo, stream);
                }
                Event::Stalled { stream } => self.stalled.push(stream),
                Event::Reset { stream, code } if side == CLIENT => self.reset.push((stream, code)),
                Event::Closed(reason) => panic!("{reason}"),
                _ => {}
            }
            enough(self)
        })
    }

    fn read_all(&mut self, duo: &mut Duo) {
        for (stream, reading) in &mut self.reading {
            *reading = !self.stalled.contains(stream);
        }
        let streams: Vec<_> =
            self.reading.iter().filter(|(_, reading)| **reading).map(|(stream, _)| *stream).collect();
        for stream in &streams {
            if !self.finished.contains(stream) {
                self.read(duo, *stream);
            }
        }
    }
}

#[test]
fn forty_streams_that_nobody_reads_do_not_block_another_one() {
    const MIB: u64 = 1024 * 1024;
    let mut duo = duo();
    let mut load = Load::new();
    for _ in 0..40 {
        load.add(&mut duo, 5 * MIB, false);
    }
    load.run(&mut duo, Duration::from_secs(10), |_| false);
    let window = u64::from(Limits::default().stream_window);
    assert!(load.written.values().all(|(offset, _)| *offset >= window - 100), "{:?}", load.written);
    let begin = duo.now;
    let fresh = load.add(&mut duo, 8 * MIB, true);
    assert!(load.run(&mut duo, Duration::from_secs(10), |load| load.finished.contains(&fresh)));
    assert!(duo.now - begin < Duration::from_secs(2), "{:?}", duo.now - begin);
    assert_eq!(load.stalled, []);

    load.read_all(&mut duo);
    assert!(load.run(&mut duo, Duration::from_secs(60), |load| load.finished.len() == 41));
    assert!(
        load.read.iter().all(|(stream, bytes)| *bytes == if *stream == fresh { 8 * MIB } else { 5 * MIB })
    );
}

#[test]
fn any_number_of_streams_may_have_a_few_bytes_that_nobody_reads() {
    let mut duo = duo();
    let mut load = Load::new();
    for _ in 0..300 {
        load.add(&mut duo, 1000, false);
    }
    load.run(&mut duo, Duration::from_secs(100), |_| false);
    assert_eq!(load.stalled, []);
    load.read_all(&mut duo);
    assert!(
        load.run(&mut duo, Duration::from_secs(10), |load| load.finished.len() == 300)
            || load.finished.len() == 300
    );
}

/// Offers nobody has decided over yet, for instance because a target is slow to answer.
#[test]
fn any_number_of_offers_may_wait_for_a_decision() {
    let mut duo = duo();
    let streams: Vec<_> = (0..300)
        .map(|_| {
            let now = duo.now;
            let stream = loop {
                match duo.tunnel(CLIENT).open(now, &header()) {
                    Ok(stream) => break stream,
                    Err(OpenError::LimitReached) => {
                        drop(duo.wait(CLIENT, |event| matches!(event, Event::StreamsAvailable)));
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            write(&mut duo, CLIENT, stream, pattern(0, 100)).unwrap();
            stream
        })
        .collect();
    duo.pass(Duration::from_secs(9));
    assert!(!duo.had(SERVER, |event| matches!(event, Event::OpenCancelled { .. } | Event::Stalled { .. })));
    for stream in streams {
        let now = duo.now;
        duo.tunnel(SERVER).accept(now, stream).unwrap();
        assert_eq!(read(&mut duo, SERVER, stream).0, pattern(0, 100));
    }
}

/// Memory has a bound, and within it the tunnel goes on: those that have stalled longest pay for it.
#[test]
fn beyond_the_bound_those_that_have_stalled_longest_are_reset() {
    const KIB: u32 = 1024;
    let small = Limits {
        stream_window: 64 * KIB,
        connection_window: 256 * KIB,
        stalled_bytes: u64::from(1024 * KIB),
        ..Limits::default()
    };
    let mut duo = Duo::new(small.clone(), small);
    duo.establish();
    let mut load = Load::new();
    let mut streams = Vec::new();
    for _ in 0..40 {
        streams.push(load.add(&mut duo, 100 * 1024, false));
        load.run(&mut duo, Duration::from_secs(3), |_| false);
    }
    assert!(!load.stalled.is_empty(), "2.5 MiB do not fit into 1.25");
    assert_eq!(load.stalled, streams[..load.stalled.len()], "the longest first");
    assert!(load.stalled.len() < 26, "and no more than needed: {}", load.stalled.len());
    let fresh = load.add(&mut duo, 500_000, true);
    assert!(
        load.run(&mut duo, Duration::from_secs(20), |load| load.finished.contains(&fresh)),
        "the tunnel goes on"
    );
    let told: Vec<_> = load.stalled.iter().map(|stream| (*stream, Code::STALLED)).collect();
    assert_eq!(load.reset, told, "the peer learns of it");
    load.read_all(&mut duo);
    let left = 41 - load.stalled.len();
    assert!(load.run(&mut duo, Duration::from_secs(60), |load| load.finished.len() == left));
}

/// quinn-proto ends a connection when it keeps too many pieces of one stream: gaps make them, and it does not merge all
/// that could be merged. As long as no more than 2,048 full frames fit into a stream's window it does not come to that, even
/// when every second datagram is lost.
#[test]
fn no_burst_of_loss_ends_a_tunnel() {
    for datagrams in [1200, 1452] {
        lose_every_second(datagrams);
    }
}

fn lose_every_second(datagrams: u16) {
    const MIB: u32 = 1024 * 1024;
    let mut duo = Duo::on_interface(Limits::default(), Limits::default(), Some(datagrams));
    duo.establish();
    let mut load = Load::new();
    // Until the congestion window is as large as can be.
    for _ in 0..8 {
        load.add(&mut duo, 16 * u64::from(MIB), true);
    }
    assert!(load.run(&mut duo, Duration::from_secs(60), |load| load.finished.len() == 8));
    duo.lossy = 4000;
    load.add(&mut duo, 16 * u64::from(MIB), true);
    assert!(load.run(&mut duo, Duration::from_secs(60), |load| load.finished.len() == 9));
    assert!(duo.tunnel(SERVER).is_established() && duo.tunnel(CLIENT).is_established());
    assert_eq!(duo.lossy, 0, "all of the loss has happened");
}

/// How long a connection drains follows from its round trip, and a stranger makes that as long as it likes.
#[test]
fn a_stranger_that_was_turned_away_gives_its_place_back_within_a_second() {
    let mut world = World::new(Instant::now(), 1);
    let accepts = ListeningConfig::only(TokenKeys::default());
    let server = world.add(plain::listening(1, accepts, &world.clock()));
    let client = world.add(plain::connecting(2));
    world.link(client, server, &LinkConfig::delay(Duration::from_millis(1500)));
    let secret = TokenSecret::new(*b"a secret that the server lacks").unwrap();
    let offers = ConnectingConfig::only(secret);
    world.connect(client, server, &plain::connect(offers), plain::NAME).unwrap().unwrap();
    let turned_away = world
        .run(Duration::from_secs(20), |_, host, _, event| host == server && matches!(event, Event::Closed(_)))
        .unwrap();
    assert!(turned_away);
    assert_eq!(world.node(server).unwrap().endpoint().admission().strangers, 1);
    let limit = world.elapsed() + Limits::default().farewell_time + Duration::from_millis(1);
    let _until_then = world.run(limit, |_, _, _, _| false).unwrap();
    assert_eq!(world.node(server).unwrap().endpoint().admission().strangers, 0);
    assert!(world.node(server).unwrap().is_empty());
    let told = world
        .run(Duration::from_secs(20), |_, host, _, event| {
            host == client && matches!(&event, Event::Closed(reason) if reason.code == Code::AUTH_REFUSED)
        })
        .unwrap();
    assert!(told, "the client learns why");
}

#[test]
fn busy_streams_take_turns() {
    const STREAMS: usize = 16;
    static PIECE: [u8; 16 * 1024] = [7; 16 * 1024];
    let window = 4 * PIECE.len() as u32;
    let limits = Limits { connection_window: window, stream_window: window, ..Limits::default() };
    let mut duo = Duo::new(limits.clone(), limits);
    duo.establish();
    let mut got: BTreeMap<StreamId, usize> = (0..STREAMS).map(|_| (running(&mut duo, SERVER), 0)).collect();
    // Each takes whatever it gets.
    let fill = |duo: &mut Duo, stream| while write(duo, SERVER, stream, &PIECE).is_ok() {};
    for stream in got.keys() {
        fill(&mut duo, *stream);
    }
    duo.run(Duration::from_secs(10), |duo, _, event| {
        match event {
            Event::Writable { stream } => fill(duo, stream),
            Event::Readable { stream } => *got.get_mut(&stream).unwrap() += read(duo, CLIENT, stream).0.len(),
            _ => {}
        }
        false
    });
    let (least, most) = (got.values().min().unwrap(), got.values().max().unwrap());
    assert!(*least > 100 * PIECE.len() / STREAMS, "{got:?}");
    assert!(most * 3 <= least * 4, "{got:?}");
}

#[test]
fn beyond_a_gap_a_stream_is_read_up_to_a_bound() {
    const KIB: usize = 1024;
    static PIECE: [u8; 16 * KIB] = [7; 16 * KIB];
    let limits = Limits { stream_window: 64 * KIB as u32, gap_bytes: 8 * KIB as u32, ..Limits::default() };
    let mut duo = Duo::new(limits.clone(), limits);
    duo.establish();
    let stream = running(&mut duo, SERVER);
    let (mut written, mut got, mut worst) = (0, 0, 0);
    let mut busy = |duo: &mut Duo, time| {
        let fill = |duo: &mut Duo, written: &mut usize| {
            while let Ok(bytes) = write(duo, SERVER, stream, &PIECE) {
                *written += bytes;
            }
        };
        fill(duo, &mut written);
        duo.run(time, |duo, _, event| {
            match event {
                Event::Writable { .. } => fill(duo, &mut written),
                Event::Readable { .. } => got += read(duo, CLIENT, stream).0.len(),
                _ => {}
            }
            worst = worst.max(written - got);
            false
        });
        std::mem::take(&mut worst)
    };
    assert_eq!(busy(&mut duo, Duration::from_secs(4)), 64 * KIB, "nothing is missing, and the path is known");
    duo.passes[SERVER] = 1;
    busy(&mut duo, RTT / 4);
    duo.passes[SERVER] = usize::MAX;
    let beyond = busy(&mut duo, 20 * RTT) - 64 * KIB;
    assert!((6 * KIB..=10 * KIB).contains(&beyond), "{beyond}");
}
