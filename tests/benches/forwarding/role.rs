//! What this executable is when the benchmark starts it again.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::str::FromStr;

use crate::keeper::Keeper;
use crate::party::Party;
use crate::place::End;
use crate::{Result, keeper, load, path, quic, relay, target, tunnels};

/// What comes before the name of a role.
pub const OPTION: &str = "--role";

/// Plays the role that `arguments` begin with.
pub fn run(arguments: &[String]) -> Result<()> {
    let (name, rest) = arguments.split_first().ok_or("no role")?;
    let arguments = Arguments(rest);
    match name.as_str() {
        keeper::ROLE => keeper::run(),
        target::ROLE => target::run(&arguments),
        relay::ROLE => relay::run(&arguments),
        quic::SERVER => quic::server(&arguments),
        quic::CLIENT => quic::client(&arguments),
        load::ROLE => load::run(&arguments),
        path::program::ROLE => path::program::run(&arguments),
        tunnels::ROLE => tunnels::run(&arguments),
        _ => Err(format!("there is no role `{name}`").into()),
    }
}

/// Starts this executable in a role at one end of a place.
pub fn start(name: &str, arguments: &[&dyn ToString], end: &End, keeper: &Keeper) -> Result<Party> {
    let mut command = end.command(&std::env::current_exe()?);
    command.args([OPTION, name]).args(arguments.iter().map(|argument| argument.to_string()));
    Party::start(name, &mut command, keeper)
}

/// What a role was given.
pub struct Arguments<'a>(&'a [String]);

impl Arguments<'_> {
    /// One of them.
    pub fn get<T: FromStr<Err: std::fmt::Display>>(&self, number: usize) -> Result<T> {
        let text = self.0.get(number).ok_or_else(|| format!("argument {number} is missing"))?;
        text.parse().map_err(|error| format!("argument {number}, `{text}`: {error}").into())
    }

    /// One of them, milliseconds.
    pub fn time(&self, number: usize) -> Result<std::time::Duration> {
        Ok(std::time::Duration::from_millis(self.get(number)?))
    }
}

/// Says something to the benchmark.
pub fn say(line: impl std::fmt::Display) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// Waits for the benchmark to say something; `None` when it has ended.
pub fn hear() -> Result<Option<String>> {
    let mut line = String::new();
    let count = std::io::stdin().lock().read_line(&mut line)?;
    Ok((count > 0).then(|| line.trim_end().to_owned()))
}

/// The address in "listening ADDRESS".
pub fn listening(party: &mut Party) -> Result<SocketAddr> {
    let line = party.line(std::time::Duration::ZERO)?;
    let address = line.strip_prefix("listening ").and_then(|address| address.parse().ok());
    address.ok_or_else(|| format!("`{line}` is not where it listens").into())
}
