//! What a test of the driver runs in: one simulation for each seed, which must be empty in the end.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use snocat_driver::core::sim::Rng;
use snocat_driver::{Runtime, TcpListener};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{CLIENT, Machines, Peer, SimListener, SimRuntime, Simulation, Trace, VISITORS};

/// Longest virtual time for what a test does.
const LIMIT: Duration = Duration::from_secs(120);
/// Longest virtual time for what is left to be done then: a connection that was closed is kept for three probe timeouts, and
/// where datagrams have waited during an interruption of seconds, these are as long.
const REST: Duration = Duration::from_secs(60);
/// A target that nobody has come to for so long goes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` with so many seeds: from 0 on, or from a random one on if `SNOCAT_SEED` is `random`. If that is a
/// number, with this seed alone. Prints the seed that fails.
pub fn each_seed(count: u64, test: impl Fn(u64)) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("again with SNOCAT_SEED={}", self.0);
            }
        }
    }
    let seeds = match std::env::var("SNOCAT_SEED").as_deref() {
        Ok("random") => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let first = now.as_secs() * 1_000_000;
            first..first + count
        }
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..count,
    };
    for seed in seeds {
        let _named = Named(seed);
        test(seed);
    }
}

/// Runs `test` in a world of its own, which must be empty afterwards.
pub fn simulate<F: Future>(
    seed: u64,
    machines: Machines,
    test: impl FnOnce(World) -> F,
) -> (F::Output, Trace) {
    let sim = Rc::new(Simulation::new(seed, machines));
    let result = sim.run(LIMIT, test(World { sim: sim.clone(), rng: Rng::new(seed) }));
    let sim = Rc::into_inner(sim).unwrap();
    (result, sim.finish(REST))
}

/// A simulation, and what a test draws.
pub struct World {
    /// The simulation.
    pub sim: Rc<Simulation>,
    /// A generator with the simulation's seed.
    pub rng: Rng,
}

impl World {
    /// A target whose connections the test takes.
    pub fn target(&self) -> SimListener {
        self.sim.host(CLIENT).listen(SocketAddr::from((CLIENT, 0))).unwrap()
    }

    /// The runtime of visitors.
    pub fn visitors(&self) -> SimRuntime {
        self.sim.host(VISITORS)
    }

    /// The address of a target that sends everything back. It goes when nobody has come for ten seconds.
    pub fn echo(&self) -> SocketAddr {
        let listener = self.target();
        let address = listener.local_addr().unwrap();
        let runtime = self.sim.host(CLIENT);
        runtime.clone().spawn(async move {
            loop {
                let patience = runtime.sleep_until(runtime.now() + PATIENCE);
                let accepted = async { Some(Peer::accept(&listener).await) };
                let timeout = async {
                    patience.await;
                    None
                };
                let Some(peer) = futures_lite::future::or(accepted, timeout).await else { return };
                runtime.spawn(async move {
                    let _cut_off = peer.echo().await;
                });
            }
        });
        address
    }
}

/// Tasks that each report when they are done.
pub struct Done<T> {
    sender: UnboundedSender<T>,
    receiver: UnboundedReceiver<T>,
    started: usize,
}

impl<T> Default for Done<T> {
    fn default() -> Self {
        let (sender, receiver) = unbounded_channel();
        Self { sender, receiver, started: 0 }
    }
}

impl<T: Send + 'static> Done<T> {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts one more.
    pub fn start(&mut self, runtime: &impl Runtime, task: impl Future<Output = T> + Send + 'static) {
        let sender = self.sender.clone();
        self.started += 1;
        runtime.spawn(async move {
            let _nobody_asks = sender.send(task.await);
        });
    }

    /// Waits for all of them, and gives their results in the order they came.
    pub async fn all(mut self) -> Vec<T> {
        let mut results = Vec::new();
        while results.len() < self.started {
            results.push(self.receiver.recv().await.unwrap());
        }
        results
    }
}
