//! The signals of the process: Ctrl-C and SIGTERM ask for an orderly end, SIGHUP asks to read files again. A second wish for
//! the end does not ask.
//!
//! A signal that was ignored when the process started stays ignored: `nohup` does that with SIGHUP, and a shell
//! without job control with the SIGINT of its background jobs. Only Linux tells without unsafe code which these are;
//! elsewhere SIGINT ends the process and SIGHUP rereads files all the same.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use futures_lite::future;

/// What a running command learns from signals.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// The wish that the command comes to its end.
    pub stop: Stop,
    /// The wish that it reads its files again.
    pub reread: Reread,
}

/// The wish that files are read again.
#[derive(Clone, Debug, Default)]
pub struct Reread(Arc<Shared>);

/// The wish that the command comes to its end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    requested: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Signals {
    /// Those of the process, from now on.
    ///
    /// # Errors
    /// The system does not let this process handle signals, or it already does.
    pub fn listen() -> io::Result<Self> {
        let signals = Self::default();
        listen(signals.clone())?;
        Ok(signals)
    }
}

#[cfg(unix)]
fn listen(wishes: Signals) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let ignored = ignored();
    let handled = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !ignored.contains(*signal));
    let mut signals = signal_hook::iterator::Signals::new(handled)?;
    let work = move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                wishes.reread.request();
            } else if !wishes.stop.request() {
                // What shells expect of a program that a signal ended.
                std::process::exit(128 + signal);
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(work)?;
    Ok(())
}

#[cfg(not(unix))]
fn listen(wishes: Signals) -> io::Result<()> {
    /// What shells expect of a program that Ctrl-C ended.
    const INTERRUPTED: i32 = 130;
    ctrlc::set_handler(move || {
        if !wishes.stop.request() {
            std::process::exit(INTERRUPTED);
        }
    })
    .map_err(io::Error::other)
}

/// A set of signals.
#[cfg(unix)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Set(u64);

#[cfg(unix)]
impl Set {
    fn contains(self, signal: i32) -> bool {
        let bit = u32::try_from(signal - 1).ok().and_then(|bit| 1_u64.checked_shl(bit));
        bit.is_some_and(|bit| self.0 & bit != 0)
    }

    /// The set of ignored signals in what Linux says about a process (proc_pid_status(5)).
    fn ignored_in(status: &str) -> Option<Self> {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        // Some systems have more signals than fit. The ones that count here are the last digits.
        let mask = mask.trim();
        let digits = mask.get(mask.len().saturating_sub(16)..)?;
        u64::from_str_radix(digits, 16).ok().map(Self)
    }
}

/// The signals that are ignored now.
#[cfg(unix)]
fn ignored() -> Set {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    Set::ignored_in(&status).unwrap_or_default()
}

impl Shared {
    /// Says whether nobody had requested it before.
    fn request(&self) -> bool {
        let first = !self.requested.swap(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
        first
    }

    /// Completes as soon as `is` finds that it is requested.
    fn wait<'a>(
        &'a self,
        is: impl Fn(&AtomicBool) -> bool + Send + 'a,
    ) -> impl Future<Output = ()> + Send + 'a {
        poll_fn(move |context| {
            // Registered first, asked second: a request in between is seen by one of the two.
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            drop(wakers);
            if is(&self.requested) { Poll::Ready(()) } else { Poll::Pending }
        })
    }
}

impl Stop {
    /// Requests the end; `false` if somebody had done so before.
    pub fn request(&self) -> bool {
        self.0.request()
    }

    /// Completes as soon as the end is requested.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + '_ {
        self.0.wait(|requested| requested.load(Ordering::SeqCst))
    }

    /// What `work` comes to, or `None` as soon as the end is requested.
    pub async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            self.requested().await;
            None
        };
        future::or(stopped, async { Some(work.await) }).await
    }
}

impl Reread {
    /// Requests it. Several requests before it is done are one.
    pub fn request(&self) {
        self.0.request();
    }

    /// Completes as soon as it is requested, once for each request.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + '_ {
        self.0.wait(|requested| requested.swap(false, Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn a_wish_to_read_again_is_fulfilled_once() {
        let reread = Reread::default();
        let wanted = || future::block_on(future::poll_once(reread.requested())).is_some();
        assert!(!wanted());
        reread.request();
        reread.request();
        assert!(wanted());
        assert!(!wanted());
        reread.request();
        assert!(wanted());
    }

    #[test]
    #[cfg(unix)]
    fn the_ignored_signals_of_a_process() {
        let status = "Name:\tsnocat\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        let ignored = Set::ignored_in(status).unwrap();
        assert_eq!((ignored.contains(1), ignored.contains(2), ignored.contains(13)), (true, false, true));
        assert!(!ignored.contains(0) && !ignored.contains(65) && !ignored.contains(-1));
        let wide = "SigIgn:\t00000000000000000000000000000002";
        assert_eq!(Set::ignored_in(wide), Some(Set(2)));
        for nothing in
            ["", "SigIgn:\tx", "SigIgn:", "SigIgn:\t\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}x"]
        {
            assert_eq!(Set::ignored_in(nothing), None);
        }
        // Rust's own start sees to it that this one is.
        #[cfg(target_os = "linux")]
        assert!(super::ignored().contains(signal_hook::consts::SIGPIPE));
    }
}
