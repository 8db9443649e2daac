//! The threads that `snocat_smol::block_on` runs tasks on: all of them when there is much to do, and none of them
//! once it is over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future;
use snocat_smol::{Smol, block_on, driver::Runtime};

/// After this a test has failed that would otherwise hang.
const LONG: Duration = Duration::from_secs(60);

/// Yields until `done`. Returns whether that was in time.
async fn until(mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !done() && start.elapsed() < LONG {
        future::yield_now().await;
    }
    done()
}

#[test]
fn each_thread_helps_when_the_one_before_it_does_not_rest() {
    for threads in 0..=4 {
        let seen = Arc::new(Mutex::new(HashSet::new()));
        let wanted = threads.max(1);
        let main = |runtime: Smol| {
            let (done, finished) = mpsc::channel();
            for _ in 0..8 {
                let (seen, done) = (seen.clone(), done.clone());
                runtime.spawn(async move {
                    let all = until(|| {
                        let mut seen = seen.lock().unwrap();
                        seen.insert(thread::current().id());
                        seen.len() >= wanted
                    });
                    done.send(all.await).unwrap();
                });
            }
            async move { (0..8).all(|_| finished.recv().unwrap()) }
        };
        assert!(block_on(threads, main).unwrap(), "{wanted} threads");
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), wanted);
        assert!(!seen.contains(&thread::current().id()), "the caller's thread is for what it was given");
    }
}

#[test]
fn tasks_are_dropped_when_it_is_over() {
    for threads in 1..=3 {
        let held = Arc::new(());
        let main = async |runtime: Smol| {
            for _ in 0..4 {
                // One waits for ever, and one never does.
                let (idle, busy) = (held.clone(), held.clone());
                runtime.spawn(async move {
                    future::pending::<()>().await;
                    drop(idle);
                });
                runtime.spawn(async move {
                    while Arc::strong_count(&busy) > 0 {
                        future::yield_now().await;
                    }
                });
            }
        };
        block_on(threads, main).unwrap();
        let start = Instant::now();
        while Arc::strong_count(&held) > 1 && start.elapsed() < LONG {
            thread::yield_now();
        }
        assert_eq!(Arc::strong_count(&held), 1, "{threads} threads");
    }
}
