//! `snocat`: the commands on tokio.

use std::future::Future;
use std::io;
use std::process::ExitCode;

use snocat_cli::Launch;
use snocat_tokio::Tokio;

/// Turns of tasks until a worker looks for news from the sockets. A turn of a busy tunnel takes up to half a millisecond: with
/// tokio's 61 a quiet one would wait for its next byte as long as 30 ms.
const TURNS: u32 = 4;

enum OnTokio {}

impl Launch for OnTokio {
    const NAME: &'static str = "snocat";
    type Runtime = Tokio;

    fn block_on<F: Future, M: FnOnce(Tokio) -> F>(threads: usize, main: M) -> io::Result<F::Output> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .event_interval(TURNS)
            .enable_all()
            .build()?;
        let output = runtime.block_on(main(runtime.handle().clone().into()));
        // A name that is still being looked up must not hold up the end.
        runtime.shutdown_background();
        Ok(output)
    }
}

fn main() -> ExitCode {
    snocat_cli::main::<OnTokio>()
}
