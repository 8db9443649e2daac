//! The one place that writes for people and programs: results to stdout, in plain words or as JSON, and the
//! rest to stderr.
//!
//! A command that serves writes both by threads of their own ([`Lines`]): no tunnel ever waits for a reader.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::net::SocketAddr;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use snocat_driver::core::AdmissionCounts;

use crate::error::Error;
use crate::lines::Lines;

/// How long the end of the process waits for a slow reader of stdout, and then for one of stderr.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How what is for stderr gets there, in a command that serves.
static STDERR: OnceLock<Lines> = OnceLock::new();

/// What a server or client tells about itself. The names and fields in JSON stay stable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The server takes tunnels.
    Listening {
        /// Where it listens, with the real port.
        quic: SocketAddr,
    },
    /// The client has had no answer of the server yet.
    Connecting {
        /// The server, as the client was told.
        driver: String,
        /// What was tried so far. Empty while the host's addresses are being looked up.
        addresses: Vec<SocketAddr>,
        /// When it began.
        since: SystemTime,
    },
    /// A tunnel is authenticated.
    TunnelUp {
        /// Its name.
        tunnel: String,
        /// The other side's address.
        remote: SocketAddr,
        /// The side that tells it.
        side: Side,
        /// The method by which the client has proven who it is.
        method: String,
        /// Who it is. Known to the server only, and not with every method.
        identity: Option<String>,
    },
    /// Connections to a port of the server reach a target.
    Bound {
        /// The tunnel's name.
        tunnel: String,
        /// Where visitors connect to on the server.
        addresses: Vec<SocketAddr>,
        /// The target, in plain words.
        target: String,
    },
    /// A tunnel has ended.
    TunnelDown {
        /// Its name.
        tunnel: String,
        /// Why.
        reason: String,
    },
    /// Strangers were asked to retry, ignored or turned away since this was told last. All counts are since the start.
    Strangers(AdmissionCounts),
    /// A file of the server cannot be read again. Told each minute.
    FileFailed {
        /// Which one.
        file: String,
        /// What is wrong with it.
        problem: String,
        /// What was read before still counts.
        in_force: bool,
    },
    /// A file that could not be read was read.
    FileRead {
        /// Which one.
        file: String,
    },
    /// Here lines are missing: nobody has read them in time.
    Dropped {
        /// How many.
        lines: u64,
    },
    /// The command has ended because it was asked to.
    Stopped,
    /// The command has failed. For programs alone: people read it on stderr.
    Failed {
        /// What went wrong, and what to do about it.
        error: String,
        /// The exit code.
        code: u8,
    },
}

/// Which side of a tunnel an event comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The listening side.
    Server,
    /// The connecting side.
    Client,
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { quic } => write!(formatter, "listening on {quic}"),
            Self::Connecting { driver, addresses, since } => {
                let since = rfc3339(*since);
                if addresses.is_empty() {
                    write!(formatter, "connecting to {driver}: looking for its addresses since {since}")
                } else {
                    let addresses = join(addresses);
                    write!(formatter, "connecting to {driver}: no answer from {addresses} since {since}")
                }
            }
            Self::TunnelUp { tunnel, remote, side, method, identity } => {
                let towards = match side {
                    Side::Server => "from",
                    Side::Client => "to",
                };
                write!(formatter, "tunnel {tunnel} is up ({towards} {remote}, {method}")?;
                match identity {
                    Some(identity) => write!(formatter, ", {identity})"),
                    None => formatter.write_str(")"),
                }
            }
            Self::Strangers(counts) => {
                let AdmissionCounts { admitted, retried, refused, strangers, .. } = counts;
                let ignored = counts.ignored_total + counts.ignored_source;
                write!(
                    formatter,
                    "strangers since the start: {admitted} let in, {retried} asked to retry, {ignored} ignored, \
                     {refused} turned away; {strangers} now"
                )
            }
            Self::Bound { tunnel, addresses, target } => {
                write!(formatter, "forwarding {} -> {tunnel} ({target})", join(addresses))
            }
            Self::TunnelDown { tunnel, reason } => {
                write!(formatter, "tunnel {tunnel} is down: {reason}")
            }
            Self::FileFailed { file: _, problem, in_force: _ } => formatter.write_str(problem),
            Self::FileRead { file } => write!(formatter, "read {file}"),
            Self::Dropped { lines: 1 } => {
                formatter.write_str("1 line was dropped here: it was not read in time")
            }
            Self::Dropped { lines } => {
                write!(formatter, "{lines} lines were dropped here: they were not read in time")
            }
            Self::Stopped => formatter.write_str("stopped"),
            Self::Failed { error, .. } => formatter.write_str(error),
        }
    }
}

impl Event {
    /// The event as one JSON object, as it happens now.
    pub fn to_json(&self) -> String {
        self.json_at(SystemTime::now())
    }

    /// The event as one JSON object: `event` first, then `time`.
    fn json_at(&self, at: SystemTime) -> String {
        let text = |text: &String| Value::from(text.as_str());
        let (name, fields) = match self {
            Self::Listening { quic } => ("listening", vec![("quic", Value::from(quic.to_string()))]),
            Self::Connecting { driver, addresses, since } => {
                let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
                (
                    "connecting",
                    vec![
                        ("driver", text(driver)),
                        ("addresses", Value::from(addresses)),
                        ("since", Value::from(rfc3339(*since))),
                    ],
                )
            }
            Self::TunnelUp { tunnel, remote, side: _, method, identity } => (
                "tunnel-up",
                vec![
                    ("tunnel", text(tunnel)),
                    ("remote", Value::from(remote.to_string())),
                    ("method", text(method)),
                    ("identity", identity.as_ref().map_or(Value::Null, text)),
                ],
            ),
            Self::Strangers(counts) => (
                "strangers",
                vec![
                    ("admitted", Value::from(counts.admitted)),
                    ("authenticated", Value::from(counts.authenticated)),
                    ("retried", Value::from(counts.retried)),
                    ("ignored_total", Value::from(counts.ignored_total)),
                    ("ignored_source", Value::from(counts.ignored_source)),
                    ("refused", Value::from(counts.refused)),
                    ("now", Value::from(counts.strangers)),
                    ("peak", Value::from(counts.peak)),
                ],
            ),
            Self::Bound { tunnel, addresses, target } => {
                let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
                (
                    "bound",
                    vec![
                        ("tunnel", text(tunnel)),
                        ("addresses", Value::from(addresses)),
                        ("target", text(target)),
                    ],
                )
            }
            Self::TunnelDown { tunnel, reason } => {
                ("tunnel-down", vec![("tunnel", text(tunnel)), ("reason", text(reason))])
            }
            Self::FileFailed { file, problem, in_force } => (
                "file-failed",
                vec![("file", text(file)), ("problem", text(problem)), ("in_force", Value::from(*in_force))],
            ),
            Self::FileRead { file } => ("file-read", vec![("file", text(file))]),
            Self::Dropped { lines } => ("dropped", vec![("lines", Value::from(*lines))]),
            Self::Stopped => ("stopped", vec![]),
            Self::Failed { error, code } => {
                ("failed", vec![("error", text(error)), ("code", Value::from(*code))])
            }
        };
        let mut json = format!(r#"{{"event":"{name}","time":"{}""#, rfc3339_millis(at));
        for (key, value) in fields {
            json.push_str(&format!(r#","{key}":{value}"#));
        }
        json.push('}');
        json
    }
}

/// A time as RFC 3339 has it, in UTC and whole seconds.
fn rfc3339(time: SystemTime) -> String {
    let utc = time::UtcDateTime::from(time);
    let (year, month, day) = utc.to_calendar_date();
    let (hour, minute, second) = utc.as_hms();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The same with milliseconds: events come close together.
fn rfc3339_millis(time: SystemTime) -> String {
    let seconds = rfc3339(time);
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), time::UtcDateTime::from(time).millisecond())
}

fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Where a running command tells its events. Clones share one stdout.
#[derive(Clone, Debug)]
pub struct Output {
    lines: Lines,
    json: bool,
}

impl Output {
    /// Events go to stdout, with `json` one JSON object a line, else in plain words.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn stdout(json: bool) -> io::Result<Self> {
        let dropped = move |lines| text(&Event::Dropped { lines }, json);
        Ok(Self { lines: Lines::start("stdout", || Ok(Stdout { failed: false }), dropped)?, json })
    }

    /// Tells an event. Never waits.
    pub fn event(&self, event: &Event) {
        if let (Event::Connecting { .. }, false) = (event, self.json) {
            // How it goes on is no result: people find it on stderr.
            return note(text(event, self.json));
        }
        self.lines.leave((text(event, self.json) + "\n").as_bytes());
    }

    /// Tells an event to programs only: people are told on stderr.
    pub fn event_for_programs(&self, event: &Event) {
        if self.json {
            self.event(event);
        }
    }

    /// Tells programs that the command has failed. People read it on stderr.
    pub fn failure(&self, error: &Error) {
        self.event_for_programs(&Event::Failed { error: error.to_string(), code: error.code() });
    }

    /// Tells something to people only: with `--json` it is left out.
    pub fn say(&self, line: impl fmt::Display) {
        if !self.json {
            self.lines.leave(format!("{line}\n").as_bytes());
        }
    }

    /// Waits until what was told is written, but not for a reader that does not read.
    pub fn flush(&self) {
        self.lines.flush(LAST_WORDS);
    }
}

/// stdout, which says once that it takes nothing: a reader that went away is no reason to end the tunnels.
struct Stdout {
    failed: bool,
}

impl Stdout {
    fn tell<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| {
            let passing = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            if !passing && !mem::replace(&mut self.failed, true) {
                tracing::warn!("cannot write to stdout: {error}; events are lost");
            }
        })
    }
}

impl Write for Stdout {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let written = io::stdout().write(lines);
        self.tell(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = io::stdout().flush();
        self.tell(flushed)
    }
}

/// The line for an event, without its end.
fn text(event: &Event, json: bool) -> String {
    if json { event.to_json() } else { one_line(&event.to_string()) }
}

/// From here on nobody waits for a reader of stderr: neither the log, nor a warning, nor a panic.
///
/// # Errors
/// The system gives no thread.
pub fn detach_stderr() -> io::Result<()> {
    let dropped = |lines| labelled("warning", YELLOW, Event::Dropped { lines });
    let lines = Lines::start("stderr", || Ok(io::stderr()), dropped)?;
    if STDERR.set(lines).is_ok() {
        // The standard one writes to stderr itself.
        panic::set_hook(Box::new(tell_of_panic));
    }
    Ok(())
}

fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    let _ = write_line(&mut Stderr, &format!("thread {name} {panic}{backtrace}"));
    // What this thread does not survive, the process does not.
    if name == "main" {
        flush_stderr();
    }
}

/// Waits until what is for stderr is written, but not for a reader that does not read.
pub fn flush_stderr() {
    if let Some(lines) = STDERR.get() {
        lines.flush(LAST_WORDS);
    }
}

/// stderr, for whole lines: in a command that serves, nobody waits for it.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        match STDERR.get() {
            Some(stderr) => stderr.leave(lines),
            None => io::stderr().write_all(lines)?,
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a command's result to stdout.
///
/// # Errors
/// Stdout does not take it: a full disk, a closed pipe.
pub fn result(line: &str) -> Result<(), Error> {
    write_line(&mut io::stdout(), line).map_err(|error| cannot_write(&error))
}

/// That stdout did not take a result.
pub fn cannot_write(error: &io::Error) -> Error {
    Error::failed(format_args!("cannot write to stdout: {error}"), "check where it is redirected to")
}

/// A line on stderr about how the command went on, which is neither result nor problem.
pub fn note(line: impl fmt::Display) {
    let _ = write_line(&mut Stderr, &format!("{line}"));
}

/// A line on stderr about something that is probably not meant.
pub fn warning(line: impl fmt::Display) {
    let _ = write_line(&mut Stderr, &labelled("warning", YELLOW, line));
}

/// The line on stderr with which a command fails.
pub fn error(error: &Error) {
    let _ = write_line(&mut Stderr, &labelled("error", RED, error));
}

/// Whether stderr takes colours: a terminal whose user did not opt out (<https://no-color.org>).
pub fn stderr_takes_colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

const YELLOW: &str = "\x1b[1;33m";
const RED: &str = "\x1b[1;31m";

fn labelled(label: &str, style: &str, line: impl fmt::Display) -> String {
    let line = one_line(&line.to_string());
    if stderr_takes_colours() { format!("{style}{label}:\x1b[0m {line}") } else { format!("{label}: {line}") }
}

/// The text with control characters escaped: part of it may be a peer's, or the name of a file.
fn one_line(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// One line in one write: lines of several threads do not mix.
fn write_line(to: &mut impl Write, line: &str) -> io::Result<()> {
    to.write_all(format!("{line}\n").as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<Event> {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        vec![
            Event::Listening { quic: address("127.0.0.1:9090") },
            Event::Connecting {
                driver: "localhost:9090".into(),
                addresses: vec![address("[::1]:9090"), address("127.0.0.1:9090")],
                since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            },
            Event::Connecting {
                driver: "localhost:9090".into(),
                addresses: Vec::new(),
                since: SystemTime::UNIX_EPOCH,
            },
            Event::TunnelUp {
                tunnel: "web".into(),
                remote: address("127.0.0.1:5555"),
                side: Side::Server,
                method: "ed25519".into(),
                identity: Some("alice".into()),
            },
            Event::TunnelUp {
                tunnel: "web".into(),
                remote: address("[::1]:9090"),
                side: Side::Client,
                method: "none".into(),
                identity: None,
            },
            Event::Bound {
                tunnel: "web".into(),
                addresses: vec![address("127.0.0.1:8080"), address("[::1]:8080")],
                target: "127.0.0.1:3000".into(),
            },
            Event::TunnelDown { tunnel: "web".into(), reason: "a \"quoted\"\nreason".into() },
            Event::Strangers(strangers()),
            Event::FileFailed { file: "keys".into(), problem: "keys is a pipe".into(), in_force: true },
            Event::FileRead { file: "keys".into() },
            Event::Dropped { lines: 1 },
            Event::Dropped { lines: 3 },
            Event::Stopped,
            Event::Failed { error: "the sky fell; look up".into(), code: 1 },
        ]
    }

    fn strangers() -> AdmissionCounts {
        let mut counts = AdmissionCounts::default();
        (counts.admitted, counts.authenticated, counts.retried, counts.refused) = (9, 4, 3, 2);
        (counts.ignored_total, counts.ignored_source, counts.strangers, counts.peak) = (5, 6, 1, 7);
        counts
    }

    #[test]
    fn plain_words() {
        let lines: Vec<_> = events().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "listening on 127.0.0.1:9090",
                "connecting to localhost:9090: no answer from [::1]:9090, 127.0.0.1:9090 since 2027-01-15T08:00:00Z",
                "connecting to localhost:9090: looking for its addresses since 1970-01-01T00:00:00Z",
                "tunnel web is up (from 127.0.0.1:5555, ed25519, alice)",
                "tunnel web is up (to [::1]:9090, none)",
                "forwarding 127.0.0.1:8080, [::1]:8080 -> web (127.0.0.1:3000)",
                "tunnel web is down: a \"quoted\"\nreason",
                "strangers since the start: 9 let in, 3 asked to retry, 11 ignored, 2 turned away; 1 now",
                "keys is a pipe",
                "read keys",
                "1 line was dropped here: it was not read in time",
                "3 lines were dropped here: they were not read in time",
                "stopped",
                "the sky fell; look up",
            ]
        );
    }

    #[test]
    fn nothing_breaks_a_line_or_drives_a_terminal() {
        assert_eq!(one_line("a\nb\x1b[2Jc\u{9b}ö"), r"a\nb\u{1b}[2Jc\u{9b}ö");
    }

    #[test]
    fn json_is_one_object_a_line_with_stable_names() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_801_396_800_007);
        let lines: Vec<_> = events().iter().map(|event| event.json_at(at)).collect();
        let time = r#","time":"2027-01-31T12:00:00.007Z""#;
        assert_eq!(
            lines.iter().map(|line| line.replacen(time, "", 1)).collect::<Vec<_>>(),
            [
                r#"{"event":"listening","quic":"127.0.0.1:9090"}"#,
                r#"{"event":"connecting","driver":"localhost:9090","addresses":["[::1]:9090","127.0.0.1:9090"],"since":"2027-01-15T08:00:00Z"}"#,
                r#"{"event":"connecting","driver":"localhost:9090","addresses":[],"since":"1970-01-01T00:00:00Z"}"#,
                r#"{"event":"tunnel-up","tunnel":"web","remote":"127.0.0.1:5555","method":"ed25519","identity":"alice"}"#,
                r#"{"event":"tunnel-up","tunnel":"web","remote":"[::1]:9090","method":"none","identity":null}"#,
                r#"{"event":"bound","tunnel":"web","addresses":["127.0.0.1:8080","[::1]:8080"],"target":"127.0.0.1:3000"}"#,
                r#"{"event":"tunnel-down","tunnel":"web","reason":"a \"quoted\"\nreason"}"#,
                r#"{"event":"strangers","admitted":9,"authenticated":4,"retried":3,"ignored_total":5,"ignored_source":6,"refused":2,"now":1,"peak":7}"#,
                r#"{"event":"file-failed","file":"keys","problem":"keys is a pipe","in_force":true}"#,
                r#"{"event":"file-read","file":"keys"}"#,
                r#"{"event":"dropped","lines":1}"#,
                r#"{"event":"dropped","lines":3}"#,
                r#"{"event":"stopped"}"#,
                r#"{"event":"failed","error":"the sky fell; look up","code":1}"#,
            ]
        );
        for line in lines {
            assert!(line.contains(time), "{line}");
            assert!(serde_json::from_str::<Value>(&line).unwrap().is_object());
            assert!(!line.contains('\n'));
        }
    }
}
