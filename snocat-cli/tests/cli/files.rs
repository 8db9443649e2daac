//! Files that are none, or do not answer: nobody waits for them but who reads them.

#![expect(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::program::{Keys, Program, binaries, binary, bound_address, converse, echo, free_ports, run};

/// Longer than any end that was asked for may take.
const PROMPTLY: Duration = Duration::from_secs(5);
/// A change of a file has its effect within this, on a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(2 + 8);

/// Puts a pipe in the place of a file, for its owner alone. Somebody has it open to write, and says nothing.
fn pipe_at(path: &Path) -> File {
    let aside = path.with_extension("pipe");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&aside).status().unwrap().success());
    let writer = OpenOptions::new().read(true).write(true).open(&aside).unwrap();
    fs::rename(&aside, path).unwrap();
    writer
}

/// Asks for the end, which comes promptly and in order.
#[track_caller]
fn stops(program: Program) -> String {
    let asked = Instant::now();
    program.signal(Signal::TERM);
    let ended = program.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(asked.elapsed() < PROMPTLY, "{:?}", asked.elapsed());
    ended.stderr
}

#[test]
fn a_pipe_in_the_place_of_a_file_stops_nothing_else() {
    for binary in binaries() {
        let keys = Keys::new();
        let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
        for name in ["alice", "bob"] {
            assert_eq!(run(binary, ["keygen", &at(name), "--comment", name]).code, Some(0));
        }
        let line = |name: &str| fs::read_to_string(at(&format!("{name}.pub"))).unwrap();
        let write = |text: &str| {
            fs::write(keys.at("list"), text).unwrap();
            fs::set_permissions(keys.at("list"), PermissionsExt::from_mode(0o600)).unwrap();
        };
        write(&(line("alice") + &line("bob")));
        let list = at("list");
        let more = ["--authorized-keys", &list, "--auth", "ed25519,token", "--token-file", &at("token")];
        let (mut server, driver) = keys.server(binary, &free_ports(3), &more);
        let come =
            |name: &str| keys.client(binary, driver, echo(), &["--token-file", "", "--identity", &at(name)]);
        let mut alice = come("alice");
        alice.event("tunnel-up");
        server.event("tunnel-up");

        let _silent = pipe_at(&keys.at("token"));
        let warning = server.stderr_line();
        assert!(warning.starts_with("warning: ") && warning.contains("is a pipe"), "{warning}");
        // Others are let in, have ports, and lose what is taken from them.
        let mut bob = come("bob");
        bob.event("tunnel-up");
        assert_eq!(converse(bound_address(&bob.event("bound")), b"through"), b"through");
        let began = Instant::now();
        write(&line("bob"));
        alice.event("bound");
        alice.end().failed_with(&["no longer accepts the credentials"]);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        stops(server);
    }
}

/// The next event with this name, whatever comes before it.
#[track_caller]
fn wait_for(program: &mut Program, name: &str) -> Value {
    let lines = std::iter::from_fn(|| program.next_line());
    let mut events = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    events.find(|event| event["event"] == json!(name)).unwrap()
}

#[test]
fn a_file_that_is_gone_is_told_of_and_counts_until_it_is_to_fail_closed() {
    for (binary, closed) in binaries().into_iter().flat_map(|binary| [(binary, false), (binary, true)]) {
        let keys = Keys::new();
        let (token, aside) = (keys.at("token"), keys.at("aside"));
        let own = keys.at("own");
        fs::copy(&token, &own).unwrap();
        let options: &[&str] = if closed { &["--fail-closed"] } else { &[] };
        let (mut server, driver) = keys.server(binary, &free_ports(3), options);
        let come = || {
            let token = own.to_str().unwrap();
            keys.client(binary, driver, echo(), &["--token-file", token, "--name", "web"])
        };
        let mut first = come();
        first.event("tunnel-up");
        let bound = bound_address(&first.event("bound"));

        fs::rename(&token, &aside).unwrap();
        let failed = wait_for(&mut server, "file-failed");
        assert_eq!(
            (failed["file"].clone(), failed["in_force"].clone()),
            (json!(token), json!(!closed)),
            "{failed}"
        );
        assert!(failed["problem"].as_str().unwrap().contains("cannot read"), "{failed}");
        let warning = server.stderr_line();
        if closed {
            assert!(warning.contains("nobody is let in"), "{warning}");
            first.end().failed_with(&["no longer accepts the credentials"]);
            come().end().failed_with(&["did not accept the credentials"]);
        } else {
            assert!(warning.contains("stays in force"), "{warning}");
            assert_eq!(converse(bound, b"still here"), b"still here");
            let mut second = come();
            second.event("tunnel-up");
        }

        fs::rename(&aside, &token).unwrap();
        wait_for(&mut server, "file-read");
        let mut back = come();
        back.event("tunnel-up");
        stops(server);
    }
}

#[test]
fn a_program_that_waits_for_a_file_can_be_ended() {
    for binary in binaries() {
        let keys = Keys::new();
        let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
        let _silent = pipe_at(&keys.at("token"));
        let (cert, key, token) = (at("server.pub.pem"), at("server.priv.pem"), at("token"));
        let quic = ["--quic", "127.0.0.1:0"];
        let server = ["server", "--cert", &cert, "--key", &key, "--token-file", &token];
        let server = Program::start(binary, [&server[..], &quic].concat());
        let client = keys.client(binary, "127.0.0.1:9".parse().unwrap(), echo(), &[]);
        thread::sleep(Duration::from_millis(500));
        stops(server);
        stops(client);
    }
}

#[test]
fn what_is_no_file_is_said_to_be_none() {
    let keys = Keys::new();
    let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
    let client = |token: &str| {
        keys.client(binary(), "127.0.0.1:9".parse().unwrap(), echo(), &["--token-file", token]).end()
    };
    client(&at("")).failed_with(&["is a directory", "put a regular file there"]);
    client("/dev/null").failed_with(&["/dev/null is a device"]);
    drop(pipe_at(&keys.at("pipe")));
    client(&at("pipe")).failed_with(&["nothing came through the pipe", "snocat token"]);
}

/// Files of root for the user of a service: by its group, as Kubernetes (`fsGroup`) and Docker mount them, or by an
/// access control list, as systemd does it (`LoadCredential=`).
#[test]
#[cfg(target_os = "linux")]
fn secrets_of_a_service_are_accepted_as_they_are_mounted() {
    use std::os::unix::process::CommandExt;
    const SERVICE: u32 = 64_711;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run a program as another user");
        return;
    }
    let keys = Keys::new();
    let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
    let directory = keys.at("");
    let chmod = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    chmod(&directory, 0o755);
    // Where the service can reach it.
    let copy = at("snocat");
    fs::copy(binary(), &copy).unwrap();
    let secrets = [keys.at("server.priv.pem"), keys.at("token")];
    let listens = || {
        let mut command = Command::new(&copy);
        command.uid(SERVICE).gid(SERVICE).args(["server", "--json", "--quic", "127.0.0.1:0"]);
        command.args(["--cert", &at("server.pub.pem"), "--key", &at("server.priv.pem")]);
        let mut server = Program::spawn(command.args(["--token-file", &at("token")]));
        server.event("listening");
        stops(server);
    };
    for secret in &secrets {
        std::os::unix::fs::chown(secret, Some(0), Some(SERVICE)).unwrap();
        chmod(secret, 0o440);
    }
    listens();

    // An access control list as the system has it: the version, then tags with bits and ids.
    let nobody = u32::MAX;
    let entries = [(1_u16, 4_u16, nobody), (2, 4, SERVICE), (4, 0, nobody), (16, 4, nobody), (32, 0, nobody)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        list.extend(tag.to_le_bytes().into_iter().chain(bits.to_le_bytes()).chain(id.to_le_bytes()));
    }
    for secret in &secrets {
        std::os::unix::fs::chown(secret, Some(0), Some(0)).unwrap();
        chmod(secret, 0o400);
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(secret, "system.posix_acl_access", &list, flags).is_err() {
            println!("skipped: this file system has no access control lists");
            return;
        }
        assert_eq!(crate::program::mode(secret), 0o440);
    }
    listens();
}

#[test]
fn a_server_says_which_files_it_has_not_read_again() {
    for binary in binaries() {
        let keys = Keys::new();
        let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
        let (cert, key, ports) = (at("server.pub.pem"), at("server.priv.pem"), free_ports(1));
        let mut shell = Command::new("bash");
        shell.args(["-c", r#"exec "$0" "$@" --token-file <(cat "$TOKEN")"#, binary, "server", "--json"]);
        shell.args(["--cert", &cert, "--key", &key, "--quic", "127.0.0.1:0", "--ports", &ports]);
        let mut server = Program::spawn(shell.env("TOKEN", at("token")).env_remove("SSLKEYLOGFILE"));
        server.event("listening");
        server.signal(Signal::HUP);
        let note = server.stderr_line();
        assert!(note.contains("again, but not /dev/fd/") && note.contains("only once"), "{note}");
    }
}

#[test]
fn a_client_that_is_told_to_read_a_pipe_again_does_not_and_reads_again_when_it_can() {
    for binary in binaries() {
        let keys = Keys::new();
        let (_server, driver) = keys.server(binary, &free_ports(1), &[]);
        let mut client = keys.client(binary, driver, echo(), &[]);
        client.event("tunnel-up");
        let token = fs::read(keys.at("token")).unwrap();
        let _writer = pipe_at(&keys.at("token"));
        for _ in 0..2 {
            client.signal(Signal::HUP);
            let warning = client.stderr_line();
            assert!(warning.starts_with("warning: ") && warning.contains("only once"), "{warning}");
        }
        fs::remove_file(keys.at("token")).unwrap();
        fs::write(keys.at("token"), token).unwrap();
        fs::set_permissions(keys.at("token"), PermissionsExt::from_mode(0o600)).unwrap();
        client.signal(Signal::HUP);
        let note = client.stderr_line();
        assert!(note.contains("read the files again"), "{note}");
    }
}
