//! The seam between the commands and the runtime that a binary is built on.

use std::future::Future;
use std::io;

use snocat_driver::Runtime;

/// A runtime, and how to start it. Each binary has one.
pub trait Launch {
    /// The binary's name, for `--help` and `--version`.
    const NAME: &'static str;

    /// The driver's view of the runtime.
    type Runtime: Runtime;

    /// Starts the runtime on `threads` threads (at least one) and completes the future that `main` makes.
    ///
    /// Tasks that are still running when it completes are dropped or left behind, never waited for.
    ///
    /// # Errors
    /// The system did not give the threads or the reactor that the runtime needs.
    fn block_on<F, M>(threads: usize, main: M) -> io::Result<F::Output>
    where
        F: Future,
        M: FnOnce(Self::Runtime) -> F;
}
