//! Threads that run an executor, so that a message is not handed from thread to thread.
//!
//! Where each of several threads runs `async_io::block_on(executor.run(…))`, one of them waits for readiness and
//! another runs the task that became ready: each message wakes a thread, and that takes longer than what is to be
//! done. Here one thread, the first, both waits and runs. The others sleep until there is more to do than it can.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::{self, Builder, Thread};

use async_channel::{Receiver, Sender};
use async_executor::Executor;
use futures_lite::future;

use crate::runtime::Smol;

/// Tasks that a thread runs without a rest before it wakes the next one. A message is over after two or three.
const BUSY: usize = 8;
/// Tasks without a rest before the first thread looks at the sockets: seldom enough that a look finds several, and often enough
/// that a quiet tunnel does not wait for long.
const LOOK: usize = 4 * BUSY;

/// Runs tasks on `threads` threads (0 counts as 1), and `main` on the caller's, until `main` completes.
///
/// A message through a tunnel takes half as long as where each of several threads runs an executor. A task must not
/// hold its thread, as on any executor; here those that become ready meanwhile wait for it. `main` may hold the
/// caller's. Tasks that still run when it completes are not waited for: each is dropped after its current turn.
///
/// # Errors
/// The system did not give the threads.
pub fn block_on<F: Future>(threads: usize, main: impl FnOnce(Smol) -> F) -> io::Result<F::Output> {
    let workers = Workers::start(threads)?;
    Ok(future::block_on(main(Smol::new(workers.executor.clone()))))
}

/// The threads. They end when this is dropped.
struct Workers {
    executor: Arc<Executor<'static>>,
    /// Closed when the threads are to end.
    over: Sender<()>,
    /// The thread that the first one wakes. Each of the others has the one after it.
    next: Option<Thread>,
}

impl Workers {
    fn start(threads: usize) -> io::Result<Self> {
        let (over, ended) = async_channel::bounded(1);
        let mut workers = Self { executor: Arc::new(Executor::new()), over, next: None };
        // The last one first: each needs to know the next.
        for _ in 1..threads {
            let worker = workers.worker(&ended);
            workers.next = Some(Builder::new().spawn(move || worker.help())?.thread().clone());
        }
        let first = workers.worker(&ended);
        Builder::new().spawn(move || async_io::block_on(first.lead()))?;
        Ok(workers)
    }

    fn worker(&self, ended: &Receiver<()>) -> Worker {
        Worker { executor: self.executor.clone(), ended: ended.clone(), next: self.next.clone() }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.over.close();
        self.next.iter().for_each(Thread::unpark);
    }
}

/// One of the threads.
struct Worker {
    executor: Arc<Executor<'static>>,
    ended: Receiver<()>,
    next: Option<Thread>,
}

impl Worker {
    /// The first thread: waits for tasks, and for readiness meanwhile.
    ///
    /// Only it waits at the executor, so it is woken for whatever becomes ready while it waits, and finds what became
    /// ready before. No task depends on the others being woken.
    async fn lead(self) {
        let work = async {
            loop {
                self.executor.tick().await;
                // Who does not rest does not wait for readiness, either: yielding has it looked at.
                while self.run() {
                    future::yield_now().await;
                }
            }
        };
        let ended = async {
            let _closed = self.ended.recv().await;
        };
        future::or(ended, work).await;
    }

    /// The other threads: run what is ready whenever the one before them does not rest.
    fn help(self) {
        while !self.ended.is_closed() {
            if !self.run() {
                thread::park();
            }
        }
        self.wake_next();
    }

    /// Runs tasks until none is ready, or for long. Returns whether one may be ready.
    fn run(&self) -> bool {
        for ran in 1..=LOOK {
            if !self.executor.try_tick() {
                return false;
            }
            if ran % BUSY == 0 {
                self.wake_next();
            }
        }
        true
    }

    fn wake_next(&self) {
        self.next.iter().for_each(Thread::unpark);
    }
}
