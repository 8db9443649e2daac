//! The examples of help, README and docs, run in order and as they are written.
//!
//! They name hosts, addresses and ports that belong to others, or to other tests. So they run in a network and a mount
//! namespace of their own, where these names and addresses are this machine's.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a surprise is a failure")]

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use tempfile::TempDir;

use crate::credentials::Authority;
use crate::namespaces::Namespace;
use crate::program::{Program, binaries};

/// Set in the namespace that has been made.
const INSIDE: &str = "SNOCAT_TEST_INSIDE";

/// The names that examples have for this machine, and its addresses beside 127.0.0.1.
const HOSTS: &str = "\
127.0.0.1 localhost example.org tunnel.example.net intranet.local
::1 localhost
";
const ADDRESSES: [&str; 2] = ["203.0.113.7/32", "2001:db8::1/128"];

/// The services that examples forward to.
const TARGETS: [&str; 3] = ["127.0.0.1:3000", "127.0.0.1:80", "127.0.0.1:22"];

/// What a visitor gets from each of them.
const PAGE: &str = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";

#[test]
fn all_work_as_they_are_written() {
    if std::env::var_os(INSIDE).is_some() {
        return run_all();
    }
    let Some(namespace) = Namespace::new() else { return };
    let mut this = namespace.command(std::env::current_exe().unwrap());
    this.args(["examples::all_work_as_they_are_written", "--exact", "--nocapture"]);
    let output = this.env(INSIDE, "1").output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
}

fn run_all() {
    prepare_namespace();
    for binary in binaries() {
        first_page(binary);
        pages_of_commands(binary);
        for document in ["README.md", "docs/Authentication.md"] {
            run_document(binary, document);
        }
    }
}

fn prepare_namespace() {
    for address in ADDRESSES {
        succeeds(Command::new("ip").args(["address", "add", address, "dev", "lo"]));
    }
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, HOSTS).unwrap();
    succeeds(Command::new("mount").arg("--bind").arg(&hosts).arg("/etc/hosts"));
    for target in TARGETS {
        let listener = TcpListener::bind(target).unwrap();
        thread::spawn(move || {
            for visitor in listener.incoming() {
                let mut visitor = visitor.unwrap();
                let mut request = [0; 1024];
                // A visitor that only looks whether somebody is here asks for nothing.
                if visitor.read(&mut request).is_ok_and(|read| read > 0) {
                    let _ = visitor.write_all(PAGE.as_bytes());
                }
            }
        });
    }
}

/// `snocat help`: a server and a client.
fn first_page(binary: &str) {
    let mut machine = Machine::new(binary);
    for example in help(binary, None) {
        machine.run(&example);
    }
    assert_eq!((machine.servers, machine.clients), (1, 1));
}

/// The pages of the commands, one after the other, each client with the server that it fits.
fn pages_of_commands(binary: &str) {
    let mut machine = Machine::new(binary);
    for page in ["cert", "token", "keygen"] {
        for example in help(binary, Some(page)) {
            machine.run(&example);
        }
    }
    machine.add_certificates();
    let servers = help(binary, Some("server"));
    let clients = help(binary, Some("client"));
    let clients_of: [&[usize]; 3] = [&[0, 2], &[1], &[3]];
    assert_eq!((servers.len(), clients.len()), (3, 4), "each example has its place in `clients_of`");
    for (server, fitting) in servers.iter().zip(clients_of) {
        machine.run(server);
        for client in fitting {
            machine.run(&clients[*client]);
        }
    }
    assert_eq!((machine.servers, machine.clients), (3, 4));
}

fn run_document(binary: &str, document: &str) {
    let mut machine = Machine::new(binary);
    machine.add_certificates();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document)).unwrap();
    for example in shell_blocks(&text).filter(|example| !example.starts_with("cargo ")) {
        machine.run(&example);
    }
    assert!(machine.servers > 0 && machine.clients > 0, "{document}");
}

/// The commands under "Examples:" of a help page.
fn help(binary: &str, page: Option<&str>) -> Vec<String> {
    let mut command = Command::new(binary);
    // Wide enough to break no line.
    let output = command.arg("help").args(page).env("COLUMNS", "200").output().unwrap();
    // Each program calls itself by its own name; in the shell of an example it is `snocat`.
    let name = binary.rsplit('/').next().unwrap();
    let text = String::from_utf8(output.stdout).unwrap().replace(&format!("{name} "), "snocat ");
    let examples = text.split_once("Examples:\n").unwrap().1;
    let lines = examples.lines().take_while(|line| line.is_empty() || line.starts_with(' '));
    let is_command = |line: &String| ["snocat ", "cat "].iter().any(|program| line.starts_with(program));
    commands_of(lines.map(str::trim)).filter(is_command).collect()
}

/// The commands in blocks of Markdown that say `sh`.
fn shell_blocks(text: &str) -> impl Iterator<Item = String> {
    let blocks = text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(|block| commands_of(block.lines()))
}

/// Joins lines that end in a backslash to the next.
fn commands_of<'a>(lines: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    let mut commands = Vec::new();
    let mut begun = String::new();
    for line in lines.filter(|line| !line.is_empty()) {
        begun.push_str(line);
        begun.push('\n');
        if !line.ends_with('\\') {
            commands.push(std::mem::take(&mut begun));
        }
    }
    commands.into_iter()
}

/// A directory where examples run: the server's machine, the client's and a visitor's in one.
struct Machine {
    directory: TempDir,
    path: OsString,
    /// Of the certificate that was made last.
    fingerprint: String,
    server: Option<Program>,
    client: Option<Program>,
    servers: usize,
    clients: usize,
}

impl Machine {
    fn new(binary: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let programs = directory.path().join("bin");
        fs::create_dir(&programs).unwrap();
        symlink(binary, programs.join("snocat")).unwrap();
        // What examples use of other programs.
        let program = |name: &str, script: &str| {
            let script = format!("#!/usr/bin/env bash\nset -eu\n{script}\n");
            let mode =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(programs.join(name));
            mode.unwrap().write_all(script.as_bytes()).unwrap();
        };
        program("pass", "cat token");
        program(
            "curl",
            "authority=${1#http://}; authority=${authority%%/*}\n\
             exec 3<>\"/dev/tcp/${authority%:*}/${authority#*:}\"\n\
             printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
        );
        let mut path = programs.into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        Self {
            directory,
            path,
            fingerprint: String::new(),
            server: None,
            client: None,
            servers: 0,
            clients: 0,
        }
    }

    /// Runs one example. A server stays until the next one, a client until the next command that needs its place, a
    /// demonstration until it shows its page; all else ends by itself. What it has made is copied, as for the other machine.
    #[track_caller]
    fn run(&mut self, example: &str) {
        if example.starts_with("snocat server ") {
            (self.client, self.server) = (None, None);
            let mut server = Program::spawn(&mut self.shell(&format!("exec {example}")));
            let line = server.line();
            assert!(line.starts_with("listening"), "{example}: {line}");
            self.server = Some(server);
            self.servers += 1;
        } else if example.starts_with("snocat client ") {
            self.client = None;
            let mut client = Program::spawn(&mut self.shell(&format!("exec {example}")));
            let forwarding = loop {
                let line = client.line();
                if let Some(forwarding) = line.strip_prefix("forwarding ") {
                    break forwarding.split(' ').next().unwrap().to_owned();
                }
            };
            let (_, port) = forwarding.rsplit_once(':').unwrap();
            self.run(&format!("curl http://127.0.0.1:{port}/"));
            self.client = Some(client);
            self.clients += 1;
        } else if example.starts_with("snocat demo") {
            let mut demo = Program::spawn(&mut self.shell(&format!("exec {example}")));
            while !demo.line().contains("http://") {}
        } else {
            let output = self.shell(example).output().unwrap();
            assert!(output.status.success(), "{example}: {}", told(&output));
            if example.starts_with("snocat cert ") {
                self.fingerprint = String::from_utf8(output.stdout.trim_ascii().to_vec()).unwrap();
            }
            if example.starts_with("curl ") {
                assert!(told(&output).contains("hello"), "{example}: {}", told(&output));
            }
        }
        self.copy();
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("bash");
        shell.args(["-euc", command]).current_dir(self.directory.path());
        shell.env("PATH", &self.path).env("FINGERPRINT", &self.fingerprint).env_remove("SSLKEYLOGFILE");
        shell
    }

    /// The files that an example calls by their names alone.
    fn copy(&self) {
        let Ok(keys) = fs::read_dir(self.directory.path().join("keys")) else { return };
        for file in keys.map(|file| file.unwrap().path()) {
            let copy = self.directory.path().join(file.file_name().unwrap());
            fs::copy(&file, &copy).unwrap();
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// What somebody has who has a certificate authority.
    fn add_certificates(&self) {
        let authority = Authority::new();
        let at = |name: &str| -> PathBuf { self.directory.path().join(name) };
        let (certificate, key) = authority.issue("alice");
        for (name, contents) in
            [("ca.pem", authority.certificate.as_str()), ("alice.pem", &certificate), ("alice.key", &key)]
        {
            fs::write(at(name), contents).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

#[track_caller]
fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", told(&output));
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
