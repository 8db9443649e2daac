//! Two nodes in memory: what is left of forwarding without sockets, tasks and the kernel. Both sides are in each figure,
//! with TLS and with the session that protects nothing.

use std::collections::VecDeque;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use snocat_driver::core::open::Header;
use snocat_driver::core::{Event, ReadStatus, StreamId, Tunnel};
use snocat_tests::{CLIENT, Joined, Protection, SERVER};

const BOTH: [Protection; 2] = [Protection::Tls, Protection::Plain];

/// A new tunnel: handshake and authentication.
#[divan::bench(args = BOTH, sample_count = 50)]
fn connect(bencher: Bencher, protection: Protection) {
    bencher
        .counter(ItemsCount::new(1_usize))
        .with_inputs(|| Joined::new(protection))
        .bench_local_refs(Joined::connect);
}

/// A visitor: a stream is opened, 64 bytes go there and come back, both sides end it.
#[divan::bench(args = BOTH)]
fn visit(bencher: Bencher, protection: Protection) {
    let mut joined = Joined::idle(protection, 1);
    let header = Header::forward("/tcp/80".parse().unwrap());
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| echo(&mut joined, &header));
}

fn echo(joined: &mut Joined, header: &Header) {
    let mut message = Bytes::from_static(&[0x5a; 64]);
    let (now, tunnel) = joined.tunnel(CLIENT);
    let opened = tunnel.open(now, header).unwrap();
    tunnel.write(now, opened, &mut message).unwrap();
    let mut back = 0;
    joined.run(|tunnel, now, side, event| {
        match event {
            Event::OpenRequested { stream, .. } => tunnel.accept(now, stream).unwrap(),
            Event::Readable { stream } => {
                let (bytes, finished) = read(tunnel, now, stream);
                if side == SERVER {
                    bytes.into_iter().for_each(|mut bytes| {
                        tunnel.write(now, stream, &mut bytes).unwrap();
                    });
                    if finished {
                        tunnel.finish(now, stream);
                    }
                } else {
                    back += bytes.iter().map(Bytes::len).sum::<usize>();
                    if back == 64 && !finished {
                        tunnel.finish(now, stream);
                    }
                }
            }
            _ => {}
        }
        side == CLIENT && tunnel.stage(opened).is_none()
    });
}

fn read(tunnel: &mut Tunnel, now: std::time::Instant, stream: StreamId) -> (VecDeque<Bytes>, bool) {
    let mut out = VecDeque::new();
    let status = tunnel.read(now, stream, 64 * 1024, &mut out).unwrap();
    (out, status == ReadStatus::Finished)
}

/// A MiB of a stream that is open.
#[divan::bench(args = BOTH)]
fn bulk(bencher: Bencher, protection: Protection) {
    const MIB: usize = 1 << 20;
    let mut joined = Joined::idle(protection, 1);
    let stream = joined.open();
    // Until the windows are found.
    joined.carry(stream, 8 * MIB);
    bencher.counter(BytesCount::new(MIB)).bench_local(|| joined.carry(stream, MIB));
}
