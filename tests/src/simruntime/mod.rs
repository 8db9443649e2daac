//! A third runtime for the driver: virtual time, sockets in memory, and tasks that are polled only when they were
//! woken, in an order drawn from a seed. A wake-up that is lost on a real runtime is found there only if something
//! else does not happen to wake the task as well; here it leaves the task stuck, and the test names it.
//!
//! [`Simulation::host`] is a runtime of one host. Datagrams travel over the links of [`snocat_core::sim`], TCP
//! only within the simulation. The readiness of a socket is told late, as by a reactor, in the manner of tokio
//! (known until an operation would block) or of async-io (asked for each time), as the seed will have it; reads
//! and writes are short now and then, accepting fails, sockets are full, timers fire early.

mod peers;
mod ready;
mod runtime;
mod sockets;
mod state;
mod tcp;
mod tunnel;
mod udp;
mod world;

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use snocat_driver::Icmp;
use snocat_driver::core::sim::{LinkConfig, Rng};

pub use peers::Peer;
pub use runtime::{SimListener, SimRuntime, SimTcp, SimTimer, SimUdp};
use state::{MAIN, Next, Shared};
pub use tunnel::{Bare, CLIENT, Forwarding, SERVER, VISITORS, connect_client, dial, listen, start_server};
pub use world::{Done, World, each_seed, simulate};

/// What the simulated machines are like. All that a field does not fix is drawn from the seed.
#[derive(Clone, Debug)]
pub struct Machines {
    /// Every link between two hosts.
    pub link: LinkConfig,
    /// Bytes that a UDP socket takes before it is full.
    pub udp_buffer: usize,
    /// Bytes that wait between the two ends of a TCP connection, in each direction.
    pub tcp_buffer: usize,
    /// Bytes that one read or write of a TCP connection moves at most.
    pub tcp_piece: usize,
    /// Datagrams that may be sent at once.
    pub segments: usize,
    /// What the interface says that a datagram may be long, whatever the link takes.
    pub interface: Option<u16>,
    /// The longest datagram that a socket sends: a longer one fails.
    pub longest: usize,
    /// Whether sending several at once fails, although the socket promises it.
    pub refuses_batches: bool,
    /// Whether reactors behave as that of tokio. Else, as that of async-io.
    pub remembers_readiness: bool,
    /// How often, of a thousand times, the other end's RST arrives just before this end shuts its direction down.
    pub failing_shutdowns: u32,
    /// TCP ports below this one are not for everybody: listening there is not permitted.
    pub reserved_ports: u16,
    /// Whether reads, writes and timers are as short as they may be now and then, and accepting fails.
    pub whims: bool,
}

impl Machines {
    /// Machines drawn from a seed, on links without loss.
    pub fn drawn(seed: u64) -> Self {
        let mut rng = Rng::new(!seed);
        let mut one_of = |choices: &[usize]| choices[rng.below(choices.len() as u64) as usize];
        let delay = Duration::from_micros(one_of(&[0, 50, 1_000, 20_000, 80_000]) as u64);
        let drawn = Self {
            link: LinkConfig { delay, jitter: delay / 4, ..LinkConfig::default() },
            udp_buffer: one_of(&[4_000, 40_000, 4_000_000]),
            tcp_buffer: one_of(&[150, 1_000, 16_000, 200_000]),
            tcp_piece: one_of(&[100, 1_500, usize::MAX]),
            segments: one_of(&[1, 4, 64]),
            interface: None,
            longest: usize::MAX,
            refuses_batches: one_of(&[0, 0, 0, 1]) == 1,
            failing_shutdowns: 0,
            remembers_readiness: one_of(&[0, 1]) == 1,
            reserved_ports: 0,
            whims: one_of(&[0, 1]) == 1,
        };
        let interface = [None, None, Some(1472), Some(8972), Some(65_507)][one_of(&[0, 1, 2, 3, 4])];
        let mtu = one_of(&[1472, 1472, 1472, 1200, 8972, 65_507]);
        Self { interface, link: LinkConfig { mtu, ..drawn.link }, ..drawn }
    }
}

/// A simulation: hosts, the network between them, their tasks, and the time.
pub struct Simulation {
    shared: Arc<Shared>,
}

/// What a simulation did: equal for equal seeds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Of which task was polled when, of what each socket did, and of when datagrams of which length went where.
    pub hash: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// How long it took, in its own time.
    pub elapsed: Duration,
}

impl Simulation {
    /// An empty simulation. Everything random in it comes from the seed.
    pub fn new(seed: u64, machines: Machines) -> Self {
        Self { shared: Shared::new(seed, machines, Instant::now()) }
    }

    /// The runtime of the host with this address.
    pub fn host(&self, ip: impl Into<IpAddr>) -> SimRuntime {
        SimRuntime { shared: self.shared.clone(), ip: ip.into() }
    }

    /// Changes all links, those there are and those to come.
    pub fn set_links(&self, link: &LinkConfig) {
        self.shared.lock().set_links(link);
    }

    /// From now on nothing gets through, and whoever sends is told this by ICMP. `None` ends the outage.
    pub fn set_outage(&self, said: Option<Icmp>) {
        self.shared.lock().outage = said;
    }

    /// From now on no socket sends longer datagrams than this.
    pub fn set_longest(&self, longest: usize) {
        self.shared.lock().machines.longest = longest;
    }

    /// Datagrams that a host has sent.
    pub fn sent(&self, ip: impl Into<IpAddr>) -> u64 {
        let (state, ip) = (self.shared.lock(), ip.into());
        let is_there = |number: &u64| state.sockets.get(number).is_some_and(|socket| socket.local.ip() == ip);
        state.sent.iter().filter(|(number, _)| is_there(number)).map(|(_, sent)| sent).sum()
    }

    /// What there is at the moment: tasks, sockets and timers.
    pub fn alive(&self) -> [usize; 3] {
        let state = self.shared.lock();
        [state.tasks.len(), state.sockets.len(), state.timers.len()]
    }

    /// Sockets that a host has open.
    pub fn sockets(&self, ip: impl Into<IpAddr>) -> usize {
        let (state, ip) = (self.shared.lock(), ip.into());
        state.sockets.values().filter(|socket| socket.local.ip() == ip).count()
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.shared.lock().elapsed()
    }

    /// Runs `main`, and all tasks along with it, until it is done.
    ///
    /// # Panics
    /// If it is not done within `limit` of virtual time, with a list of all tasks and of what they wait for.
    pub fn run<F: Future>(&self, limit: Duration, main: F) -> F::Output {
        let until = self.elapsed() + limit;
        let mut main = pin!(main);
        let waker = self.shared.main.clone();
        waker.wake_by_ref();
        loop {
            match self.shared.next(until) {
                Next::Task(MAIN) => {
                    if let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return result;
                    }
                }
                Next::Task(task) => self.shared.poll(task),
                Next::Nothing(why) => panic!("{}", self.shared.stuck(&format!("`main` is not done: {why}"))),
            }
        }
    }

    /// Lets all tasks come to their end.
    ///
    /// # Panics
    /// If a task is left after `limit` of virtual time, or a socket when all tasks are done.
    pub fn finish(self, limit: Duration) -> Trace {
        let until = self.elapsed() + limit;
        while self.shared.tasks() > 0 {
            match self.shared.next(until) {
                Next::Task(task) => self.shared.poll(task),
                Next::Nothing(why) => panic!("{}", self.shared.stuck(&format!("tasks are left: {why}"))),
            }
        }
        let left = self.shared.lock().left();
        assert!(left.is_empty(), "all tasks are done, and these are left: {left:?}");
        self.shared.lock().trace()
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Tasks hold the simulation that holds them.
        self.shared.clear();
    }
}
