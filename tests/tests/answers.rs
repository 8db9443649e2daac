//! What one end has sent before it resets arrives before the reset does, as without a tunnel between them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use snocat_driver::Runtime;
use snocat_driver::TcpListener;
use snocat_driver::core::Limits;
use snocat_driver::core::sim::{Chance, Loss};
use snocat_tests::simruntime::{Forwarding, Machines, Peer, World, each_seed, simulate};
use snocat_tests::{Lab, Pairing, Target, connect, expect_pattern, pairings, pattern, reset, write_pattern};

pairings!(
    an_answer_to_an_upload_that_the_target_does_not_take_arrives,
    what_a_visitor_has_said_before_it_resets_arrives,
);

/// Several lengths, the shortest and some that take many datagrams among them.
fn length(number: usize) -> usize {
    1 + number * number * 7 % 60_000
}

/// Reads so much of the pattern. Returns what came behind it.
fn read_all(stream: &mut TcpStream, length: usize) -> io::Result<()> {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    assert_eq!(bytes.len(), length, "bytes before {end:?}");
    assert!(bytes == pattern(0, length));
    end.map(drop)
}

fn is_reset(result: io::Result<()>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// As a server that answers 413 does: it reads the head of a request, answers, and closes with the rest unread.
fn an_answer_to_an_upload_that_the_target_does_not_take_arrives(pairing: Pairing) {
    let target = Target::each(|mut stream| {
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        stream.write_all(pattern(0, usize::from_le_bytes(head)))?;
        while stream.peek(&mut [0; 1])? == 0 {}
        Ok(())
    });
    let (_server, client) = Lab::new(pairing).pair(target.address);
    for first in (0..100).step_by(10) {
        let visits = (first..first + 10).map(|number| {
            let mut visitor = connect(client.port);
            std::thread::spawn(move || {
                let mut upload = visitor.try_clone().unwrap();
                let uploading = std::thread::spawn(move || {
                    upload.write_all(&length(number).to_le_bytes()).unwrap();
                    write_pattern(&mut upload, 30_000_000)
                });
                let read = read_all(&mut visitor, length(number));
                // The system tells of a reset once: whoever reads, or whoever writes.
                assert!(is_reset(read) || is_reset(uploading.join().unwrap()), "a clean end");
            })
        });
        for visit in visits.collect::<Vec<_>>() {
            visit.join().unwrap();
        }
    }
}

fn what_a_visitor_has_said_before_it_resets_arrives(pairing: Pairing) {
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    for number in 0..100 {
        let length = length(number) % 30_000 + 1;
        let mut visitor = connect(client.port);
        let mut taken = target.next();
        if number % 2 == 0 {
            taken.write_all(b"hello").unwrap();
            visitor.read_exact(&mut [0; 5]).unwrap();
        }
        visitor.write_all(pattern(0, length)).unwrap();
        reset(visitor);
        assert!(is_reset(read_all(&mut taken, length)), "a clean end");
    }
}

/// Also of a half that has ended before.
#[test]
fn an_end_before_a_reset_stays_an_end() {
    let pairing = Pairing { server: snocat_tests::Runtime::Tokio, client: snocat_tests::Runtime::Smol };
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    for _ in 0..50 {
        let mut visitor = connect(client.port);
        let mut taken = target.next();
        write_pattern(&mut visitor, 20_000).unwrap();
        visitor.shutdown(std::net::Shutdown::Write).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        reset(visitor);
        // What comes behind the bytes depends on whether the end was read before the reset came.
        expect_pattern(&mut taken, 0, 20_000);
    }
}

/// The peer's machines lose datagrams, and deliver them in another order.
#[test]
fn whatever_is_lost_on_the_way_the_bytes_come_before_the_reset() {
    each_seed(80, |seed| {
        let mut machines = Machines::drawn(seed);
        if seed % 2 == 1 {
            machines.link.loss = Loss::bursts(Chance::per_mille(50), Chance::per_mille(200));
            machines.link.duplicate = Chance::per_mille(10);
            machines.link.reorder = Chance::per_mille(50);
        }
        simulate(seed, machines, async |mut world: World| {
            let target = world.target();
            let limits = Limits { stream_window: 16_000, connection_window: 64_000, ..Limits::default() };
            let forwarding = Forwarding::start(&world.sim, target.local_addr().unwrap(), &limits).await;
            for visitor_resets in [true, false] {
                let visitor = Peer::connect(&world.visitors(), forwarding.port).await.unwrap();
                let taken = Peer::accept(&target).await;
                let (first, second) = if visitor_resets { (visitor, taken) } else { (taken, visitor) };
                let length = world.rng.below(30_000) as usize;
                let runtime = world.visitors();
                let wait = Duration::from_millis(world.rng.below(200));
                let upload = world.rng.below(2) * 10_000_000;
                let resets = async {
                    first.write_pattern(0, length).await.unwrap();
                    first.reset();
                };
                let reads = async {
                    // It may be slow to begin.
                    runtime.sleep_until(runtime.now() + wait).await;
                    let mut read = 0;
                    loop {
                        match second.read_some(1_000).await {
                            Ok(bytes) if bytes.is_empty() => panic!("a clean end after {read} of {length}"),
                            Ok(bytes) => {
                                assert!(bytes == pattern(read, bytes.len()));
                                read += bytes.len() as u64;
                            }
                            Err(_) => break,
                        }
                    }
                    assert_eq!(read, length as u64);
                };
                let writes = async {
                    let _cut_off = second.write_pattern(0, upload as usize).await;
                };
                futures_lite::future::zip(resets, futures_lite::future::zip(reads, writes)).await;
            }
            forwarding.stop().await;
        });
    });
}
