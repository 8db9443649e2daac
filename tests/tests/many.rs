//! Many connections at once, many after another, and ports that many want.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use snocat_driver::core::Code;
use snocat_tests::{
    Lab, Options, PATIENCE, Pairing, Target, connect, enough_descriptors, expect_pattern, pairings, pattern,
    verify_pattern, write_pattern,
};
use socket2::{Domain, SockRef, Socket, Type};

pairings!(
    a_thousand_connections_are_open_and_echo_at_the_same_time,
    three_thousand_short_connections_end_cleanly,
    visitors_that_stop_reading_do_not_slow_the_others_and_lose_nothing,
    a_client_without_a_wish_gets_any_port_until_there_is_none,
    a_wanted_port_is_given_or_refused_and_never_replaced,
    a_port_is_free_again_within_a_second_of_a_clean_end,
);

/// These tests want the machine for themselves: they are about load, not about each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn a_thousand_connections_are_open_and_echo_at_the_same_time(pairing: Pairing) {
    const VISITORS: usize = 1000;
    let _alone = alone();
    if !enough_descriptors(8192) {
        return;
    }
    let open = Arc::new(AtomicUsize::new(0));
    let target = {
        let open = open.clone();
        Target::each(move |mut stream| {
            open.fetch_add(1, Ordering::Relaxed);
            let mut back = stream.try_clone()?;
            std::io::copy(&mut stream, &mut back)?;
            back.shutdown(Shutdown::Write)
        })
    };
    let (_server, client) = Lab::new(pairing).pair(target.address);
    let mut visitors: Vec<TcpStream> = (0..VISITORS).map(|_| connect(client.port)).collect();
    for round in 0..2 {
        // Each has bytes of its own, so that none can get another's.
        let start = |visitor: usize| (round * VISITORS + visitor) as u64 * 977;
        for (number, visitor) in visitors.iter_mut().enumerate() {
            visitor.write_all(pattern(start(number), 2000)).unwrap();
        }
        for (number, visitor) in visitors.iter_mut().enumerate() {
            expect_pattern(visitor, start(number), 2000);
        }
        assert_eq!(open.load(Ordering::Relaxed), VISITORS, "all of them are there together");
    }
    for visitor in &visitors {
        visitor.shutdown(Shutdown::Write).unwrap();
    }
    for visitor in &mut visitors {
        assert_eq!(visitor.read(&mut [0]).unwrap(), 0);
    }
}

fn three_thousand_short_connections_end_cleanly(pairing: Pairing) {
    const AT_ONCE: u64 = 30;
    const ROUNDS: u64 = 100;
    let _alone = alone();
    let target = Target::echo();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    let port = client.port;
    let visit = |number: u64| {
        let mut visitor = connect(port);
        visitor.write_all(pattern(number * 131, 300)).unwrap();
        visitor.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        visitor.read_to_end(&mut answer).unwrap();
        assert!(answer == pattern(number * 131, 300));
    };
    std::thread::scope(|scope| {
        for lane in 0..AT_ONCE {
            scope.spawn(move || (0..ROUNDS).for_each(|round| visit(round * AT_ONCE + lane)));
        }
    });
}

/// Beside the visitors' small buffers, those of the tunnel fill up, to the last byte that it grants each stream.
fn visitors_that_stop_reading_do_not_slow_the_others_and_lose_nothing(pairing: Pairing) {
    const STALLED: usize = 40;
    const LENGTH: u64 = 8 * 1024 * 1024;
    let _alone = alone();
    let written = Arc::new(AtomicU64::new(0));
    let target = {
        let written = written.clone();
        Target::each(move |mut stream| {
            // What is not in the tunnel is to be counted as waiting.
            SockRef::from(&stream).set_send_buffer_size(16 * 1024)?;
            stream.set_write_timeout(None)?;
            let mut offset = 0;
            while offset < LENGTH {
                let chunk = pattern(offset, 16 * 1024);
                stream.write_all(chunk)?;
                offset += chunk.len() as u64;
                written.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            stream.shutdown(Shutdown::Write)
        })
    };
    let options = Options::default();
    let lab = Lab::new(pairing);
    let server = lab.server(&options);
    let client = lab.client(&server, target.address, &options).unwrap();
    let mut stalled: Vec<TcpStream> = (0..STALLED).map(|_| connect_with_small_buffer(client.port)).collect();
    wait_until_still(&written);

    let begin = Instant::now();
    let mut fresh = connect(client.port);
    assert_eq!(verify_pattern(&mut fresh), LENGTH);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(15), "8 MiB beside {STALLED} stalled visitors took {took:?}");

    for visitor in &mut stalled {
        assert_eq!(verify_pattern(visitor), LENGTH);
    }
}

fn connect_with_small_buffer(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// Waits until nothing moves for longer than it takes a stream to count as stalled.
fn wait_until_still(written: &AtomicU64) {
    let deadline = Instant::now() + PATIENCE;
    let mut last = (written.load(Ordering::Relaxed), Instant::now());
    while last.1.elapsed() < Duration::from_millis(1500) {
        assert!(Instant::now() < deadline, "it goes on and on");
        std::thread::sleep(Duration::from_millis(20));
        let now = written.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
}

/// Two ports side by side that are free now, and that no other test is given. They lie below those that systems
/// hand out by themselves, so that nobody gets one of them by chance meanwhile.
fn two_ports() -> RangeInclusive<u16> {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    loop {
        let turn = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(turn < 5000, "no two ports are free");
        let first = 10_000 + ((std::process::id() as usize * 100 + turn) * 4 % 20_000) as u16;
        if [first, first + 1].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return first..=first + 1;
        }
    }
}

fn a_client_without_a_wish_gets_any_port_until_there_is_none(pairing: Pairing) {
    let target = Target::echo();
    let lab = Lab::new(pairing);
    let ports = two_ports();
    let options = Options { ports: ports.clone(), ..Options::default() };
    let server = lab.server(&options);
    let first = lab.client(&server, target.address, &options).unwrap();
    let second = lab.client(&server, target.address, &options).unwrap();
    assert_eq!([first.port.port(), second.port.port()], [*ports.start(), *ports.end()]);
    let failure = lab.client(&server, target.address, &options).err().unwrap();
    assert_eq!(failure.code(), Some(Code::PORTS_EXHAUSTED), "{failure:?}");
    // The third has done no harm to the others.
    for client in [first, second] {
        let mut visitor = connect(client.port);
        write_pattern(&mut visitor, 1000).unwrap();
        visitor.shutdown(Shutdown::Write).unwrap();
        assert_eq!(verify_pattern(&mut visitor), 1000);
    }
}

fn a_wanted_port_is_given_or_refused_and_never_replaced(pairing: Pairing) {
    let target = Target::echo();
    let lab = Lab::new(pairing);
    let ports = two_ports();
    let wish = |port| Options { port, ports: ports.clone(), ..Options::default() };
    let server = lab.server(&wish(0));
    let client = lab.client(&server, target.address, &wish(*ports.end())).unwrap();
    assert_eq!(client.port.port(), *ports.end());
    let refused = |port| lab.client(&server, target.address, &wish(port)).err().unwrap().code();
    assert_eq!(refused(*ports.end()), Some(Code::PORT_TAKEN), "by another client");
    let other = TcpListener::bind(("127.0.0.1", *ports.start())).unwrap();
    assert_eq!(refused(*ports.start()), Some(Code::PORT_TAKEN), "by another program");
    assert_eq!(refused(*ports.end() + 1), Some(Code::PORT_OUTSIDE));
    assert_eq!(refused(*ports.start() - 1), Some(Code::PORT_OUTSIDE));
    assert_eq!(refused(0), Some(Code::PORTS_EXHAUSTED), "one by each");
    drop(other);
    let client = lab.client(&server, target.address, &wish(0)).unwrap();
    assert_eq!(client.port.port(), *ports.start());
}

fn a_port_is_free_again_within_a_second_of_a_clean_end(pairing: Pairing) {
    let target = Target::echo();
    let lab = Lab::new(pairing);
    let ports = two_ports();
    let options = Options { port: *ports.start(), ports, ..Options::default() };
    let server = lab.server(&options);
    for _ in 0..3 {
        let client = lab.client(&server, target.address, &options).unwrap();
        // A port with a past: one visitor has been here and gone, one is still here.
        let mut gone = connect(client.port);
        gone.shutdown(Shutdown::Write).unwrap();
        assert_eq!(gone.read(&mut [0]).unwrap(), 0);
        let mut here = connect(client.port);
        here.write_all(b"x").unwrap();
        here.read_exact(&mut [0]).unwrap();
        client.stop();
        let deadline = Instant::now() + Duration::from_secs(1);
        while TcpListener::bind(("127.0.0.1", options.port)).is_err() {
            assert!(Instant::now() < deadline, "the port is still bound");
            std::thread::sleep(Duration::from_millis(5));
        }
        // The server sees to its own list, too, before it says that the tunnel is down.
        server.tunnel_down(Code::STOPPING);
    }
}
