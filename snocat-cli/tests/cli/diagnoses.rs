//! What a person is told who got something wrong, or whose network did: enough to act on, and soon.

#![expect(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustix::process::Signal;
use serde_json::json;
use time::OffsetDateTime;

use crate::program::{
    Keys, PATIENCE, Program, binaries, binary, bound_address, converse, echo, free_ports, run,
};

/// An address where nobody listens.
fn nobody() -> std::net::SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn text(keys: &Keys, name: &str) -> String {
    keys.at(name).to_str().unwrap().to_owned()
}

fn private(path: &str, contents: &str) {
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// Writes the server's certificate anew: one that expires in so many days.
fn certificate_until(keys: &Keys, days: i64) {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_before = OffsetDateTime::now_utc() - time::Duration::days(300);
    parameters.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
    let certificate = parameters.self_signed(&key).unwrap();
    // The key first: the two are read together when both have come to rest.
    private(&text(keys, "server.priv.pem"), &key.serialize_pem());
    private(&text(keys, "server.pub.pem"), &certificate.pem());
}

/// What the command line says that asks for what cannot be.
#[test]
fn slips_of_the_command_line() {
    let server = ["server", "--cert", "c", "--key", "k", "--auth", "none"];
    let client = ["client", "--driver", "h:1", "--target", "t:1"];
    for (start, option, value, hint) in [
        (&server[..], "--quic", ":9090", "0.0.0.0:9090 for all IPv4 addresses"),
        (&server, "--quic", "::1:9090", "[::1]:9090"),
        (&server, "--tcp", "0.0.0.0:80", "without a port"),
        (&server, "--ports", "0:10", "`0` is not a port: give a number from 1 to 65535"),
        (&server, "--ports", "8080:99999", "`99999` is not a port: give a number from 1 to 65535"),
        (&server, "--ports", "8080", "8080:8080"),
        (&client[..3], "--target", ":3000", "localhost:3000"),
        (&client[..1], "--driver", "::1:9090", "[::1]:9090, or [::1:9090]:9090"),
        (&client[..1], "--driver", "[fe80::1%eth0]:9090", "names an interface behind `%`"),
        (&client[..1], "--driver", "bücher.example:9090", "xn-- form"),
    ] {
        let ended = run(binary(), [start, &[option, value]].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.contains(hint), "{hint} is missing: {ended:?}");
    }
    for (level, hint) in [("warning", "did you mean `warn`?"), ("deubg", "did you mean `debug`?")] {
        let mut demo = Command::new(binary());
        let ended = Program::spawn_with_log(demo.args(["demo", "--once"]), level).end();
        assert!(ended.code == Some(2) && ended.stderr.contains(hint), "{ended:?}");
    }
}

/// Each program calls itself by its own name.
#[test]
fn help_says_the_name_of_the_program() {
    for binary in binaries() {
        let name = binary.rsplit('/').next().unwrap();
        for arguments in
            [&["help"][..], &["-h"], &["help", "server"], &["client", "--help"], &["keygen", "-h"]]
        {
            let help = run(binary, arguments).stdout;
            let others = help.replace(&format!("{name} "), "").matches("snocat ").count();
            assert_eq!(others, 0, "{help}");
        }
    }
}

#[test]
fn help_ends_quietly_with_its_reader() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(binary()).args(["help", "server"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{output:?}");
}

/// Whatever it was to print.
#[test]
#[cfg(target_os = "linux")]
fn a_stdout_that_takes_nothing_is_a_failure() {
    for arguments in [&["token"][..], &["--help"], &["help", "server"], &["--version"], &["demo", "--once"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(binary()).args(arguments).stdout(full).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains("error: cannot write to stdout"), "{arguments:?}: {stderr}");
    }
}

/// What goes on serving says so once.
#[test]
#[cfg(target_os = "linux")]
fn a_server_whose_events_are_lost_says_so_and_serves() {
    let keys = Keys::new();
    let at = |name| text(&keys, name);
    // There is no event to learn the port from.
    let quic = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" > /dev/full", "sh", binary()]);
    command.args(["server", "--cert", &at("server.pub.pem"), "--key", &at("server.priv.pem")]);
    command.args(["--token-file", &at("token"), "--quic", &quic.to_string(), "--ports", &free_ports(1)]);
    let server = Program::spawn(&mut command);
    let deadline = Instant::now() + PATIENCE;
    let mut client = loop {
        let mut client = keys.client(binary(), quic, echo(), &[]);
        match client.next_line() {
            Some(line) if line.contains("tunnel-up") => break client,
            line => assert!(Instant::now() < deadline, "{line:?}"),
        }
    };
    assert_eq!(converse(bound_address(&client.event("bound")), b"still here"), b"still here");
    server.signal(Signal::TERM);
    let ended = server.end();
    assert_eq!(ended.stderr.matches("cannot write to stdout").count(), 1, "{ended:?}");
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn the_client_says_where_visitors_can_connect_to() {
    let keys = Keys::new();
    let (mut server, driver) = keys.server(binary(), &free_ports(1), &["--tcp", "0.0.0.0"]);
    let mut client = keys.client(binary(), driver, echo(), &[]);
    client.event("tunnel-up");
    let told = bound_address(&client.event("bound"));
    server.event("tunnel-up");
    let listens = bound_address(&server.event("bound"));
    assert_eq!((told.ip(), listens.ip()), (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into()));
    assert_eq!(converse(told, b"hello"), b"hello");
}

#[test]
fn files_that_are_something_else_say_what_they_are() {
    let keys = Keys::new();
    let at = |name| text(&keys, name);
    assert_eq!(run(binary(), ["keygen", &at("key")]).code, Some(0));
    let tls = ["server", "--cert", &at("server.pub.pem"), "--key", &at("server.priv.pem")];
    for (option, file, parts) in [
        ("--authorized-keys", "key", ["key holds a private key", "the file with .pub"]),
        ("--authorized-keys", "server.pub.pem", ["holds a certificate", "--client-ca"]),
        ("--token-file", "key", ["key holds a private key, and no token", "snocat token"]),
        ("--client-ca", "key", ["holds no certificate", "PEM"]),
    ] {
        run(binary(), [&tls[..], &[option, &at(file)]].concat()).failed_with(&parts);
    }
    let swapped = ["server", "--cert", &at("server.priv.pem"), "--key", &at("server.pub.pem")];
    run(binary(), [&swapped[..], &["--auth", "none"]].concat())
        .failed_with(&["holds no certificate, but a private key", "give the .pub.pem file"]);

    private(&at("keys"), &format!("name=\"web\" {}", fs::read_to_string(at("key.pub")).unwrap()));
    run(binary(), [&tls[..], &["--authorized-keys", &at("keys")]].concat())
        .failed_with(&["line 1: option 1 is not known (did you mean `names`?)"]);
    private(&at("keys"), &format!("ports=\"x\" {}", fs::read_to_string(at("key.pub")).unwrap()));
    run(binary(), [&tls[..], &["--authorized-keys", &at("keys")]].concat())
        .failed_with(&["line 1: option `ports`: give ports"]);
}

#[test]
fn ports_that_no_client_could_have_are_found_at_the_start() {
    let keys = Keys::new();
    let at = |name| text(&keys, name);
    let server = [
        "server",
        "--cert",
        &at("server.pub.pem"),
        "--key",
        &at("server.priv.pem"),
        "--token-file",
        &at("token"),
        "--quic",
        "127.0.0.1:0",
    ];
    run(binary(), [&server[..], &["--tcp", "192.0.2.1"]].concat())
        .failed_with(&["cannot listen on 192.0.2.1: this machine does not have that address", "--tcp"]);

    let reserved = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let reserved = reserved.ok().and_then(|text| text.trim().parse::<u16>().ok());
    let unprivileged = |ports: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service", binary()]);
        command.args(server).args(["--ports", ports]);
        command
    };
    if reserved != Some(1024) || unprivileged("1:1").arg("--help").output().is_err() {
        println!("skipped: there is no setpriv, or ports below 1024 are everybody's");
        return;
    }
    Program::spawn(&mut unprivileged("1000:1010"))
        .end()
        .failed_with(&["this process has no right to listen on ports 1000:1010", "--ports above 1023"]);
    let mut server = Program::spawn(unprivileged("1000:1100").arg("--json"));
    let driver = server.event("listening")["quic"].as_str().unwrap().parse().unwrap();
    let mut client = keys.client(binary(), driver, echo(), &[]);
    client.event("tunnel-up");
    // Others may have the first ones.
    assert!(bound_address(&client.event("bound")).port() >= 1024);
    server.signal(Signal::TERM);
    let ended = server.end();
    assert!(
        ended.stderr.contains("warning: this process has no right to listen on ports 1000 to 1023"),
        "{ended:?}"
    );
}

#[test]
fn a_target_that_is_down_is_warned_of_when_visitors_come() {
    let keys = Keys::new();
    for binary in binaries() {
        let (_server, driver) = keys.server(binary, &free_ports(1), &[]);
        let target = nobody();
        let mut client = keys.client(binary, driver, target, &[]);
        client.event("tunnel-up");
        let port = bound_address(&client.event("bound"));
        for _ in 0..5 {
            // The reset may be there before the visitor learns that it is connected.
            let read = TcpStream::connect_timeout(&port, PATIENCE).and_then(|mut visitor| {
                visitor.set_read_timeout(Some(PATIENCE))?;
                visitor.read(&mut [0])
            });
            assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        client.signal(Signal::TERM);
        let ended = client.end();
        let warnings: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(warnings.len(), 1, "one for all of them: {ended:?}");
        let expected = format!("a visitor is turned away: cannot connect to {target}: ");
        assert!(warnings[0].contains(&expected) && warnings[0].contains("WARN"), "{warnings:?}");
    }
}

/// A process that has no descriptors left says so where it matters: at the visitor that it turns away.
#[test]
fn descriptors_that_are_used_up_are_warned_of() {
    let keys = Keys::new();
    let (_server, driver) = keys.server(binary(), &free_ports(1), &[]);
    let (target, at) = (echo(), |name| text(&keys, name));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 30; exec \"$@\"", "sh", binary(), "client", "--json"]);
    command.args(["--driver", &driver.to_string(), "--target", &target.to_string()]);
    command.args(["--authority", &at("server.pub.pem"), "--token-file", &at("token")]);
    let mut client = Program::spawn(&mut command);
    client.event("tunnel-up");
    let port = bound_address(&client.event("bound"));
    let mut visitors: Vec<_> =
        (0..40).map(|_| TcpStream::connect_timeout(&port, PATIENCE).unwrap()).collect();
    for visitor in &mut visitors {
        visitor.set_read_timeout(Some(PATIENCE)).unwrap();
        let _turned_away = visitor.write_all(b"x").and_then(|()| visitor.read(&mut [0]));
    }
    client.signal(Signal::TERM);
    let ended = client.end();
    assert!(ended.stderr.contains("raise this process' limit of open files"), "{ended:?}");
}

/// Each visitor that goes makes room for one, and then it begins anew.
#[test]
fn a_server_whose_descriptors_are_used_up_warns_of_it_once_in_a_while() {
    let began = Instant::now();
    let (keys, ports) = (Keys::new(), free_ports(1));
    let at = |name| text(&keys, name);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$@\"", "sh", binary(), "server", "--json", "--ports", &ports]);
    command.args(["--cert", &at("server.pub.pem"), "--key", &at("server.priv.pem")]);
    command.args(["--token-file", &at("token"), "--quic", "127.0.0.1:0"]);
    let mut server = Program::spawn(&mut command);
    let quic = server.event("listening")["quic"].as_str().unwrap().parse().unwrap();
    let mut client = keys.client(binary(), quic, echo(), &[]);
    client.event("tunnel-up");
    let port = bound_address(&client.event("bound"));
    for _ in 0..4 {
        let visitors = [(); 60].map(|()| TcpStream::connect_timeout(&port, PATIENCE).unwrap());
        thread::sleep(Duration::from_millis(500));
        drop(visitors);
        thread::sleep(Duration::from_millis(500));
    }
    server.signal(Signal::TERM);
    let ended = server.end();
    let warnings = ended.stderr.matches("cannot take more visitors in").count() as u64;
    assert!((1..=1 + began.elapsed().as_secs() / 10).contains(&warnings), "{ended:?}");
    assert!(ended.stderr.contains("raise this process' limit of open files"), "{ended:?}");
}

/// A target that takes one connection would be used up.
#[test]
fn the_target_is_connected_to_at_the_start_only_if_that_is_asked_for() {
    let keys = Keys::new();
    let (_server, driver) = keys.server(binary(), &free_ports(2), &[]);
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    target.set_nonblocking(true).unwrap();
    let address = target.local_addr().unwrap();
    let mut clients = [&[][..], &["--check-target"]].map(|more| keys.client(binary(), driver, address, more));
    for client in &mut clients {
        client.event("tunnel-up");
        client.event("bound");
    }
    let deadline = Instant::now() + PATIENCE;
    let mut checked = loop {
        match target.accept() {
            Ok((checked, _)) => break checked,
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
    };
    checked.set_nonblocking(false).unwrap();
    assert_eq!(checked.read(&mut [0]).unwrap(), 0, "it says nothing, and ends in order");
    assert!(target.accept().is_err(), "one client was not asked to");
    for client in clients {
        client.signal(Signal::TERM);
        assert_eq!(client.end().stderr, "");
    }

    let mut down = keys.client(binary(), driver, nobody(), &["--check-target"]);
    down.event("tunnel-up");
    down.event("bound");
    thread::sleep(Duration::from_secs(1));
    down.signal(Signal::TERM);
    let ended = down.end();
    assert!(ended.stderr.starts_with("warning: cannot connect to 127.0.0.1:"), "{ended:?}");
}

#[test]
fn a_certificate_that_has_expired_or_soon_will_is_warned_of() {
    let keys = Keys::new();
    certificate_until(&keys, -2);
    let (mut server, _) = keys.server(binary(), &free_ports(1), &[]);
    // Renewed, for a while.
    certificate_until(&keys, 5);
    thread::sleep(Duration::from_secs(4));
    certificate_until(&keys, 100);
    thread::sleep(Duration::from_secs(4));
    server.signal(Signal::TERM);
    assert!(server.next_line().is_some());
    let ended = server.end();
    let warnings: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 2, "{ended:?}");
    assert!(warnings[0].contains("the certificate of this server has expired"), "{ended:?}");
    assert!(warnings[1].contains("the certificate of this server expires in 4 days"), "{ended:?}");
}

#[test]
fn a_server_warns_that_its_secrets_are_written() {
    let keys = Keys::new();
    let at = |name| text(&keys, name);
    let mut command = Command::new(binary());
    command.args(["server", "--cert", &at("server.pub.pem"), "--key", &at("server.priv.pem")]);
    command.args(["--token-file", &at("token"), "--quic", "127.0.0.1:0", "--ports", &free_ports(1)]);
    let mut server = Program::spawn(command.env("SSLKEYLOGFILE", at("secrets")));
    assert!(server.line().starts_with("listening on "));
    server.signal(Signal::TERM);
    let ended = server.end();
    assert!(
        ended.stderr.contains("warning: SSLKEYLOGFILE is set: ") && ended.stderr.contains("secrets"),
        "{ended:?}"
    );
}

#[test]
fn the_log_tells_who_was_not_let_in_and_who_visits() {
    let keys = Keys::new();
    let at = |name| text(&keys, name);
    assert_eq!(run(binary(), ["token", &at("other")]).code, Some(0));
    let mut command = Command::new(binary());
    command.args(["server", "--json", "--cert", &at("server.pub.pem"), "--key", &at("server.priv.pem")]);
    command.args(["--token-file", &at("token"), "--quic", "127.0.0.1:0", "--ports", &free_ports(1)]);
    let mut server = Program::spawn_with_log(&mut command, "info,snocat_driver=debug");
    let driver = server.event("listening")["quic"].as_str().unwrap().parse().unwrap();
    let target = echo();
    keys.client(binary(), driver, target, &["--token-file", &at("other")])
        .end()
        .failed_with(&["credentials"]);
    keys.client(binary(), driver, target, &["--token-file", ""]).end().failed_with(&["wants a credential"]);
    let mut client = keys.client(binary(), driver, target, &[]);
    client.event("tunnel-up");
    let port = bound_address(&client.event("bound"));
    let visitor = TcpStream::connect_timeout(&port, PATIENCE).unwrap();
    let from = visitor.local_addr().unwrap().to_string();
    drop(visitor);
    thread::sleep(Duration::from_secs(1));
    server.signal(Signal::TERM);
    let ended = server.end();
    let lines = |part: &str| ended.stderr.lines().filter(|line| line.contains(part)).collect::<Vec<_>>();
    let failures = lines("a client did not authenticate");
    assert_eq!(failures.len(), 2, "{ended:?}");
    for (failure, parts) in failures.iter().zip([
        ["INFO", "source=127.0.0.1:", "method=token", "auth-refused"],
        ["INFO", "source=127.0.0.1:", "method=-", "auth-no-method"],
    ]) {
        assert!(parts.iter().all(|part| failure.contains(part)), "{failure}");
    }
    let visits = lines(&from);
    assert!(!visits.is_empty() && visits.iter().all(|line| line.contains("DEBUG")), "{ended:?}");
}

#[test]
fn a_program_learns_of_a_failure_as_of_events() {
    let keys = Keys::new();
    let mut client =
        keys.client(binary(), "127.0.0.1:9".parse().unwrap(), echo(), &["--token-file", "/nowhere"]);
    let failed = client.event("failed");
    assert_eq!(failed["code"], json!(1));
    let ended = client.end();
    ended.failed_with(&["cannot read /nowhere", failed["error"].as_str().unwrap()]);
}

#[test]
fn a_start_that_fails_because_of_the_environment_is_told_in_json_too() {
    for binary in binaries() {
        let mut command = Command::new(binary);
        command.args(["client", "--driver", "127.0.0.1:1", "--target", "127.0.0.1:1", "--json"]);
        let ended = Program::spawn_with_log(&mut command, "deubg").end();
        assert_eq!((ended.code, ended.events()), (Some(2), vec!["failed".to_owned()]), "{ended:?}");
    }
}
