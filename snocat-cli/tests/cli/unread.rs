//! A terminal that was stopped, a pipe that nobody reads: what a program has to say never keeps it from serving.

#![expect(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Write, pipe};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Keys, PATIENCE, Program, binaries, bound_address, converse, echo, free_ports};

/// Longer than any end that was asked for may take.
const PROMPTLY: Duration = Duration::from_secs(5);

/// A pipe that takes nothing any more, until somebody reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    for chunk in [4096, 1] {
        while let Ok(_written) = writer.write(&vec![b'\n'; chunk]) {}
    }
    assert_eq!(writer.write(b"\n").unwrap_err().kind(), ErrorKind::WouldBlock);
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// A program, killed when dropped.
struct Running(Child);

impl Running {
    fn start(binary: &str, arguments: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Self {
        let mut command = Command::new(binary);
        command.args(arguments).env("RUST_LOG", "trace").env_remove("SSLKEYLOGFILE");
        Self(command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap())
    }

    #[track_caller]
    fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PROMPTLY;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks for the end, which comes promptly and in order.
    #[track_caller]
    fn stops(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert_eq!(self.ends().code(), Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A UDP address that is free now.
fn free_address() -> SocketAddr {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn server(
    keys: &Keys,
    binary: &str,
    quic: SocketAddr,
    stdout: impl Into<Stdio>,
    stderr: impl Into<Stdio>,
) -> Running {
    let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
    let (cert, key, token) = (at("server.pub.pem"), at("server.priv.pem"), at("token"));
    let (quic, ports) = (quic.to_string(), free_ports(2));
    let files = ["--cert", &cert, "--key", &key, "--token-file", &token];
    let places = ["--quic", &quic, "--ports", &ports];
    let server =
        Running::start(binary, &[&["server", "--json"][..], &files, &places].concat(), stdout, stderr);
    wait_for_listener(&quic);
    server
}

/// Waits until somebody listens at this UDP address. A client that comes before that gives up within a second.
#[track_caller]
fn wait_for_listener(address: &str) {
    let deadline = Instant::now() + PATIENCE;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    loop {
        // What is no QUIC is not answered, but for the system's word that nobody listens.
        let _refused_before = socket.send(b"?");
        match socket.recv(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            _ => return,
        }
        assert!(Instant::now() < deadline, "nobody listens at {address}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a line that has this in it, and goes on reading in the background.
#[track_caller]
fn comes(from: PipeReader, wanted: &'static str) -> String {
    let (found, wait) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if line.contains(wanted) {
                let _ = found.send(line);
            }
        }
    });
    wait.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn a_log_that_nobody_reads_keeps_nobody_from_being_served() {
    let message: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    for binary in binaries() {
        let keys = Keys::new();
        let (quic, target) = (free_address(), echo());
        let (server_log, server_stderr) = full_pipe();
        let (server_events, server_stdout) = pipe().unwrap();
        let mut server = server(&keys, binary, quic, server_stdout, server_stderr);
        comes(server_events, "listening");
        let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
        let (authority, token) = (at("server.pub.pem"), at("token"));
        let (quic, target) = (quic.to_string(), target.to_string());
        let credentials = ["--authority", &authority, "--token-file", &token];
        let ends = ["--driver", &quic, "--target", &target];
        let (_client_log, client_stderr) = full_pipe();
        let (events, client_stdout) = pipe().unwrap();
        let arguments = [&["client", "--json"][..], &credentials, &ends].concat();
        let mut client = Running::start(binary, &arguments, client_stdout, client_stderr);
        let bound = bound_address(&serde_json::from_str(&comes(events, "bound")).unwrap());
        // Enough for more lines than may wait.
        for _ in 0..20 {
            assert!(converse(bound, &message) == message);
        }
        comes(server_log, "lines were dropped here");
        assert!(converse(bound, &message) == message);
        client.stops();
        server.stops();
    }
}

#[test]
fn events_that_nobody_reads_keep_nobody_from_being_served() {
    for binary in binaries() {
        let keys = Keys::new();
        let quic = free_address();
        let (events, stdout) = full_pipe();
        let mut server = server(&keys, binary, quic, stdout, Stdio::null());
        // It cannot tell when it listens. Until then a client is refused.
        let target = echo();
        let deadline = Instant::now() + PATIENCE;
        let mut client = loop {
            let mut client = keys.client(binary, quic, target, &[]);
            if client.next_line().is_some_and(|line| line.contains("tunnel-up")) {
                break client;
            }
            assert!(Instant::now() < deadline, "no client is let in");
        };
        let bound = bound_address(&client.event("bound"));
        assert_eq!(converse(bound, b"through"), b"through");
        comes(events, "tunnel-up");
        server.stops();
    }
}

#[test]
fn a_failure_that_nobody_reads_is_a_failure() {
    for binary in binaries() {
        let (_log, stderr) = full_pipe();
        let arguments = ["server", "--cert", "none", "--key", "none", "--auth", "none"];
        let mut server = Running::start(binary, &arguments, Stdio::null(), stderr);
        assert_eq!(server.ends().code(), Some(1));
    }
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "there is no /proc")]
fn secrets_for_wireshark_that_nobody_reads_keep_nobody_from_being_served() {
    for binary in binaries() {
        let (_secrets, writer) = full_pipe();
        // The path of a pipe, in the process that has it.
        let path = format!("/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd());
        let mut demo = Command::new(binary);
        let ended = Program::spawn(demo.args(["demo", "--once"]).env("SSLKEYLOGFILE", path)).end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}
