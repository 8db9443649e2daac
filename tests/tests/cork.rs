//! Streams that nobody reads while their peers write in short pieces: neither the tunnel nor a byte is lost by it, and nothing
//! is held back for longer than it must be.

use std::collections::VecDeque;
use std::time::Duration;

use snocat_driver::Bytes;
use snocat_driver::core::open::Header;
use snocat_driver::core::{Code, Event, Limits, ReadStatus, StreamId, WriteError};
use snocat_tests::{CLIENT, DELAY, Duo, SERVER, pattern};

/// All that was written is there by then.
const LIMIT: Duration = Duration::from_secs(60);

/// What a stream takes at least before its window is full, without its header.
const FULL: u64 = 2 * 1024 * 1024 - 100;

/// The longest datagrams of the paths that these tests are about, in bytes.
const DATAGRAMS: [u16; 4] = [1200, 1452, 4200, 8972];

fn duo(datagrams: u16) -> Duo {
    let mut duo = Duo::on_interface(Limits::default(), Limits::default(), Some(datagrams));
    duo.establish();
    duo
}

/// A stream that the server has opened and the client has accepted.
fn running(duo: &mut Duo) -> StreamId {
    let now = duo.now;
    let header = Header::forward("/tcp/80".parse().unwrap());
    let stream = duo.tunnel(SERVER).open(now, &header).unwrap();
    duo.wait(CLIENT, |event| matches!(event, Event::OpenRequested { .. }));
    let now = duo.now;
    duo.tunnel(CLIENT).accept(now, stream).unwrap();
    duo.wait(SERVER, |event| matches!(event, Event::Accepted { stream: accepted } if *accepted == stream));
    stream
}

/// Lets time pass, in which no tunnel ends.
fn pass(duo: &mut Duo, time: Duration) {
    duo.run(time, |_, side, event| {
        assert!(!matches!(event, Event::Closed(_)), "side {side}: {event:?}");
        false
    });
}

/// One end of a stream that carries a pattern, written by the server.
struct Flow {
    stream: StreamId,
    written: u64,
    read: u64,
}

impl Flow {
    fn new(duo: &mut Duo) -> Self {
        Self { stream: running(duo), written: 0, read: 0 }
    }

    /// Writes a piece. Returns whether all of it was taken.
    fn write(&mut self, duo: &mut Duo, length: usize) -> bool {
        let mut data = Bytes::from_static(pattern(self.written, length));
        while !data.is_empty() {
            let now = duo.now;
            match duo.tunnel(SERVER).write(now, self.stream, &mut data) {
                Ok(bytes) => self.written += bytes as u64,
                Err(WriteError::Blocked) => return false,
                Err(error) => panic!("{error}"),
            }
        }
        true
    }

    /// Reads what is there, and compares it.
    fn read(&mut self, duo: &mut Duo) -> ReadStatus {
        let (now, mut chunks) = (duo.now, VecDeque::new());
        let status = duo.tunnel(CLIENT).read(now, self.stream, usize::MAX, &mut chunks).unwrap();
        for bytes in chunks.iter().flat_map(|chunk| chunk.chunks(16 * 1024)) {
            assert!(bytes == pattern(self.read, bytes.len()), "at {}", self.read);
            self.read += bytes.len() as u64;
        }
        status
    }

    /// Writes with this rhythm, a piece each millisecond, until the peer takes no more.
    fn fill(&mut self, duo: &mut Duo, rhythm: &[usize]) {
        for length in rhythm.iter().cycle() {
            if !self.write(duo, *length) {
                return;
            }
            pass(duo, Duration::from_millis(1));
        }
    }

    /// Takes all to its end.
    fn end(mut self, duo: &mut Duo) {
        let now = duo.now;
        duo.tunnel(SERVER).finish(now, self.stream);
        while self.read(duo) != ReadStatus::Finished {
            assert!(duo.now < now + LIMIT, "only {} of {} bytes are here", self.read, self.written);
            pass(duo, DELAY);
        }
        assert_eq!(self.read, self.written);
    }
}

#[test]
fn no_rhythm_of_writes_that_nobody_reads_ends_the_tunnel() {
    for datagrams in DATAGRAMS {
        let long = usize::from(datagrams) - 100;
        for rhythm in [&[long, 1, 1][..], &[long, 1], &[long, long + 110, 1], &[200, 20, 20]] {
            let mut duo = duo(datagrams);
            let mut flow = Flow::new(&mut duo);
            flow.fill(&mut duo, rhythm);
            assert!(flow.written >= FULL, "the window is full");
            flow.end(&mut duo);
        }
    }
}

#[test]
fn its_neighbours_go_on_meanwhile() {
    let mut duo = duo(1452);
    let mut neighbour = Flow::new(&mut duo);
    let mut unread = Flow::new(&mut duo);
    for round in 0..6000 {
        unread.write(&mut duo, [1100, 1, 1][round % 3]);
        let taken = neighbour.write(&mut duo, [1, 700, 3, 1][round % 4]);
        assert!(taken, "round {round}");
        pass(&mut duo, Duration::from_millis(1));
        neighbour.read(&mut duo);
    }
    assert!(unread.written >= FULL, "the window is full");
    pass(&mut duo, DELAY);
    neighbour.read(&mut duo);
    assert_eq!(neighbour.read, neighbour.written, "what is read is not held back");
    neighbour.end(&mut duo);
    unread.end(&mut duo);
}

/// Writes single bytes until some of them are held back.
fn corked(duo: &mut Duo) -> Flow {
    let mut flow = Flow::new(duo);
    let frames = Limits::default().cork_frames as usize;
    for _ in 0..frames + 100 {
        assert!(flow.write(duo, 1));
        pass(duo, Duration::from_millis(1));
    }
    pass(duo, DELAY * 4);
    flow
}

#[test]
fn what_is_held_back_comes_one_round_trip_after_the_rest_was_read() {
    let mut duo = duo(1452);
    let mut flow = corked(&mut duo);
    flow.read(&mut duo);
    assert!(flow.read >= Limits::default().cork_frames.into());
    assert!(flow.read < flow.written, "nothing was held back");
    pass(&mut duo, DELAY * 2);
    flow.read(&mut duo);
    assert_eq!(flow.read, flow.written);

    assert!(flow.write(&mut duo, 1));
    pass(&mut duo, DELAY);
    flow.read(&mut duo);
    assert_eq!(flow.read, flow.written, "the cork is off");
}

#[test]
fn the_end_takes_what_is_held_back_along() {
    let mut duo = duo(1452);
    let mut flow = corked(&mut duo);
    let now = duo.now;
    duo.tunnel(SERVER).finish(now, flow.stream);
    let mut late = Bytes::from_static(b"late");
    assert_eq!(duo.tunnel(SERVER).write(now, flow.stream, &mut late), Err(WriteError::Closed));
    pass(&mut duo, DELAY);
    assert_eq!(flow.read(&mut duo), ReadStatus::Finished, "nobody had to read for it");
    assert_eq!(flow.read, flow.written);
}

#[test]
fn a_reset_does_not_wait_for_what_is_held_back() {
    let mut duo = duo(1452);
    let flow = corked(&mut duo);
    let now = duo.now;
    duo.tunnel(SERVER).reset(now, flow.stream, Code::RESET);
    let event = duo.wait(CLIENT, |event| matches!(event, Event::Reset { .. }));
    assert!(matches!(event, Event::Reset { code: Code::RESET, .. }), "{event:?}");
    assert_eq!(duo.now - now, DELAY);
}

#[test]
fn a_stream_that_is_stopped_is_not_corked_any_more() {
    let mut duo = duo(1452);
    let flow = corked(&mut duo);
    let now = duo.now;
    duo.tunnel(CLIENT).stop(now, flow.stream, Code::BUSY);
    duo.wait(SERVER, |event| matches!(event, Event::Stopped { .. }));
    let now = duo.now;
    let written = duo.tunnel(SERVER).write(now, flow.stream, &mut Bytes::from_static(b"more"));
    assert_eq!(written, Err(WriteError::Stopped(Code::BUSY)), "and no write is taken that goes nowhere");
}

/// What is held back is not forgotten when there is no credit for it, and whoever waits is woken.
#[test]
fn a_corked_stream_without_credit_goes_on_when_there_is_some() {
    let mut duo = duo(1452);
    let mut flow = Flow::new(&mut duo);
    flow.fill(&mut duo, &[1000, 1]);
    let most = u64::from(Limits::default().stream_window) + Limits::default().cork_bytes as u64;
    assert!(flow.written <= most, "{} bytes were taken", flow.written);
    for _ in 0..3 {
        flow.read(&mut duo);
        duo.wait(SERVER, |event| matches!(event, Event::Writable { .. }));
        flow.fill(&mut duo, &[1000, 1]);
    }
    assert!(flow.written > 3 * FULL);
    flow.end(&mut duo);
}

/// quinn-proto counts the whole datagram for each frame in it.
#[test]
fn frames_that_share_their_datagrams_are_no_exception() {
    let mut duo = duo(8972);
    let mut flows: Vec<_> = (0..4).map(|_| Flow::new(&mut duo)).collect();
    let mut open = true;
    while open {
        for (flow, rhythm) in flows.iter_mut().zip([[5000, 1], [1, 1], [3000, 7000], [1, 4096]]) {
            let round = duo.elapsed().as_millis() as usize;
            open &= flow.write(&mut duo, rhythm[round % 2]);
        }
        pass(&mut duo, Duration::from_millis(1));
    }
    for flow in flows {
        flow.end(&mut duo);
    }
}
