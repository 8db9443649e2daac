//! The `snocat` commands, from one source for every runtime: a binary brings its [`Launch`] and calls [`main`].
//!
//! stdout is for results and events, stderr for errors, warnings and the log; see [`args`] for the commands.

pub mod accept;
pub mod args;
pub mod cert;
pub mod client;
pub mod demo;
pub mod error;
pub mod expiry;
pub mod explain;
pub mod files;
pub mod keys;
pub mod launch;
pub mod limits;
pub mod log;
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
mod memory;
pub mod methods;
pub mod offer;
pub mod output;
pub mod page;
pub mod server;
pub mod signal;
pub mod state;
pub mod tls;
pub mod token;
pub mod values;
pub mod watch;

use std::future::Future;
use std::process::ExitCode;
use std::thread;

use clap::{CommandFactory, FromArgMatches};

use crate::args::{Arguments, Command};
use crate::error::Error;
pub use crate::launch::Launch;
use crate::output::Output;
use crate::signal::Stop;

/// Does what the command line says, on the runtime `L`, and returns the exit code: 0 done, 1 failed, 2 wrong
/// usage.
pub fn main<L: Launch>() -> ExitCode {
    let done = match parse(L::NAME) {
        Ok(arguments) => execute::<L>(arguments),
        // `--help` and `--version`, too.
        Err(error) => error.exit(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::from(error.code())
        }
    }
}

/// Reads the command line. What describes all commands is large, and gone when this is done.
fn parse(name: &'static str) -> Result<Arguments, clap::Error> {
    let mut command = Arguments::command().name(name);
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn execute<L: Launch>(arguments: Arguments) -> Result<(), Error> {
    match arguments.command {
        Command::Demo(demo) => {
            run::<L, _>(false, |runtime, output, stop| demo::run(runtime, demo, output, stop))
        }
        Command::Cert(cert) => cert::run(&cert),
        Command::Token(token) => token::run(&token),
        Command::Keygen(keygen) => keys::keygen::run(&keygen),
        Command::Server(server) => run::<L, _>(server.format.json, |runtime, output, stop| {
            server::run(runtime, server, output, stop)
        }),
        Command::Client(client) => run::<L, _>(client.format.json, |runtime, output, stop| {
            client::run(runtime, client, output, stop)
        }),
    }
}

/// Runs a command that opens connections: with a log, all the files it may have, signals, and a runtime.
fn run<L: Launch, F: Future<Output = Result<(), Error>>>(
    json: bool,
    command: impl FnOnce(L::Runtime, Output, Stop) -> F,
) -> Result<(), Error> {
    log::start()?;
    limits::raise_open_files();
    let cannot = |what: &str, error: &dyn std::error::Error| {
        Error::failed(format_args!("cannot {what}: {error}"), "the system may be short of threads or files")
    };
    let stop = Stop::on_signals().map_err(|error| cannot("handle signals", &error))?;
    let output = Output::stdout(json).map_err(|error| cannot("start", &error))?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let done = L::block_on(threads, |runtime| command(runtime, output.clone(), stop));
    output.flush();
    done.map_err(|error| cannot("start", &error))?
}
