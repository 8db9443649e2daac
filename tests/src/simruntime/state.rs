//! The simulation's state: tasks, timers, what happens when, and the loop that picks what is next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use snocat_driver::core::sim::{Chance, Host, Network, Rng};
use snocat_driver::{Direction, Icmp};

use super::sockets::Socket;
use super::{Machines, Trace};

/// Polls at one point of virtual time after which the tasks are said to spin.
const SPIN: u32 = 50_000;
/// The number of the future that [`Simulation::run`](super::Simulation::run) was given.
pub(super) const MAIN: u64 = 0;

pub(super) struct Shared {
    state: Mutex<State>,
    /// Behind a lock of its own: tasks are woken while the state is locked.
    ready: Arc<Mutex<Ready>>,
    /// That of `main`.
    pub(super) main: Waker,
}

#[derive(Default)]
struct Ready {
    tasks: Vec<u64>,
    known: BTreeSet<u64>,
}

pub(super) struct TaskWaker {
    task: u64,
    ready: Arc<Mutex<Ready>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.known.insert(self.task) {
            ready.tasks.push(self.task);
        }
    }
}

pub(super) struct Task {
    name: &'static str,
    /// Not there while it is being polled.
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    waker: Waker,
    polls: u64,
    polled: Duration,
}

pub(super) enum Event {
    Timer(u64),
    /// A reactor notices what has become of a socket.
    Reactor(u64, Direction),
    /// So many bytes have left a UDP socket.
    Left(u64, usize),
}

#[derive(Default)]
pub(super) struct Timer {
    /// Where its event stands.
    event: Option<(Duration, u64)>,
    fired: bool,
    waker: Option<Waker>,
}

pub(super) struct State {
    base: Instant,
    pub(super) machines: Machines,
    pub(super) network: Network,
    /// Nothing gets through, and this is what ICMP says about it.
    pub(super) outage: Option<Icmp>,
    pub(super) rng: Rng,
    events: BTreeMap<(Duration, u64), Event>,
    pub(super) tasks: BTreeMap<u64, Task>,
    pub(super) timers: BTreeMap<u64, Timer>,
    pub(super) sockets: BTreeMap<u64, Socket>,
    /// Which socket is which host of the network: one socket is one host there.
    pub(super) hosts: BTreeMap<Host, u64>,
    /// Datagrams that each socket has sent.
    pub(super) sent: BTreeMap<u64, u64>,
    /// The last number that was given to anything.
    numbers: u64,
    hash: u64,
    polls: u64,
    still: u32,
}

pub(super) enum Next {
    Task(u64),
    Nothing(&'static str),
}

impl Shared {
    pub(super) fn new(seed: u64, machines: Machines, base: Instant) -> Arc<Self> {
        let mut rng = Rng::new(seed);
        let state = State {
            base,
            machines,
            network: Network::new(rng.draw()),
            outage: None,
            rng,
            events: BTreeMap::new(),
            tasks: BTreeMap::new(),
            timers: BTreeMap::new(),
            sockets: BTreeMap::new(),
            hosts: BTreeMap::new(),
            sent: BTreeMap::new(),
            numbers: MAIN,
            hash: 0,
            polls: 0,
            still: 0,
        };
        let ready: Arc<Mutex<Ready>> = Arc::default();
        let main = Waker::from(Arc::new(TaskWaker { task: MAIN, ready: ready.clone() }));
        Arc::new(Self { state: Mutex::new(state), ready, main })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.lock();
        let number = state.number();
        let waker = Waker::from(Arc::new(TaskWaker { task: number, ready: self.ready.clone() }));
        waker.wake_by_ref();
        let polled = state.elapsed();
        state.tasks.insert(number, Task { name, future: Some(Box::pin(future)), waker, polls: 0, polled });
    }

    /// The next task to poll; time passes when there is none.
    pub(super) fn next(&self, until: Duration) -> Next {
        let mut state = self.lock();
        loop {
            if let Some(task) = self.pick(&mut state.rng) {
                let now = state.elapsed();
                state.note(&[0, task, now.as_nanos() as u64]);
                state.polls += 1;
                state.still += 1;
                if state.still > SPIN {
                    return Next::Nothing("tasks wake each other without end while time stands still");
                }
                return Next::Task(task);
            }
            let event = state.events.first_key_value().map(|((at, _), _)| *at);
            let arrival = state.network.next_arrival();
            let Some(at) = event.into_iter().chain(arrival).min() else {
                return Next::Nothing("nothing will ever happen any more");
            };
            if at > until {
                return Next::Nothing("its time is over");
            }
            if at > state.elapsed() {
                state.still = 0;
                state.network.advance_to(at);
            }
            if event == Some(at) {
                state.happen();
            } else {
                state.arrive();
            }
        }
    }

    fn pick(&self, rng: &mut Rng) -> Option<u64> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.tasks.is_empty() {
            return None;
        }
        let index = rng.below(ready.tasks.len() as u64) as usize;
        let task = ready.tasks.swap_remove(index);
        ready.known.remove(&task);
        Some(task)
    }

    pub(super) fn poll(&self, number: u64) {
        let (mut future, waker) = {
            let mut state = self.lock();
            let now = state.elapsed();
            // It may have been woken once more before it was done.
            let Some(task) = state.tasks.get_mut(&number) else { return };
            task.polls += 1;
            task.polled = now;
            let Some(future) = task.future.take() else { return };
            (future, task.waker.clone())
        };
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            if let Some(task) = self.lock().tasks.get_mut(&number) {
                task.future = Some(future);
            }
            return;
        }
        // What it held is dropped first: that may need the state.
        drop(future);
        self.lock().tasks.remove(&number);
    }

    pub(super) fn tasks(&self) -> usize {
        self.lock().tasks.len()
    }

    /// All tasks, and what they wait for.
    pub(super) fn stuck(&self, why: &str) -> String {
        let state = self.lock();
        let mut text = format!("{why}, at {:?}. The tasks:\n", state.elapsed());
        let tasks = state.tasks.values().map(|task| {
            let polls = format!("{}, polled {} times, last at {:?}", task.name, task.polls, task.polled);
            (polls, &task.waker)
        });
        for (task, waker) in tasks.chain([("main".to_owned(), &self.main)]) {
            let _always_fits = writeln!(text, "- {task}");
            for waits in state.waits(waker) {
                let _always_fits = writeln!(text, "    waits for {waits}");
            }
        }
        text
    }

    pub(super) fn clear(&self) {
        let (tasks, sockets) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.tasks), std::mem::take(&mut state.sockets))
        };
        drop((tasks, sockets));
    }
}

impl State {
    pub(super) fn elapsed(&self) -> Duration {
        self.network.elapsed()
    }

    pub(super) fn now(&self) -> Instant {
        self.base + self.elapsed()
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Whether something happens that is allowed to, and rarely does.
    pub(super) fn whim(&mut self, per_mille: u32) -> bool {
        self.machines.whims && self.rng.happens(Chance::per_mille(per_mille))
    }

    /// A short time, as a reactor or a local network takes.
    pub(super) fn moment(&mut self) -> Duration {
        Duration::from_nanos(self.rng.below(60_000))
    }

    /// Takes something into the trace.
    pub(super) fn note(&mut self, words: &[u64]) {
        for word in words {
            self.hash = Rng::new(self.hash ^ word).draw();
        }
    }

    pub(super) fn schedule(&mut self, after: Duration, event: Event) -> (Duration, u64) {
        let at = (self.elapsed() + after, self.number());
        self.events.insert(at, event);
        at
    }

    fn happen(&mut self) {
        match self.events.pop_first() {
            Some((_, Event::Timer(timer))) => {
                if let Some(timer) = self.timers.get_mut(&timer) {
                    timer.event = None;
                    timer.fired = true;
                    timer.waker.take().into_iter().for_each(Waker::wake);
                }
            }
            Some((_, Event::Reactor(socket, direction))) => self.react(socket, direction),
            Some((_, Event::Left(socket, bytes))) => self.left_udp(socket, bytes),
            None => {}
        }
    }

    pub(super) fn reset_timer(&mut self, number: u64, deadline: Instant) {
        let mut after = deadline.saturating_duration_since(self.now());
        if self.whim(50) {
            // A timer may fire early.
            after = Duration::from_nanos(self.rng.below(after.as_nanos() as u64 + 1));
        }
        let event = self.schedule(after, Event::Timer(number));
        let timer = self.timers.entry(number).or_default();
        timer.fired = false;
        if let Some(before) = timer.event.replace(event) {
            self.events.remove(&before);
        }
    }

    /// Whether it has fired; if so, it is not set any more.
    pub(super) fn poll_timer(&mut self, number: u64, waker: &Waker) -> bool {
        let timer = self.timers.entry(number).or_default();
        timer.waker = Some(waker.clone());
        std::mem::take(&mut timer.fired)
    }

    pub(super) fn drop_timer(&mut self, number: u64) {
        if let Some(event) = self.timers.remove(&number).and_then(|timer| timer.event) {
            self.events.remove(&event);
        }
    }

    pub(super) fn left(&self) -> Vec<String> {
        let sockets = self.sockets.iter().map(|(number, socket)| format!("{number}: {}", socket.name()));
        let timers = self.timers.keys().map(|number| format!("{number}: a timer"));
        sockets.chain(timers).collect()
    }

    fn waits(&self, waker: &Waker) -> Vec<String> {
        let is = |other: &Option<Waker>| other.as_ref().is_some_and(|other| other.will_wake(waker));
        let timers = self.timers.values().filter(|timer| is(&timer.waker)).map(|timer| match timer.event {
            Some((at, _)) => format!("a timer that fires at {at:?}"),
            None => "a timer that is not set".to_owned(),
        });
        let sockets = self.sockets.iter().flat_map(|(number, socket)| {
            let directions = [Direction::Read, Direction::Write].into_iter();
            directions
                .filter(|direction| is(&socket.ready(*direction).waker))
                .map(move |direction| format!("{direction:?} of {number}: {}", socket.name()))
        });
        timers.chain(sockets).collect()
    }

    pub(super) fn trace(&self) -> Trace {
        let network = self.network.trace();
        let schedule = network.schedule.chunks_exact(8).fold(self.hash, |hash, word| {
            Rng::new(hash ^ word.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))).draw()
        });
        Trace { hash: schedule, polls: self.polls, elapsed: self.elapsed() }
    }
}
