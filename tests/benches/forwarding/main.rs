//! What forwarding costs, beside what it could cost at best: direct TCP, a plain relay, raw quinn, and snocat on both
//! runtimes, in one run. `docs/Performance.md` says how to run it and how to read it.
//!
//! This process only directs and counts. Every party is a process of its own: snocat's are the release binaries, all
//! the others are this executable again, in a role (`--role NAME …`, see [`role`]).
//!
//! From the outside in: [`rounds`] says in which order every [`measure`] is taken; [`traffic`], [`neighbours`], [`memory`] and
//! [`ten_thousand`] how, on a [`system`] that runs in a [`place`]. What is found goes into [`results`], from there into a
//! [`table`] or [`json`], and is held against the [`bars`]. What a bad network does is a chapter of its own: [`path`].

mod bars;
mod json;
mod keeper;
mod load;
mod measure;
mod memory;
mod neighbours;
mod options;
mod party;
mod path;
mod place;
mod process;
mod quic;
mod relay;
mod results;
mod role;
mod rounds;
mod steady;
mod system;
mod table;
mod target;
mod ten_thousand;
mod traffic;
mod tunnels;

use std::process::ExitCode;

use clap::Parser;

use crate::options::Options;

/// Whatever goes wrong ends the benchmark, with a sentence.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let done = match arguments.next().as_deref() {
        Some(role::OPTION) => role::run(&arguments.collect::<Vec<_>>()),
        _ => run(&Options::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let report = rounds::run(options)?;
    if options.json {
        println!("{}", json::report(&report));
    } else {
        print!("{}", table::report(&report));
    }
    Ok(())
}
