//! Runs the built binaries: with a time limit on everything, and ending only what it started.

#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test a surprise is a failure")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// More than anything here should take, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The binaries that were built. Cargo names the others, too.
pub(crate) fn binaries() -> Vec<&'static str> {
    [
        #[cfg(feature = "tokio")]
        env!("CARGO_BIN_EXE_snocat"),
        #[cfg(feature = "smol")]
        env!("CARGO_BIN_EXE_snocat-smol"),
    ]
    .to_vec()
}

/// A binary where it does not matter which.
pub(crate) fn binary() -> &'static str {
    binaries().first().unwrap()
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// What was left of stdout.
    pub(crate) stdout: String,
    /// All of stderr.
    pub(crate) stderr: String,
}

impl Ended {
    /// The names of the events that were left on stdout, without those that only a busy machine has.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<String> {
        let names = self.stdout.lines().map(|line| event(line).0);
        names.filter(|name| name != "connecting").collect()
    }

    /// Checks that it failed at run time with one line, and that the line has all these parts.
    #[track_caller]
    pub(crate) fn failed_with(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:?}");
        let errors: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{self:?}");
        for part in parts {
            assert!(errors.concat().contains(part), "`{part}` is missing: {self:?}");
        }
        assert!(errors.concat().contains("; "), "there is no advice: {self:?}");
    }
}

/// A running program of ours, killed when dropped.
pub(crate) struct Program {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Program {
    /// Starts `binary`.
    pub(crate) fn start(binary: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::spawn(Command::new(binary).args(arguments).env_remove("SSLKEYLOGFILE"))
    }

    /// Starts what is prepared in `command`.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::spawn_prepared(command.env_remove("RUST_LOG"))
    }

    /// The same with a log of this level.
    pub(crate) fn spawn_with_log(command: &mut Command, level: &str) -> Self {
        Self::spawn_prepared(command.env("RUST_LOG", level).env_remove("SSLKEYLOGFILE"))
    }

    fn spawn_prepared(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// The next line of stdout.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        self.stdout.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let _ = self.child.kill();
            panic!("no further line on stdout; stderr: {:?}", self.stderr.iter().collect::<Vec<_>>())
        })
    }

    /// The next line of stderr.
    pub(crate) fn error_line(&mut self) -> String {
        self.stderr.recv_timeout(PATIENCE).unwrap()
    }

    /// The next line of stdout, if there is one before it ends.
    pub(crate) fn next_line(&mut self) -> Option<String> {
        self.stdout.recv_timeout(PATIENCE).ok()
    }

    /// The next line of stdout, an event with this name. On a machine that is busy a client may say before that it is still
    /// connecting.
    #[track_caller]
    pub(crate) fn event(&mut self, name: &str) -> Value {
        loop {
            let line = self.line();
            let (found, event) = event(&line);
            if found == "connecting" && name != "connecting" {
                continue;
            }
            assert_eq!(found, name, "{line}");
            return event;
        }
    }

    /// The next line of stderr.
    #[track_caller]
    pub(crate) fn stderr_line(&mut self) -> String {
        self.stderr.recv_timeout(PATIENCE).unwrap()
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "does not end; stdout: {:?}",
                self.stdout.try_iter().collect::<Vec<_>>()
            );
            thread::sleep(Duration::from_millis(10));
        };
        let text = |lines: &Receiver<String>| lines.iter().map(|line| line + "\n").collect::<String>();
        Ended { code: status.code(), stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Runs a binary to its end.
#[track_caller]
pub(crate) fn run(binary: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ended {
    Program::start(binary, arguments).end()
}

/// Certificates and tokens of a test.
pub(crate) struct Keys(TempDir);

impl Keys {
    /// Makes a certificate for the loopback addresses, and a token.
    pub(crate) fn new() -> Self {
        let keys = Self(tempfile::tempdir().unwrap());
        assert_eq!(run(binary(), [OsStr::new("cert"), keys.at("server").as_ref()]).code, Some(0));
        assert_eq!(run(binary(), [OsStr::new("token"), keys.at("token").as_ref()]).code, Some(0));
        keys
    }

    /// A file among them.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    /// Starts a server on a free UDP port that gives out `ports`; returns it with its address.
    #[track_caller]
    pub(crate) fn server(&self, binary: &str, ports: &str, more: &[&str]) -> (Program, SocketAddr) {
        self.server_at(binary, (Ipv4Addr::LOCALHOST, 0).into(), ports, more)
    }

    /// Starts a server on this UDP address.
    #[track_caller]
    pub(crate) fn server_at(
        &self,
        binary: &str,
        quic: SocketAddr,
        ports: &str,
        more: &[&str],
    ) -> (Program, SocketAddr) {
        let quic = quic.to_string();
        let mut arguments = vec!["server".to_owned(), "--json".to_owned()];
        let (cert, key) = (self.text("server.pub.pem"), self.text("server.priv.pem"));
        arguments
            .extend(["--cert", &cert, "--key", &key, "--quic", &quic, "--ports", ports].map(str::to_owned));
        if !more.contains(&"--auth") {
            arguments.extend(["--token-file".to_owned(), self.text("token")]);
        }
        arguments.extend(more.iter().map(ToString::to_string));
        let mut server = Program::start(binary, arguments);
        let address = address(server.event("listening").get("quic"));
        (server, address)
    }

    /// Starts a client of the server at `driver`; `more` may hold another `--token-file` or none (`--auth`).
    pub(crate) fn client(
        &self,
        binary: &str,
        driver: SocketAddr,
        target: SocketAddr,
        more: &[&str],
    ) -> Program {
        let mut arguments = vec!["client".to_owned(), "--json".to_owned()];
        arguments.extend([
            "--driver".to_owned(),
            driver.to_string(),
            "--target".to_owned(),
            target.to_string(),
        ]);
        for (option, file) in [("--authority", "server.pub.pem"), ("--token-file", "token")] {
            if !more.contains(&option) {
                arguments.extend([option.to_owned(), self.text(file)]);
            }
        }
        // An empty value stands for "without this option".
        let mut more = more.iter().map(ToString::to_string).peekable();
        while let Some(option) = more.next() {
            if more.next_if(String::is_empty).is_none() {
                arguments.push(option);
            }
        }
        Program::start(binary, arguments)
    }
}

/// The address in a field of an event.
#[track_caller]
pub(crate) fn address(field: Option<&Value>) -> SocketAddr {
    field.and_then(Value::as_str).unwrap().parse().unwrap()
}

/// The first address in a `bound` event.
#[track_caller]
pub(crate) fn bound_address(bound: &Value) -> SocketAddr {
    address(bound.get("addresses").and_then(|addresses| addresses.get(0)))
}

/// `count` TCP ports in a row that are free now, as `FIRST:LAST`. Below the range from which systems take the
/// ports of outgoing connections, and in another place for each call and each process.
pub(crate) fn free_ports(count: u16) -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 200).unwrap() * 100;
    for _ in 0..200 {
        let first = 10_000 + (start + NEXT.fetch_add(count, Ordering::Relaxed)) % 20_000;
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (first..first + count).all(free) {
            return format!("{first}:{}", first + count - 1);
        }
    }
    panic!("no free ports");
}

/// A TCP service that sends back what it gets; its address.
pub(crate) fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for visitor in listener.incoming() {
            let mut visitor = visitor.unwrap();
            thread::spawn(move || {
                let mut reader = visitor.try_clone().unwrap();
                let _ = std::io::copy(&mut reader, &mut visitor);
                let _ = visitor.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

/// Sends `message` to `address`, ends its half, and returns all that comes back.
#[track_caller]
pub(crate) fn converse(address: SocketAddr, message: &[u8]) -> Vec<u8> {
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.write_all(message).unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    answer
}

/// The name of an event, and the event without the time, which is one of today.
#[track_caller]
fn event(line: &str) -> (String, Value) {
    let mut event: Value = serde_json::from_str(line).unwrap();
    let time = event.as_object_mut().unwrap().remove("time").unwrap();
    let time = OffsetDateTime::parse(time.as_str().unwrap(), &Rfc3339).unwrap();
    assert!((OffsetDateTime::now_utc() - time).abs() < 2 * PATIENCE, "{line}");
    (event.get("event").and_then(Value::as_str).unwrap().to_owned(), event)
}

/// The permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o777
}
