//! The `snocat` commands, from one source for every runtime: a binary brings its [`Launch`] and calls [`main`].
//!
//! stdout is for results and events, stderr for errors, warnings and the log; see [`args`] for the commands.

pub mod accept;
#[cfg(unix)]
pub mod access;
pub mod args;
pub mod away;
pub mod cert;
pub mod client;
pub mod demo;
pub mod error;
pub mod expiry;
pub mod explain;
pub mod files;
pub mod keylog;
pub mod keys;
pub mod launch;
pub mod limits;
pub mod lines;
pub mod log;
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
mod memory;
pub mod methods;
pub mod offer;
pub mod output;
pub mod page;
pub mod server;
pub mod signal;
pub mod similar;
pub mod source;
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
use crate::signal::Signals;

/// Does what the command line says, on the runtime `L`, and returns the exit code: 0 done, 1 failed, 2 wrong
/// usage.
pub fn main<L: Launch>() -> ExitCode {
    let done = match parse(L::NAME) {
        Ok(arguments) => execute::<L>(arguments),
        // `--help` and `--version`, too.
        Err(error) => return show(&error),
    };
    match done {
        Ok(()) => {
            output::flush_stderr();
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::error(&error);
            output::flush_stderr();
            ExitCode::from(error.code())
        }
    }
}

/// Prints what the command line comes to without a command: help, a version, or what is wrong with it.
fn show(error: &clap::Error) -> ExitCode {
    match (error.print(), error.use_stderr()) {
        // A pager that was closed has shown what was wanted.
        (Err(io), false) if io.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        (Err(io), false) => {
            let error = output::cannot_write(&io);
            output::error(&error);
            ExitCode::from(error.code())
        }
        _ => u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}

/// The command with texts in which the program is called `name`.
fn called(mut command: clap::Command, name: &'static str) -> clap::Command {
    const WRITTEN: &str = "snocat ";
    if name == WRITTEN.trim_end() {
        return command;
    }
    let rename = |text: &clap::builder::StyledStr| text.to_string().replace(WRITTEN, &format!("{name} "));
    let texts = [command.get_about(), command.get_long_about(), command.get_after_help()];
    let [about, long_about, after_help] = texts.map(|text| text.map(rename));
    let after_long_help = command.get_after_long_help().map(rename);
    if let Some(text) = about {
        command = command.about(text);
    }
    if let Some(text) = long_about {
        command = command.long_about(text);
    }
    if let Some(text) = after_help {
        command = command.after_help(text);
    }
    if let Some(text) = after_long_help {
        command = command.after_long_help(text);
    }
    command
        .mut_args(|arg| {
            let (help, long_help) = (arg.get_help().map(rename), arg.get_long_help().map(rename));
            let arg = help.into_iter().fold(arg, clap::Arg::help);
            long_help.into_iter().fold(arg, clap::Arg::long_help)
        })
        .mut_subcommands(|command| called(command, name))
}

/// Reads the command line. What describes all commands is large, and gone when this is done.
fn parse(name: &'static str) -> Result<Arguments, clap::Error> {
    let mut command = called(Arguments::command().name(name), name);
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn execute<L: Launch>(arguments: Arguments) -> Result<(), Error> {
    match arguments.command {
        Command::Demo(demo) => {
            run::<L, _>(false, |runtime, output, signals| demo::run(runtime, demo, output, signals))
        }
        Command::Cert(cert) => cert::run(&cert),
        Command::Token(token) => token::run(&token),
        Command::Keygen(keygen) => keys::keygen::run(&keygen),
        Command::Server(server) => run::<L, _>(server.format.json, |runtime, output, signals| {
            server::run(runtime, server, output, signals)
        }),
        Command::Client(client) => run::<L, _>(client.format.json, |runtime, output, signals| {
            client::run(runtime, client, output, signals)
        }),
    }
}

/// Runs a command that opens connections: with a log, all the files it may have, signals, and a runtime.
fn run<L: Launch, F: Future<Output = Result<(), Error>>>(
    json: bool,
    command: impl FnOnce(L::Runtime, Output, Signals) -> F,
) -> Result<(), Error> {
    let cannot = |what: &str, error: &dyn std::error::Error| {
        Error::failed(format_args!("cannot {what}: {error}"), "the system may be short of threads or files")
    };
    output::detach_stderr().map_err(|error| cannot("start", &error))?;
    // Whatever fails from here on is told there, too.
    let output = Output::stdout(json).map_err(|error| cannot("start", &error))?;
    let done = log::start().and_then(|()| {
        limits::raise_open_files();
        let signals = Signals::listen().map_err(|error| cannot("handle signals", &error))?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let done = L::block_on(threads, |runtime| command(runtime, output.clone(), signals));
        done.map_err(|error| cannot("start", &error))?
    });
    if let Err(error) = &done {
        output.failure(error);
    }
    output.flush();
    keylog::flush();
    done
}
