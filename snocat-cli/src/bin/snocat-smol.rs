//! `snocat-smol`: the commands on smol.

use std::future::{Future, pending};
use std::process::ExitCode;
use std::sync::Arc;
use std::{io, thread};

use async_executor::Executor;
use snocat_cli::Launch;
use snocat_smol::Smol;

enum OnSmol {}

impl Launch for OnSmol {
    const NAME: &'static str = "snocat-smol";
    type Runtime = Smol;

    fn block_on<F: Future, M: FnOnce(Smol) -> F>(threads: usize, main: M) -> io::Result<F::Output> {
        let executor = Arc::new(Executor::new());
        for _ in 0..threads {
            let work = executor.clone();
            thread::Builder::new().spawn(move || async_io::block_on(work.run(pending::<()>())))?;
        }
        Ok(async_io::block_on(main(Smol::new(executor))))
    }
}

fn main() -> ExitCode {
    snocat_cli::main::<OnSmol>()
}
