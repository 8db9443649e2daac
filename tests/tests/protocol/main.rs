//! What a node does about a peer that does not do as `docs/Protocol.md` says, or does so in an unusual order. The peer
//! is written by hand.

use std::time::Duration;

use snocat_core::open::Header;
use snocat_core::{Code, Event, Refusal, StreamId};
use snocat_tests::bench::{Bench, DELAY};

mod bindings;
mod early;
mod exporter;
mod streams;
mod wrong_input;

/// A code that nobody sends unasked, so long that its bytes stand nowhere by accident.
const CODE: Code = Code::new(0x1234_5678_9abc);
const ROUND_TRIP: Duration = Duration::from_millis(2 * DELAY.as_millis() as u64);

/// A header, as an opener sends it: of the kind *forward*, to `/tcp/80`.
const HEADER: &[u8] = b"\x09\x01\x07/tcp/80";

/// A stream of the node that waits for its answer, as node and peer name it. The node has sent payload ahead.
fn asked(bench: &mut Bench) -> (StreamId, quinn_proto::StreamId) {
    let now = bench.now;
    let header = Header::forward("/tcp/80".parse().unwrap());
    let stream = bench.tunnel().open(now, &header).unwrap();
    bench.tunnel().write(now, stream, &mut b"ahead"[..].into()).unwrap();
    bench.pass(ROUND_TRIP);
    (stream, bench.accept())
}

/// A stream of the peer that waits for the node's answer, as node and peer name it.
fn offered(bench: &mut Bench) -> (StreamId, quinn_proto::StreamId) {
    let theirs = bench.open();
    bench.send(theirs, HEADER);
    bench.pass(ROUND_TRIP);
    match bench.events.pop_back() {
        Some(Event::OpenRequested { stream, .. }) => (stream, theirs),
        other => panic!("{other:?}"),
    }
}

fn expect(bench: &mut Bench, event: &Event) {
    let next = bench.events.pop_front();
    assert_eq!(format!("{next:?}"), format!("{:?}", Some(event)));
}

fn refused(bench: &mut Bench) -> Refusal {
    let refusal = bench.events.iter().find_map(|event| match event {
        Event::Refused { refusal, .. } => Some(refusal.clone()),
        _ => None,
    });
    refusal.unwrap_or_else(|| panic!("{:?}", bench.events))
}
