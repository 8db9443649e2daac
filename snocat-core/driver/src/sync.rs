//! Two things that everything in here shares: a lock that cannot be poisoned, and lists of tasks that wait.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};

/// Locks. State is consistent between any two statements that hold a guard, so a panic elsewhere in the
/// process is no reason to stop here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks, unless somebody else has.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Tasks that wait for one thing, in the order in which they began to.
///
/// Each has a key, and keeps its place when it is woken and has to wait again. Entering and leaving cost as much as a
/// look-up in a map, and waking costs only those that are woken.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    asleep: BTreeMap<Key, Waker>,
    next: u64,
    /// Keys that were given out: those that sleep, and those that were woken and have not left.
    given: usize,
}

/// Names one that waits. Never used again.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(u64);

impl Waiters {
    /// Has the task woken. It gets a key if it has none yet, with which it must [leave](Self::leave).
    pub(crate) fn enter(&mut self, key: &mut Option<Key>, context: &Context<'_>) {
        let key = *key.get_or_insert_with(|| {
            self.next += 1;
            self.given += 1;
            Key(self.next)
        });
        match self.asleep.get_mut(&key) {
            Some(waker) => waker.clone_from(context.waker()),
            None => drop(self.asleep.insert(key, context.waker().clone())),
        }
    }

    /// Forgets one that waits no longer. Returns whether it had been woken.
    pub(crate) fn leave(&mut self, key: Key) -> bool {
        self.given -= 1;
        self.asleep.remove(&key).is_none()
    }

    /// How many have not left.
    pub(crate) fn len(&self) -> usize {
        self.given
    }

    /// Whether this one has not been woken since it entered.
    pub(crate) fn is_asleep(&self, key: Key) -> bool {
        self.asleep.contains_key(&key)
    }

    /// Whether somebody has not been woken.
    pub(crate) fn any_asleep(&self) -> bool {
        !self.asleep.is_empty()
    }

    /// Moves the tasks of all to those that are woken once the lock is released.
    pub(crate) fn wake_all(&mut self, woken: &mut Vec<Waker>) {
        woken.extend(std::mem::take(&mut self.asleep).into_values());
    }

    /// The same with the one that has waited longest.
    pub(crate) fn wake_first(&mut self, woken: &mut Vec<Waker>) {
        woken.extend(self.asleep.pop_first().map(|(_, waker)| waker));
    }
}

/// What is looked at under a lock, and waited for.
pub(crate) trait Awaited {
    /// What the lock guards.
    type State;

    /// Looks at it.
    fn look<T>(&self, look: impl FnOnce(&mut Self::State) -> T) -> T;
}

impl<S> Awaited for Mutex<S> {
    type State = S;

    fn look<T>(&self, look: impl FnOnce(&mut S) -> T) -> T {
        look(&mut lock(self))
    }
}

/// Waits until `look` finds what it looks for. Meanwhile the task is among the `waiters`, whom whoever changes the state
/// wakes; it leaves them when it has found it, and when the future is dropped.
pub(crate) async fn wait<A: Awaited, T>(
    awaited: &A,
    waiters: impl Fn(&mut A::State) -> Option<&mut Waiters>,
    mut look: impl FnMut(&mut A::State) -> Option<T>,
) -> T {
    struct Place<'a, A: Awaited, W: Fn(&mut A::State) -> Option<&mut Waiters>> {
        awaited: &'a A,
        waiters: W,
        key: Option<Key>,
    }

    impl<A: Awaited, W: Fn(&mut A::State) -> Option<&mut Waiters>> Drop for Place<'_, A, W> {
        fn drop(&mut self) {
            if let Some(key) = self.key {
                self.awaited.look(|state| (self.waiters)(state).map(|waiters| waiters.leave(key)));
            }
        }
    }

    let mut place = Place { awaited, waiters, key: None };
    poll_fn(|context| {
        let Place { key, waiters, .. } = &mut place;
        awaited.look(|state| match look(state) {
            Some(found) => Poll::Ready(found),
            None => {
                if let Some(waiters) = waiters(state) {
                    waiters.enter(key, context);
                }
                Poll::Pending
            }
        })
    })
    .await
}

/// Keeps the waker of the one task that waits in this place.
pub(crate) fn store(place: &mut Option<Waker>, context: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(context.waker()),
        None => *place = Some(context.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[derive(Default)]
    struct Door {
        open: bool,
        waiters: Waiters,
    }

    fn passes(door: &Mutex<Door>) -> impl Future<Output = ()> {
        wait(door, |door| Some(&mut door.waiters), |door| door.open.then_some(()))
    }

    #[test]
    fn a_future_that_is_dropped_leaves_nothing_behind() {
        let door = Mutex::new(Door::default());
        let task = Arc::new(Woken::default());
        let waker = Waker::from(task.clone());
        for _ in 0..1000 {
            let mut future = pin!(passes(&door));
            for _ in 0..2 {
                assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                assert_eq!(lock(&door).waiters.len(), 1);
            }
        }
        assert_eq!(lock(&door).waiters.len(), 0);
        drop(waker);
        assert_eq!(Arc::strong_count(&task), 1);
    }

    #[test]
    fn everybody_is_woken_once_and_keeps_the_place() {
        let mut waiters = Waiters::default();
        let tasks = [(); 3].map(|()| Arc::new(Woken::default()));
        let wakers = tasks.clone().map(Waker::from);
        let mut keys = [None; 3];
        let mut enter = |waiters: &mut Waiters, index: usize| {
            waiters.enter(&mut keys[index], &Context::from_waker(&wakers[index]));
            keys[index].unwrap()
        };
        let [first, second, third] = [0, 1, 2].map(|index| enter(&mut waiters, index));
        let mut woken = Vec::new();
        waiters.wake_first(&mut woken);
        assert!(woken[0].will_wake(&wakers[0]) && !waiters.is_asleep(first));
        waiters.wake_all(&mut woken);
        woken.into_iter().for_each(Waker::wake);
        assert_eq!(tasks.each_ref().map(|task| task.count()), [1; 3]);
        // The last comes back first, and is still behind the one that was there before it.
        enter(&mut waiters, 2);
        enter(&mut waiters, 1);
        assert!(waiters.leave(first), "it was woken and does not come back");
        let mut woken = Vec::new();
        waiters.wake_first(&mut woken);
        assert!(woken[0].will_wake(&wakers[1]));
        assert!(waiters.leave(second));
        assert!(!waiters.leave(third));
        assert_eq!(waiters.len(), 0);
    }
}
