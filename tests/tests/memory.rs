//! How much memory a peer can make a node hold: the figures of docs/Memory.md, each under an attack on it.
//!
//! The attacker writes raw frames, and the allocator is watched. What is printed says how much was held for each byte sent
//! (`cargo test --test memory -- --nocapture --test-threads 1`).

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cap::Cap;
use snocat_core::open::Header;
use snocat_core::wire::{Bind, Control, Cork, ResetAt};
use snocat_core::{Code, Limits};
use snocat_tests::hostile::{Hostile, Victim, crypto, numbers, stream};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// A peer that the victim has authenticated, or that has authenticated the victim.
const BOTH: [Victim; 2] = [Victim::Server, Victim::Client];
/// A datagram of the shortest path, and the longest that is taken.
const SHORT: usize = 1200;
const LONG: usize = 8972;
/// What quinn-proto keeps of a stream as pieces, at most 1,024 and those that have come since it last merged them, as it
/// keeps them: in a vector that doubles.
const PIECES: usize = 2 * 1100 * 56;
/// What quinn-proto remembers of a stream with gaps: up to 1,024 places that were read, and as many as there are pieces.
const RANGES: usize = (1024 + 1100) * 48;
/// What quinn-proto lets datagrams be longer than what is kept of them, for each stream.
const SLACK: usize = 32 * KIB;
/// A stream that is open, with all maps it is in.
const STREAM: usize = 2 * KIB;
/// What quinn-proto keeps of the last 1,000 packets that it need not have acknowledged, and all that a tunnel has once.
const TUNNEL: usize = 512 * KIB;

/// What came of an attack.
struct Held {
    /// Bytes that were allocated at the worst and had not been before.
    bytes: usize,
    /// Bytes that the attacker sent.
    sent: u64,
    /// Why the tunnel has ended, if it has.
    closed: Option<String>,
}

/// Has somebody attack in steps until the tunnel ends.
fn attack(
    name: &str,
    victim: Victim,
    prepare: impl FnOnce(&mut Hostile),
    steps: u64,
    mut step: impl FnMut(&mut Hostile, u64),
) -> Held {
    let mut hostile = Hostile::new(victim, &Limits::default());
    let before = ALLOCATOR.allocated();
    prepare(&mut hostile);
    let mut bytes = 0;
    for number in 0..steps {
        step(&mut hostile, number);
        bytes = bytes.max(ALLOCATOR.allocated().saturating_sub(before));
        if hostile.closed.is_some() {
            break;
        }
    }
    let (sent, closed) = (hostile.sent, hostile.closed.take());
    let ratio = bytes as f64 / sent as f64;
    println!("{victim:?}, {name}: {sent} sent, {bytes} held, {ratio:.2} for each; {closed:?}");
    Held { bytes, sent, closed }
}

/// What another test allocates meanwhile would count.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens so many streams, each with a header that is accepted.
fn open(count: u64) -> impl Fn(&mut Hostile) {
    move |hostile| {
        for nth in 0..count {
            let id = hostile.stream(nth);
            hostile.send(&stream(id, 0, &header()), 0);
        }
        assert_eq!(hostile.accepted.len() as u64, count);
    }
}

fn header() -> Vec<u8> {
    Header::forward("/tcp/80".parse().unwrap()).encode()
}

/// Single bytes at every second place, behind a gap.
fn every_second(id: u64, from: u64, count: u64) -> impl Iterator<Item = Vec<u8>> {
    (from..from + count).map(move |nth| stream(id, 100 + 2 * nth, b"x"))
}

#[test]
fn beyond_a_gap_what_is_allocated_is_bounded_however_it_is_cut_and_padded() {
    let _alone = alone();
    let bound = Limits::default().gap_bytes as usize + PIECES + SLACK + TUNNEL;
    for victim in BOTH {
        for length in [SHORT, LONG] {
            let held = attack("one byte a datagram", victim, open(1), 20_000, |hostile, nth| {
                let id = hostile.stream(0);
                hostile.send(&stream(id, 100 + 2 * nth, b"x"), length);
            });
            assert!(held.bytes < bound, "{} bytes", held.bytes);
        }
        let held = attack("many bytes a datagram", victim, open(1), 1000, |hostile, nth| {
            let id = hostile.stream(0);
            hostile.send_packed(every_second(id, nth * 150, 150), SHORT);
        });
        assert!(held.bytes < bound, "{} bytes", held.bytes);
        assert!(held.closed.is_some(), "quinn-proto ends it when it is left with the pieces");
    }
}

#[test]
fn beyond_the_gaps_of_all_streams_together_it_is_bounded_too() {
    let _alone = alone();
    const STREAMS: u64 = 16;
    let bound = 8 * Limits::default().gap_bytes as usize + STREAMS as usize * (PIECES + SLACK) + TUNNEL;
    for victim in BOTH {
        let held = attack("every stream", victim, open(STREAMS), STREAMS, |hostile, nth| {
            let id = hostile.stream(nth);
            // One gap, and behind it single bytes, in datagrams so short that quinn-proto does not merge them.
            hostile.send_packed((0..10_500).map(|nth| stream(id, 100 + nth, b"x")), 300);
        });
        assert!(held.bytes < bound && held.bytes > 8 * MIB, "{} bytes", held.bytes);
    }
}

/// What this side stops is not accounted for any more, and quinn-proto keeps it until the peer ends it.
#[test]
fn a_stopped_stream_costs_its_gaps_and_no_more() {
    let _alone = alone();
    const STREAMS: u64 = 100;
    for (victim, gaps) in BOTH.into_iter().flat_map(|victim| [10_000, 2000].map(|gaps| (victim, gaps))) {
        let mut offset = Hostile::control_offset(victim, &Limits::default());
        let opened = open(STREAMS);
        let held = attack("gaps, and RESET_AT", victim, &opened, STREAMS, |hostile, nth| {
            let id = hostile.stream(nth);
            for round in 0..gaps / 1000 {
                hostile.send_packed(every_second(id, round * 1000, 1000), SHORT);
            }
            let reset = ResetAt { stream: id, offset: header().len() as u64, code: Code::RESET };
            let reset = Control::ResetAt(reset).encode();
            hostile.send(&stream(0, offset, &reset), 0);
            offset += reset.len() as u64;
        });
        let bound = STREAMS as usize * (PIECES + RANGES) + SLACK + TUNNEL;
        assert!(held.bytes < bound, "{} bytes", held.bytes);
        assert_eq!(held.closed.is_some(), gaps > 2048, "quinn-proto ends it when it is left with the pieces");
    }
}

#[test]
fn of_unread_bytes_no_more_than_two_and_a_half_times_as_much_is_allocated() {
    let _alone = alone();
    for victim in BOTH {
        let unread = |hostile: &mut Hostile| {
            hostile.reads = false;
            open(8)(hostile);
        };
        // Below two fifths of a datagram quinn-proto merges.
        let held = attack("two fifths of each datagram", victim, unread, 8 * 4096, |hostile, nth| {
            let id = hostile.stream(nth % 8);
            hostile.send(&stream(id, header().len() as u64 + nth / 8 * 490, &[7; 490]), SHORT);
        });
        let bytes = 8 * 4096 * 490;
        assert!(
            held.bytes < bytes * 5 / 2 + 8 * (SLACK + PIECES) + TUNNEL,
            "{} bytes of {bytes}",
            held.bytes
        );
        assert_eq!(held.closed, None);

        let held = attack("one byte of each datagram", victim, unread, 4000, |hostile, nth| {
            let id = hostile.stream(nth % 8);
            hostile.send(&stream(id, header().len() as u64 + nth / 8, b"x"), LONG);
        });
        assert!(held.bytes < 8 * (SLACK + LONG) + TUNNEL, "{} bytes", held.bytes);
    }
}

#[test]
fn a_stream_that_nobody_reads_costs_its_pieces_and_no_more() {
    let _alone = alone();
    const STREAMS: u64 = 64;
    for victim in BOTH {
        let unread = |hostile: &mut Hostile| {
            hostile.reads = false;
            open(STREAMS)(hostile);
        };
        let held = attack("unread gaps", victim, unread, STREAMS, |hostile, nth| {
            let id = hostile.stream(nth);
            hostile.send_packed(every_second(id, 0, 1000), SHORT);
        });
        assert!(held.bytes < STREAMS as usize * (PIECES + SLACK) + TUNNEL, "{} bytes", held.bytes);
        assert_eq!(held.closed, None);
    }
}

#[test]
fn streams_cost_no_more_than_as_many_as_there_may_be() {
    let _alone = alone();
    let most = Limits::default().streams as usize;
    for victim in BOTH {
        let held = attack(
            "all streams with one frame",
            victim,
            |_| {},
            13,
            |hostile, nth| {
                // As many as are allowed by then; the last of them opens them all.
                let id = hostile.stream((61 << nth).min(8000));
                hostile.send(&stream(id, 0, &[]), 0);
            },
        );
        assert!(held.bytes < most * STREAM, "{} bytes", held.bytes);
        assert_eq!(held.closed, None);

        let held = attack(
            "headers that do not end",
            victim,
            |_| {},
            8000,
            |hostile, nth| {
                let id = hostile.stream(nth);
                hostile.send(&stream(id, 0, &[&[0x50, 0][..], &[7; 1000]].concat()), 0);
            },
        );
        assert!(held.bytes as u64 <= 8000 * STREAM as u64 + 2 * held.sent, "{} bytes", held.bytes);
        assert_eq!(held.closed, None);
    }
}

#[test]
fn a_stranger_holds_little() {
    let _alone = alone();
    let early = Limits::default();
    // Pieces of the frames that it may send and of those in one datagram more; and datagrams, on each of its streams and of the
    // three streams of the handshake.
    let pieces = 2 * 56 * (early.early_frames as usize + SHORT / 6);
    let datagrams = (early.early_streams as usize + 3) * (SLACK + LONG);
    let many = attack(
        "STREAM frames",
        Victim::ServerOfStranger,
        |_| {},
        40,
        |hostile, nth| {
            hostile.send_packed(every_second(4 * (nth % 4), nth / 4 * 100, 100), SHORT);
        },
    );
    let crypto = attack(
        "CRYPTO frames",
        Victim::ServerOfStranger,
        |_| {},
        40,
        |hostile, nth| {
            hostile.send_packed((0..100).map(|inner| crypto(1 + 2 * (100 * nth + inner), b"x")), SHORT);
        },
    );
    for held in [many, crypto] {
        assert!(held.bytes < pieces + datagrams, "{} bytes", held.bytes);
        assert!(held.closed.is_some_and(|reason| reason.contains("too many frames")));
    }
    let held = attack(
        "one byte a datagram",
        Victim::ServerOfStranger,
        |_| {},
        400,
        |hostile, nth| {
            hostile.send(&stream(4 * (nth % 4), 100 + 2 * (nth / 4), b"x"), LONG);
        },
    );
    assert!(held.bytes < pieces + datagrams, "{} bytes", held.bytes);
    let held = attack("PING", Victim::ServerOfStranger, |_| {}, 2000, |hostile, _| hostile.send(&[1], 0));
    assert!(held.bytes < datagrams, "{} bytes", held.bytes);
    assert!(held.closed.is_some_and(|reason| reason.contains("too many frames")));
}

#[test]
fn frames_of_the_connection_make_nothing_pile_up() {
    let _alone = alone();
    const LITTLE: usize = TUNNEL;
    for victim in BOTH {
        // Nothing is acknowledged, so the congestion window is full and nothing of what follows can be sent.
        let blocked = |hostile: &mut Hostile| {
            open(1)(hostile);
            let id = hostile.accepted[0];
            let (tunnel, now) = hostile.tunnel();
            tunnel.write(now, id, &mut Bytes::from_static(&[7; 100_000])).unwrap();
        };
        // The one that the packets are addressed with stays.
        let first = if victim == Victim::Server { 1 } else { 2 };
        let held = attack("RETIRE_CONNECTION_ID", victim, blocked, 5000, |hostile, nth| {
            let four = (0..4).map(|inner| numbers(0x19, &[first + nth * 4 + inner]));
            hostile.send_packed(four, SHORT);
        });
        assert!(held.bytes < LITTLE, "{} bytes", held.bytes);
        assert!(held.closed.is_some_and(|reason| reason.contains("retired before they are used")));

        let held = attack("NEW_CONNECTION_ID", victim, blocked, 1000, |hostile, nth| {
            let id = |sequence| [numbers(0x18, &[sequence, sequence, 8]), vec![sequence as u8; 24]].concat();
            hostile.send_packed((10 + nth * 4..14 + nth * 4).map(id), SHORT);
        });
        assert!(held.bytes < LITTLE, "{} bytes", held.bytes);

        let held = attack("MAX_STREAMS", victim, blocked, 100, |hostile, nth| {
            let more = (0..1500).map(|inner| numbers(0x12, &[(1 << 30) + nth * 1500 + inner]));
            hostile.send_packed(more, LONG);
        });
        assert!(held.bytes < LITTLE, "{} bytes", held.bytes);

        let held = attack("PATH_CHALLENGE", victim, blocked, 2000, |hostile, nth| {
            let remote = ([10, 1, (nth >> 8) as u8, nth as u8], 4433).into();
            hostile.send_from(remote, &[&[0x1a][..], &nth.to_be_bytes()].concat(), SHORT);
        });
        assert!(held.bytes < LITTLE, "{} bytes", held.bytes);

        let held = attack("CRYPTO", victim, blocked, 100, |hostile, nth| {
            hostile.send_packed((0..150).map(|inner| crypto(1 + 2 * (150 * nth + inner), b"x")), SHORT);
        });
        assert!(held.bytes < LITTLE, "{} bytes", held.bytes);
    }
}

#[test]
fn control_frames_are_answered_within_a_bound() {
    let _alone = alone();
    for victim in BOTH {
        let mut offset = Hostile::control_offset(victim, &Limits::default());
        let held = attack(
            "BIND",
            victim,
            |_| {},
            20_000,
            |hostile, nth| {
                let frames = (0..100).map(|inner| {
                    let address = "/x".parse().unwrap();
                    let bind = Control::Bind(Bind { id: nth * 100 + inner, port: 0, address }).encode();
                    let frame = stream(0, offset, &bind);
                    offset += bind.len() as u64;
                    frame
                });
                hostile.send_packed(frames, SHORT);
            },
        );
        assert!(held.bytes < 32 * MIB, "{} bytes", held.bytes);
        assert!(held.closed.is_some(), "what cannot be sent is too much some time");
    }
}

#[test]
fn a_cork_costs_what_is_written_and_not_what_might_be() {
    let _alone = alone();
    const STREAMS: u64 = 1000;
    for victim in BOTH {
        let mut offset = Hostile::control_offset(victim, &Limits::default());
        let opened = open(STREAMS);
        let held = attack("CORK", victim, &opened, STREAMS, |hostile, nth| {
            let cork = Control::Cork(Cork { stream: hostile.stream(nth), on: true }).encode();
            hostile.send(&stream(0, offset, &cork), 0);
            offset += cork.len() as u64;
            let id = hostile.accepted[nth as usize];
            let (tunnel, now) = hostile.tunnel();
            assert_eq!(tunnel.write(now, id, &mut Bytes::from_static(b"x")), Ok(1));
        });
        assert!(held.bytes < STREAMS as usize * STREAM, "{} bytes", held.bytes);
    }
}

/// A visitor that writes single bytes, and a peer that acknowledges none.
#[test]
fn what_is_written_and_not_acknowledged_is_bounded_in_pieces_too() {
    let _alone = alone();
    for victim in BOTH {
        let held = attack("short writes", victim, open(1), 2000, |hostile, _| {
            let id = hostile.accepted[0];
            let (tunnel, now) = hostile.tunnel();
            for _ in 0..1000 {
                if tunnel.write(now, id, &mut Bytes::copy_from_slice(b"x")).is_err() {
                    break;
                }
            }
        });
        assert!(held.bytes < 24 * MIB, "{} bytes", held.bytes);
        assert_eq!(held.closed, None);
    }
}
