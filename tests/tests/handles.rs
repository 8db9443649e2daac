//! What an application holds of a driver: futures that it drops, handles that it keeps, streams that outlive their tunnel.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use snocat_driver::core::open::Header;
use snocat_driver::core::{Code, Limits};
use snocat_driver::{BindError, Bytes, Offer, OpenError, Runtime, ServerEvent, Stream, StreamError, Tunnel};
use snocat_tests::pattern;
use snocat_tests::simruntime::{
    Bare, CLIENT, Done, Machines, SERVER, SimRuntime, World, dial, each_seed, listen, simulate,
};

/// Futures of each kind that are dropped while they wait: more than may wait in one tunnel.
const CANCELLED: usize = 5_000;

/// A task that is only asked whether it was woken.
#[derive(Default)]
struct Task(AtomicBool);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Task {
    fn is_woken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Polls a future as this task.
    fn poll<T>(self: &Arc<Self>, future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(&Waker::from(self.clone())))
    }
}

/// Begins to wait many times, and waits for nothing. Nobody may then keep a waker.
fn cancel<F: Future>(what: &str, begin: impl Fn() -> F) {
    for _ in 0..CANCELLED {
        let task = Arc::new(Task::default());
        {
            let mut future = pin!(begin());
            // Polled twice, it still waits once.
            for _ in 0..2 {
                assert!(task.poll(future.as_mut()).is_pending(), "{what} has nothing to wait for");
            }
        }
        assert_eq!(Arc::strong_count(&task), 1, "the waker of a future of {what} that was dropped is kept");
    }
}

fn header() -> Header {
    Header::forward("/tcp/80".parse().unwrap())
}

/// So few streams that a test can use them up.
fn few() -> Limits {
    Limits { streams: 4, streams_listening: 4, streams_connecting: 4, ..Limits::default() }
}

/// Opens streams until the peer allows no more. Nobody answers them.
fn use_up(tunnel: &Tunnel<SimRuntime>) -> Vec<Stream<SimRuntime>> {
    let header = header();
    let mut streams = Vec::new();
    loop {
        let task = Arc::new(Task::default());
        match task.poll(pin!(tunnel.open(&header))) {
            Poll::Ready(stream) => streams.push(stream.unwrap()),
            Poll::Pending => return streams,
        }
    }
}

#[test]
fn futures_that_are_dropped_leave_nothing_behind() {
    each_seed(3, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let pair = Bare::start(&world.sim, &few()).await;
            let Bare { server, listening, connecting } = &pair;
            let (stream, header) = (connecting.open(&header()).await.unwrap(), header());
            let offer = listening.accept().await.unwrap();
            let streams = use_up(listening);
            cancel("Tunnel::closed", || listening.closed());
            cancel("Tunnel::drained", || listening.drained());
            cancel("Tunnel::open", || listening.open(&header));
            cancel("Tunnel::accept", || listening.accept());
            cancel("Tunnel::binding_request", || connecting.binding_request());
            cancel("Offer::cancelled", || offer.cancelled());
            cancel("TunnelServer::next", || server.next());

            // Whoever comes now is as good as the first.
            let mut done = Done::new();
            let other = listening.clone();
            done.start(&world.sim.host(CLIENT), async move { other.open(&header).await.map(drop) });
            drop((stream, offer, streams));
            assert!(matches!(done.all().await[..], [Ok(())]));
            pair.stop().await;
        });
    });
}

#[test]
fn no_more_opens_wait_than_the_limit_and_each_that_goes_makes_room() {
    each_seed(3, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let pair = Bare::start(&world.sim, &few()).await;
            let tunnel = &pair.listening;
            let (streams, header, task) = (use_up(tunnel), header(), Arc::new(Task::default()));
            let mut waiting: Vec<_> = (0..4096).map(|_| Box::pin(tunnel.open(&header))).collect();
            for open in &mut waiting {
                assert!(task.poll(open.as_mut()).is_pending());
            }
            assert!(matches!(task.poll(pin!(tunnel.open(&header))), Poll::Ready(Err(OpenError::Busy(4096)))));
            // Those that wait already may look as often as they like.
            assert!(task.poll(waiting[0].as_mut()).is_pending());
            waiting.pop();
            assert!(task.poll(pin!(tunnel.open(&header))).is_pending());
            drop((waiting, streams));
            pair.stop().await;
        });
    });
}

/// Only as many are woken as there may be streams for; one that is dropped between being woken and being polled must
/// not take that along.
#[test]
fn opens_have_their_turns_in_order_and_one_that_is_dropped_passes_its_turn_on() {
    each_seed(20, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let pair = Bare::start(&world.sim, &few()).await;
            let tunnel = &pair.listening;
            let (mut streams, header, task) = (use_up(tunnel), header(), Arc::new(Task::default()));
            let mut first = Box::pin(tunnel.open(&header));
            assert!(task.poll(first.as_mut()).is_pending());
            let runtime = world.visitors();
            let mut done = Done::new();
            for number in 0..6 {
                let other = tunnel.clone();
                let header = header.clone();
                done.start(&runtime, async move {
                    let stream = other.open(&header).await.unwrap();
                    (number, drop(stream)).0
                });
                // Until it waits.
                runtime.sleep_until(runtime.now() + Duration::from_millis(1)).await;
            }
            streams.pop();
            while !task.is_woken() {
                runtime.sleep_until(runtime.now() + Duration::from_millis(1)).await;
            }
            drop(first);
            assert_eq!(done.all().await, [0, 1, 2, 3, 4, 5]);
            pair.stop().await;
        });
    });
}

#[test]
fn everybody_who_waits_for_an_offer_to_go_learns_of_it() {
    each_seed(20, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let pair = Bare::start(&world.sim, &Limits::default()).await;
            let stream = pair.connecting.open(&header()).await.unwrap();
            let offer: Arc<Offer<_>> = Arc::new(pair.listening.accept().await.unwrap());
            let mut done = Done::new();
            for _ in 0..3 {
                let offer = offer.clone();
                done.start(&world.visitors(), async move { offer.cancelled().await });
            }
            drop(stream);
            done.all().await;
            drop(offer);
            pair.stop().await;
        });
    });
}

/// Its tunnels end all the same, and whoever waits for events learns that there are no more.
#[test]
fn a_server_whose_closing_is_given_up_is_closed() {
    each_seed(20, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let Bare { server, listening, connecting } = Bare::start(&world.sim, &Limits::default()).await;
            let task = Arc::new(Task::default());
            let _given_up = task.poll(pin!(server.close(Code::STOPPING, "server stopped")));
            while server.next().await.is_some() {}
            assert_eq!(listening.closed().await.code, Code::STOPPING);
            assert_eq!(connecting.closed().await.code, Code::STOPPING);
        });
    });
}

/// Neither side serves bindings. The client's request is there before the server's application knows of the tunnel.
#[test]
fn a_binding_that_nobody_serves_is_refused_at_once() {
    each_seed(20, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let (limits, address) = (Limits::default(), "/tcp/80".parse().unwrap());
            let server = listen(&world.sim, false, &limits);
            let connected =
                dial(&world.sim, &SERVER.to_string(), Some(&address), false, &limits).await.unwrap();
            let Some(ServerEvent::TunnelUp(listening)) = server.next().await else { unreachable!() };
            let early = connected.bindings.into_iter().next().unwrap();
            for pending in [early, listening.bind(0, &address), connected.tunnel.bind(1, &address)] {
                let begin = world.sim.elapsed();
                let Err(BindError::Refused(refusal)) = pending.bound().await else { unreachable!() };
                assert_eq!(refusal.code, Code::BIND_NOT_OFFERED);
                assert!(world.sim.elapsed() - begin < Duration::from_secs(1));
            }
            for tunnel in [&listening, &connected.tunnel] {
                assert!(tunnel.binding_request().await.is_none());
            }
            Bare { server, listening, connecting: connected.tunnel }.stop().await;
        });
    });
}

/// A server that is slow to look at its tunnels loses none of what their clients have asked for.
#[test]
fn a_binding_that_comes_early_waits_for_who_serves_it() {
    each_seed(20, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let (limits, address) = (Limits::default(), "/tcp/80".parse().unwrap());
            let server = listen(&world.sim, true, &limits);
            let connected =
                dial(&world.sim, &SERVER.to_string(), Some(&address), false, &limits).await.unwrap();
            let Some(ServerEvent::TunnelUp(listening)) = server.next().await else { unreachable!() };
            let runtime = world.visitors();
            runtime.sleep_until(runtime.now() + Duration::from_secs(5)).await;
            let request = listening.binding_request().await.unwrap();
            assert_eq!((request.port(), request.address()), (0, &address));
            let bound = ([192, 0, 2, 1], 8080).into();
            request.answer(Ok(vec![bound]));
            let binding = connected.bindings.into_iter().next().unwrap();
            assert_eq!(binding.bound().await.unwrap(), [bound]);
            Bare { server, listening, connecting: connected.tunnel }.stop().await;
        });
    });
}

/// Reads to the end of a stream, or to what keeps it from that.
async fn read_all(stream: &Stream<SimRuntime>) -> (usize, Result<(), StreamError>) {
    let (mut out, mut count) = (VecDeque::new(), 0);
    loop {
        let result = poll_fn(|context| stream.poll_read(context, 10_000, &mut out)).await;
        for chunk in out.drain(..) {
            assert!(chunk == pattern(count as u64, chunk.len()), "bytes at {count}");
            count += chunk.len();
        }
        match result {
            Ok(true) => return (count, Ok(())),
            Ok(false) => {}
            Err(error) => return (count, Err(error)),
        }
    }
}

async fn write_all(stream: &Stream<SimRuntime>, length: usize) {
    let mut data = Bytes::from_static(pattern(0, length));
    while !data.is_empty() {
        poll_fn(|context| stream.poll_write(context, &mut data)).await.unwrap();
    }
}

/// Either side ends the tunnel as soon as the writer knows that its peer has everything.
#[test]
fn what_has_arrived_is_read_after_the_end_of_the_tunnel() {
    const LENGTH: usize = 500_000;
    each_seed(40, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let pair = Bare::start(&world.sim, &Limits::default()).await;
            let writing = pair.connecting.open(&header()).await.unwrap();
            let unfinished = pair.connecting.open(&header()).await.unwrap();
            let [reading, cut_off] = [(); 2].map(|()| async {
                let offer = pair.listening.accept().await.unwrap();
                offer.accept().unwrap()
            });
            let (reading, cut_off) = (reading.await, cut_off.await);
            write_all(&writing, LENGTH).await;
            write_all(&unfinished, 100).await;
            writing.finish();
            poll_fn(|context| writing.poll_finished(context)).await.unwrap();
            let closing = if seed % 2 == 0 { &pair.connecting } else { &pair.listening };
            closing.close(Code::CLOSED, "that was all");
            pair.listening.closed().await;
            pair.listening.drained().await;
            assert_eq!(read_all(&reading).await, (LENGTH, Ok(())));
            let (_, end) = read_all(&cut_off).await;
            assert!(matches!(end, Err(StreamError::TunnelClosed(_))), "{end:?}");
            drop((writing, unfinished, reading, cut_off));
            pair.stop().await;
        });
    });
}

/// The peer has all the bytes, and its application has not looked at the stream.
#[test]
fn a_stream_is_finished_when_it_was_accepted_and_not_before() {
    each_seed(20, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let pair = Bare::start(&world.sim, &Limits::default()).await;
            for accept in [true, false] {
                let stream = pair.connecting.open(&header()).await.unwrap();
                write_all(&stream, 100).await;
                stream.finish();
                let runtime = world.visitors();
                let offer = pair.listening.accept().await.unwrap();
                runtime.sleep_until(runtime.now() + Duration::from_secs(2)).await;
                let task = Arc::new(Task::default());
                assert!(task.poll(pin!(poll_fn(|context| stream.poll_finished(context)))).is_pending());
                let taken = if accept { offer.accept() } else { (drop(offer), None).1 };
                let finished = poll_fn(|context| stream.poll_finished(context)).await;
                match taken {
                    Some(taken) => {
                        finished.unwrap();
                        assert_eq!(read_all(&taken).await, (100, Ok(())));
                    }
                    None => assert!(matches!(finished, Err(StreamError::Refused(_))), "{finished:?}"),
                }
            }
            pair.stop().await;
        });
    });
}

/// Whatever the application still holds of it: tunnels, streams, an event that it has not read, a server.
#[test]
fn a_tunnel_that_is_drained_holds_no_socket() {
    each_seed(40, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let Bare { server, listening, connecting } = Bare::start(&world.sim, &Limits::default()).await;
            let stream = connecting.open(&header()).await.unwrap();
            let accepted = listening.accept().await.unwrap().accept();
            assert_eq!((world.sim.sockets(CLIENT), world.sim.sockets(SERVER)), (1, 1));
            connecting.close(Code::CLOSED, "that was all");
            listening.closed().await;
            let runtime = world.visitors();
            runtime.sleep_until(runtime.now() + Duration::from_secs(2)).await;
            assert_eq!((world.sim.sockets(CLIENT), world.sim.sockets(SERVER)), (0, 1));
            server.close(Code::STOPPING, "server stopped").await;
            assert_eq!(world.sim.sockets(SERVER), 0, "its port is not free");
            assert!(matches!(server.next().await, Some(ServerEvent::TunnelDown { .. })));
            drop((stream, accepted, listening, connecting, server));
        });
    });
}
