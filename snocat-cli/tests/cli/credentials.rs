//! Credentials in files: who gets in with which, what they allow, and what becomes of tunnels when the files change.

#![expect(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ED25519,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::program::{Keys, Program, binaries, binary, bound_address, converse, echo, free_ports, run};

/// A change of a file has its effect within this, on a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(2 + 8);

/// Writes a file that is its owner's alone.
fn write(path: &Path, contents: &str) {
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn text(path: PathBuf) -> String {
    path.to_str().unwrap().to_owned()
}

/// Makes a key pair; its line for the server's file, as of the identity `name`.
fn keygen(keys: &Keys, name: &str) -> String {
    let path = text(keys.at(name));
    let ended = run(binary(), ["keygen", &path, "--comment", name]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    format!("identity=\"{name}\" {}", fs::read_to_string(format!("{path}.pub")).unwrap())
}

/// A server that lets in who is in these files, whatever the neighbours use.
fn server(keys: &Keys, binary: &str, options: &[&str]) -> (Program, SocketAddr) {
    let at = |name| text(keys.at(name));
    let (cert, key, ports) = (at("server.pub.pem"), at("server.priv.pem"), free_ports(4));
    let fixed =
        ["server", "--json", "--cert", &cert, "--key", &key, "--quic", "127.0.0.1:0", "--ports", &ports];
    let mut server = Program::start(binary, [&fixed, options].concat());
    let quic = server.event("listening").get("quic").and_then(Value::as_str).unwrap().parse().unwrap();
    (server, quic)
}

/// A client with these credentials and no others.
fn client(keys: &Keys, binary: &str, driver: SocketAddr, options: &[&str]) -> Program {
    keys.client(binary, driver, echo(), &[&["--token-file", ""], options].concat())
}

#[test]
fn keys_are_authorized_and_withdrawn() {
    for binary in binaries() {
        let keys = Keys::new();
        let [alice, bob] = ["alice", "bob"].map(|name| keygen(&keys, name));
        let list = keys.at("authorized");
        write(&list, &format!("# both\nnames=\"web,web-*\",{alice}{bob}"));
        let (mut server, driver) = server(&keys, binary, &["--authorized-keys", &text(list.clone())]);
        let identity = |name| text(keys.at(name));

        let mut first = client(&keys, binary, driver, &["--identity", &identity("alice"), "--name", "web-1"]);
        let up = first.event("tunnel-up");
        assert_eq!((up["tunnel"].clone(), up["method"].clone()), (json!("web-1"), json!("ed25519")));
        let up = server.event("tunnel-up");
        assert_eq!((up["identity"].clone(), up["method"].clone()), (json!("alice"), json!("ed25519")));
        server.event("bound");
        assert_eq!(converse(bound_address(&first.event("bound")), b"through"), b"through");
        let mut second = client(&keys, binary, driver, &["--identity", &identity("bob")]);
        assert_eq!(second.event("tunnel-up")["tunnel"], json!("bob"));
        server.event("tunnel-up");
        server.event("bound");

        client(&keys, binary, driver, &["--identity", &identity("bob"), "--name", "web"])
            .end()
            .failed_with(&["does not give out the name web", "`bob`", "--name"]);
        keygen(&keys, "mallory");
        client(&keys, binary, driver, &["--identity", &identity("mallory")])
            .end()
            .failed_with(&["did not accept the credentials", "--authorized-keys"]);

        let began = Instant::now();
        write(&list, &bob);
        first.end().failed_with(&["no longer accepts the credentials"]);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        let down = server.event("tunnel-down");
        assert_eq!(down["tunnel"], json!("web-1"));
        assert_eq!(converse(bound_address(&second.event("bound")), b"still here"), b"still here");

        // What cannot be read changes nothing.
        write(&list, "this is no key\n");
        thread::sleep(Duration::from_secs(2));
        assert_eq!(
            client(&keys, binary, driver, &["--identity", &identity("bob")]).event("tunnel-up")["tunnel"],
            json!("bob")
        );
        second.end().failed_with(&["taken over the name"]);
    }
}

#[test]
fn an_identity_suggests_a_name_and_keeps_none_from_others() {
    let keys = Keys::new();
    let [alice, bob, again] = ["alice", "bob", "again"].map(|name| keygen(&keys, name));
    let list = keys.at("authorized");
    write(&list, &format!("{alice}{bob}{}", again.replace("again", "alice")));
    let (server, driver) = server(&keys, binary(), &["--authorized-keys", &text(list)]);
    let connect = |key: &str, options: &[&str]| {
        let identity = text(keys.at(key));
        client(&keys, binary(), driver, &[&["--identity", &identity], options].concat())
    };
    let mut first = connect("alice", &["--name", "bob"]);
    assert_eq!(first.event("tunnel-up")["tunnel"], json!("bob"));
    let mut second = connect("bob", &[]);
    assert_eq!(
        second.event("tunnel-up")["tunnel"],
        json!("tunnel-1"),
        "its identity is a name that is taken"
    );
    let mut third = connect("again", &[]);
    assert_eq!(third.event("tunnel-up")["tunnel"], json!("alice"));
    server.signal(Signal::TERM);
    let told = server.end().stderr;
    assert!(told.contains("lines 1 and 3 have the same identity"), "{told}");
}

/// The most descriptors that a program may have.
fn allow_descriptors(program: &Program, most: u64) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = Pid::from_raw(program.id().cast_signed());
    let limit = Rlimit { current: Some(most), maximum: Some(1024) };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

#[test]
fn a_withdrawal_needs_no_descriptor_that_visitors_have_left() {
    for binary in binaries() {
        let keys = Keys::new();
        let [alice, bob] = ["alice", "bob"].map(|name| keygen(&keys, name));
        let list = keys.at("authorized");
        write(&list, &format!("{alice}{bob}"));
        let (server, driver) = server(&keys, binary, &["--authorized-keys", &text(list.clone())]);
        let mut tunnel = client(&keys, binary, driver, &["--identity", &text(keys.at("alice"))]);
        tunnel.event("tunnel-up");
        tunnel.event("bound");
        let descriptors = format!("/proc/{}/fd", server.id());
        let first_free = (0..).find(|number| !Path::new(&format!("{descriptors}/{number}")).exists());
        allow_descriptors(&server, first_free.unwrap());
        let began = Instant::now();
        write(&list, &bob);
        tunnel.end().failed_with(&["no longer accepts the credentials"]);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

#[test]
fn what_could_not_be_read_is_tried_again() {
    for binary in binaries() {
        let keys = Keys::new();
        let [alice, bob] = ["alice", "bob"].map(|name| keygen(&keys, name));
        let list = keys.at("authorized");
        write(&list, &format!("{alice}{bob}"));
        let (server, driver) = server(&keys, binary, &["--authorized-keys", &text(list.clone())]);
        let mut tunnel = client(&keys, binary, driver, &["--identity", &text(keys.at("alice"))]);
        tunnel.event("tunnel-up");
        tunnel.event("bound");
        // There are no descriptors when the key is withdrawn, and later there are.
        allow_descriptors(&server, 0);
        write(&list, &bob);
        thread::sleep(Duration::from_secs(3));
        allow_descriptors(&server, 1024);
        let began = Instant::now();
        tunnel.end().failed_with(&["no longer accepts the credentials"]);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

#[test]
fn a_credential_that_expires_ends_its_tunnel() {
    let keys = Keys::new();
    let alice = keygen(&keys, "alice");
    let list = keys.at("authorized");
    let expires = SystemTime::now() + Duration::from_secs(4);
    let expires = OffsetDateTime::from(expires).format(&Rfc3339).unwrap();
    write(&list, &format!("expires=\"{expires}\",{alice}"));
    let (_server, driver) = server(&keys, binary(), &["--authorized-keys", &text(list)]);
    let identity = text(keys.at("alice"));
    let mut tunnel = client(&keys, binary(), driver, &["--identity", &identity]);
    tunnel.event("tunnel-up");
    let began = Instant::now();
    tunnel.end().failed_with(&["no longer accepts the credentials"]);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn a_token_that_is_taken_out_is_withdrawn() {
    for binary in binaries() {
        let keys = Keys::new();
        let (mut server, driver) = keys.server(binary, &free_ports(1), &[]);
        let own = keys.at("own");
        fs::copy(keys.at("token"), &own).unwrap();
        let mut tunnel = keys.client(binary, driver, echo(), &["--token-file", &text(own)]);
        tunnel.event("tunnel-up");
        server.event("tunnel-up");
        write(&keys.at("token"), "# nobody\n");
        tunnel.end().failed_with(&["no longer accepts the credentials"]);
    }
}

/// An authority for clients, and what it issues.
pub(crate) struct Authority {
    /// Its certificate, PEM.
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(parameters, key) }
    }

    /// A certificate for `name` and its key, PEM.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut parameters = CertificateParams::new([name.to_owned()]).unwrap();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a certificate for `name` and its key; the two paths.
    fn issue_to(&self, keys: &Keys, name: &str) -> (String, String) {
        let [cert_path, key_path] = [keys.at(&format!("{name}.pem")), keys.at(&format!("{name}.key"))];
        let (certificate, key) = self.issue(name);
        write(&cert_path, &certificate);
        write(&key_path, &key);
        (text(cert_path), text(key_path))
    }
}

#[test]
fn certificates_of_clients_and_a_token_besides() {
    for binary in binaries() {
        let keys = Keys::new();
        let authority = Authority::new();
        let list = keys.at("ca.pem");
        write(&list, &authority.certificate);
        let (cert, key) = authority.issue_to(&keys, "alice");
        let (foreign_cert, foreign_key) = Authority::new().issue_to(&keys, "alice.foreign");
        let token = text(keys.at("token"));

        // A certificate is enough.
        let (mut plain, driver) = server(&keys, binary, &["--client-ca", &text(list.clone())]);
        let mut alice = client(&keys, binary, driver, &["--cert", &cert, "--key", &key]);
        assert_eq!(alice.event("tunnel-up")["tunnel"], json!("alice"));
        let up = plain.event("tunnel-up");
        assert_eq!(
            (up["identity"].clone(), up["method"].clone()),
            (json!("alice"), json!("tls-client-cert"))
        );
        client(&keys, binary, driver, &["--cert", &foreign_cert, "--key", &foreign_key])
            .end()
            .failed_with(&["did not accept the credentials", "--client-ca"]);
        // Its authority is taken out.
        write(&list, &Authority::new().certificate);
        alice.end().failed_with(&["no longer accepts the credentials"]);
        drop(plain);

        // A certificate and a token are needed, without another word.
        write(&list, &authority.certificate);
        let both = ["--client-ca", &text(list), "--token-file", &token];
        let (mut strict, driver) = server(&keys, binary, &both);
        client(&keys, binary, driver, &["--cert", &cert, "--key", &key])
            .end()
            .failed_with(&["does not take tls-client-cert", "tls-client-cert+token"]);
        keys.client(binary, driver, echo(), &["--token-file", &token])
            .end()
            .failed_with(&["does not take token", "tls-client-cert+token"]);
        let foreign = ["--token-file", &token, "--cert", &foreign_cert, "--key", &foreign_key];
        keys.client(binary, driver, echo(), &foreign).end().failed_with(&["did not accept the credentials"]);
        let mut alice =
            keys.client(binary, driver, echo(), &["--token-file", &token, "--cert", &cert, "--key", &key]);
        alice.event("tunnel-up");
        let up = strict.event("tunnel-up");
        let expected = (json!("alice"), json!("tls-client-cert+token"));
        assert_eq!((up["identity"].clone(), up["method"].clone()), expected);
    }
}

#[test]
fn a_pin_trusts_one_certificate_and_the_server_may_change_it() {
    let keys = Keys::new();
    let made = run(binary(), ["cert", &text(keys.at("other")), "--san", "elsewhere.example"]);
    let pin = |text: &str| {
        let word = text.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
        word.trim_end_matches(';').to_owned()
    };
    let other = pin(&(made.stdout + &made.stderr));
    let (_server, driver) = keys.server(binary(), &free_ports(2), &[]);
    let trusting = |pin: &str| keys.client(binary(), driver, echo(), &["--authority", "", "--pin", pin]);
    let refused = trusting(&other).end();
    refused.failed_with(&["is another one: sha256:", "--pin"]);
    let own = pin(&refused.stderr);
    let mut before = trusting(&own);
    before.event("tunnel-up");
    // The name does not matter, and the new certificate is shown without a restart.
    for part in ["pub", "priv"] {
        fs::rename(keys.at(&format!("other.{part}.pem")), keys.at(&format!("server.{part}.pem"))).unwrap();
    }
    let deadline = Instant::now() + SOON;
    loop {
        if trusting(&other).next_line().is_some_and(|line| line.contains("tunnel-up")) {
            break;
        }
        assert!(Instant::now() < deadline, "the new certificate is not shown");
    }
    before.event("bound");
}

#[test]
fn files_that_others_may_read_or_change_are_refused() {
    let keys = Keys::new();
    keygen(&keys, "alice");
    let at = |name| text(keys.at(name));
    let (cert, key, token, list, identity) =
        (at("server.pub.pem"), at("server.priv.pem"), at("token"), at("alice.pub"), at("alice"));
    let chmod = |path: &str, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let server = ["server", "--cert", &cert, "--key", &key];
    let client = ["client", "--driver", "127.0.0.1:1", "--target", "127.0.0.1:1", "--authority", &cert];

    for (path, mode, options, advice) in [
        (&token, 0o644, [&server[..], &["--token-file", &token]].concat(), "chmod 600"),
        (&token, 0o620, [&client[..], &["--token-file", &token]].concat(), "chmod 600"),
        (&identity, 0o604, [&client[..], &["--identity", &identity]].concat(), "chmod 600"),
        (&key, 0o644, [&server[..], &["--auth", "none"]].concat(), "chmod 600"),
        (&list, 0o666, [&server[..], &["--authorized-keys", &list]].concat(), "chmod go-w"),
        (&cert, 0o622, client.to_vec(), "chmod go-w"),
    ] {
        chmod(path, mode);
        run(binary(), options).failed_with(&[path, advice]);
        chmod(path, 0o600);
    }
}

/// Everything that is secret, run with the most talkative log.
#[test]
fn no_secret_is_in_any_log() {
    for binary in binaries() {
        let keys = Keys::new();
        let list = keys.at("authorized");
        write(&list, &keygen(&keys, "alice"));
        let identity = text(keys.at("alice"));
        let token = fs::read_to_string(keys.at("token")).unwrap().trim().to_owned();
        let raw = data_encoding::BASE64URL_NOPAD.decode(token.as_bytes()).unwrap();
        let pem = fs::read_to_string(&identity).unwrap();
        let server_key = fs::read_to_string(keys.at("server.priv.pem")).unwrap();
        let mut secrets: Vec<String> = pem.lines().chain(server_key.lines()).map(str::to_owned).collect();
        secrets.retain(|line| !line.starts_with("--"));
        // Whichever way bytes may be shown: as text, hexadecimal, or a list of numbers.
        secrets.push(token);
        secrets.push(data_encoding::HEXLOWER.encode(&raw[..12]));
        secrets.push(format!("{:?}", &raw[..6]).trim_matches(['[', ']']).to_owned());

        let traced = |arguments: &[&str]| {
            let mut command = Command::new(binary);
            command.args(arguments);
            Program::spawn_with_log(&mut command, "trace")
        };
        let at = |name| text(keys.at(name));
        let (cert, key, file, ports) =
            (at("server.pub.pem"), at("server.priv.pem"), at("token"), free_ports(4));
        let mut server = traced(&[
            "server",
            "--json",
            "--cert",
            &cert,
            "--key",
            &key,
            "--quic",
            "127.0.0.1:0",
            "--ports",
            &ports,
            "--token-file",
            &file,
            "--authorized-keys",
            &text(list),
            "--auth",
            "ed25519+token,ed25519,token",
        ]);
        let driver = server.event("listening")["quic"].as_str().unwrap().to_owned();
        let target = echo().to_string();
        let common = ["client", "--json", "--driver", &driver, "--target", &target, "--authority", &cert];
        let mut ended = Vec::new();
        for credentials in [
            &["--token-file", &file][..],
            &["--identity", &identity],
            &["--token-file", &file, "--identity", &identity],
            &["--token-file", &file, "--identity", &identity, "--auth", "ed25519+token"],
        ] {
            let mut client = traced(&[&common, credentials].concat());
            client.event("tunnel-up");
            client.event("bound");
            client.signal(rustix::process::Signal::TERM);
            ended.push(client.end());
        }
        server.signal(rustix::process::Signal::TERM);
        ended.push(server.end());
        let said: String = ended.iter().map(|ended| ended.stdout.clone() + &ended.stderr).collect();
        assert!(said.contains("TRACE") && said.contains("tunnel"), "{said}");
        for secret in secrets {
            assert!(!said.contains(&secret), "{secret} is in a log");
        }
    }
}

#[test]
fn those_who_are_turned_away_are_counted() {
    let keys = Keys::new();
    let (mut server, driver) = keys.server(binary(), &free_ports(1), &["--strangers-per-source", "2"]);
    keygen(&keys, "alice");
    let identity = text(keys.at("alice"));
    client(&keys, binary(), driver, &["--identity", &identity]).end().failed_with(&["does not take ed25519"]);
    let told = server.event("strangers");
    assert_eq!((told["admitted"].clone(), told["refused"].clone()), (json!(1), json!(1)), "{told}");
}

#[test]
fn a_client_that_comes_back_has_its_name_and_port_at_once() {
    for binary in binaries() {
        let keys = Keys::new();
        let (mut server, driver) = keys.server(binary, &free_ports(2), &[]);
        let come = || keys.client(binary, driver, echo(), &["--name", "one"]);
        let mut older = come();
        older.event("tunnel-up");
        let port = bound_address(&older.event("bound"));
        let mut newer = come();
        newer.event("tunnel-up");
        assert_eq!(bound_address(&newer.event("bound")), port);
        older.end().failed_with(&["taken over the name one", "its own credential"]);
        assert_eq!(converse(port, b"the newer one"), b"the newer one");
        server.event("tunnel-up");
    }
}
