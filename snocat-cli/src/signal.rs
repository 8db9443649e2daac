//! Ctrl-C, SIGTERM and SIGHUP as a future. The first one asks for an orderly end, the second one does not ask.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// What shells expect of a program that Ctrl-C ended (128 + SIGINT).
const INTERRUPTED: i32 = 130;

/// The wish that the command comes to its end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    requested: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Stop {
    /// One that the process' signals request; a second signal ends the process at once.
    ///
    /// # Errors
    /// The system does not let this process handle signals, or it already does.
    pub fn on_signals() -> Result<Self, ctrlc::Error> {
        let stop = Self::default();
        let handler = stop.clone();
        ctrlc::set_handler(move || {
            if !handler.request() {
                std::process::exit(INTERRUPTED);
            }
        })?;
        Ok(stop)
    }

    /// Requests the end; `false` if somebody had done so before.
    pub fn request(&self) -> bool {
        let first = !self.0.requested.swap(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut *self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
        first
    }

    /// Completes as soon as the end is requested.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + '_ {
        poll_fn(|context| {
            // Registered first, asked second: a request in between is seen by one of the two.
            let mut wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            drop(wakers);
            if self.0.requested.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_request_completes_every_wait_before_and_after_it() {
        let stop = Stop::default();
        assert!(future::block_on(future::poll_once(stop.requested())).is_none());
        let waits: Vec<_> = (0..3)
            .map(|_| {
                let stop = stop.clone();
                thread::spawn(move || future::block_on(stop.requested()))
            })
            .collect();
        thread::sleep(Duration::from_millis(20));
        assert!(stop.request());
        for wait in waits {
            wait.join().unwrap();
        }
        future::block_on(stop.requested());
        assert!(!stop.request(), "only the first request is the first");
    }
}
