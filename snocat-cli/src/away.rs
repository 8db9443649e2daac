//! Work that may hang, such as reading from a file system that is away: a thread of its own does it, and the tasks that
//! serve wait for the result only if they want to.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does one thing after the other. Clones share it.
#[derive(Clone, Debug)]
pub struct Away(SyncSender<Job>);

/// A result, and who waits for it.
struct Slot<T>(Mutex<(Option<T>, Option<Waker>)>);

impl Away {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives none.
    pub fn start() -> io::Result<Self> {
        // Behind a job that hangs one more may wait, which nobody waits for any more.
        let (jobs, waiting) = sync_channel::<Job>(1);
        thread::Builder::new()
            .name("files".into())
            .spawn(move || waiting.into_iter().for_each(|job| job()))?;
        Ok(Self(jobs))
    }

    /// What `work` returns. It is begun whether or not the future is awaited, and finished whether or not that is dropped.
    /// While other work hangs, the future waits for good: give it a time limit.
    pub fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        let slot = Arc::new(Slot(Mutex::new((None, None))));
        let result = slot.clone();
        // Full: the future then never completes.
        let _ = self.0.try_send(Box::new(move || slot.fill(work())));
        poll_fn(move |context| {
            let mut slot = result.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(result) = slot.0.take() {
                return Poll::Ready(result);
            }
            slot.1 = Some(context.waker().clone());
            Poll::Pending
        })
    }
}

impl<T> Slot<T> {
    fn fill(&self, result: T) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.0 = Some(result);
        let waker = slot.1.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn the_thread_does_the_work() {
        let away = Away::start().unwrap();
        for number in 0..3 {
            let name = away.ask(move || (number, thread::current().name().map(str::to_owned)));
            assert_eq!(future::block_on(name), (number, Some("files".to_owned())));
        }
    }

    #[test]
    fn what_hangs_is_left_alone_and_what_was_asked_meanwhile_does_not_pile_up() {
        let away = Away::start().unwrap();
        let (go_on, hangs) = channel::<()>();
        let (begins, begun) = channel();
        let stuck = away.ask(move || {
            begins.send(()).unwrap();
            hangs.recv()
        });
        begun.recv().unwrap();
        // One may wait behind it.
        away.0.try_send(Box::new(|| ())).unwrap();
        let (ran, runs) = channel();
        for number in 0..100 {
            let ran = ran.clone();
            drop(away.ask(move || ran.send(number)));
        }
        assert!(future::block_on(future::poll_once(stuck)).is_none());
        drop(go_on);
        drop(ran);
        assert_eq!(runs.iter().count(), 0);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while future::block_on(future::poll_once(away.ask(|| ()))).is_none() {
            assert!(std::time::Instant::now() < deadline, "it does not go on");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
