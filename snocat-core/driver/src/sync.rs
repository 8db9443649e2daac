//! Two things that everything in here shares: a lock that cannot be poisoned, and lists of tasks that wait.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Waker};

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

/// Tasks that wait for one thing. All of them are woken, and look for themselves.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Vec<Waker>);

impl Waiters {
    pub(crate) fn register(&mut self, context: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(context.waker())) {
            self.0.push(context.waker().clone());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Moves the waiting tasks to those that are woken once the lock is released.
    pub(crate) fn release(&mut self, woken: &mut Vec<Waker>) {
        woken.append(&mut self.0);
    }
}

/// Keeps the waker of the one task that waits in this place.
pub(crate) fn store(place: &mut Option<Waker>, context: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(context.waker()),
        None => *place = Some(context.waker().clone()),
    }
}
