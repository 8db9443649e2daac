//! `snocat-smol`: the commands on smol.

use std::future::Future;
use std::io;
use std::process::ExitCode;

use snocat_cli::Launch;
use snocat_smol::Smol;

enum OnSmol {}

impl Launch for OnSmol {
    const NAME: &'static str = "snocat-smol";
    type Runtime = Smol;

    fn block_on<F: Future, M: FnOnce(Smol) -> F>(threads: usize, main: M) -> io::Result<F::Output> {
        snocat_smol::block_on(threads, main)
    }
}

fn main() -> ExitCode {
    snocat_cli::main::<OnSmol>()
}
