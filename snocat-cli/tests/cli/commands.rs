//! The commands that open no connection, and what a wrong command line does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::program::{Keys, Program, binaries, binary, mode, run};

#[test]
fn help_and_version_go_to_stdout() {
    for binary in binaries() {
        for arguments in
            [&["--help"][..], &["-h"], &["help"], &["server", "--help"], &["client", "-h"], &["--version"]]
        {
            let ended = run(binary, arguments);
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}");
            assert!(ended.stdout.len() > 10, "{arguments:?}");
        }
        let help = run(binary, ["--help"]).stdout;
        for word in [
            "cert",
            "token",
            "keygen",
            "server",
            "client",
            "demo",
            "Examples:",
            "Exit codes:",
            "RUST_LOG",
            "SSLKEYLOGFILE",
        ] {
            assert!(help.contains(word), "{word} is missing:\n{help}");
        }
        let name = binary.rsplit('/').next().unwrap();
        let version = run(binary, ["--version"]).stdout;
        assert_eq!(version, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let keys = Keys::new();
    let (cert, key) = (keys.at("server.pub.pem"), keys.at("server.priv.pem"));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    for arguments in [
        &[][..],
        &["nonsense"],
        &["server"],
        &["server", "--cert", cert, "--key", key],
        &["server", "--cert", cert, "--key", key, "--auth", "none", "--token-file", "x"],
        &["server", "--cert", cert, "--key", key, "--auth", "none", "--ports", "2:1"],
        &["client", "--driver", "localhost", "--target", "localhost:1"],
        &["client", "--driver", "::1", "--target", "localhost:1"],
        &["cert"],
        &["cert", "keys/"],
        &["keygen"],
        &["keygen", "keys/"],
        &["keygen", "x", "--comment", "a\nb"],
    ] {
        let ended = run(binary(), arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
    }
    let undecided = run(binary(), ["server", "--cert", cert, "--key", key]);
    assert!(
        undecided.stderr.contains("--token-file") && undecided.stderr.contains("--auth none"),
        "{undecided:?}"
    );
    let unknown = run(binary(), ["client", "--driver", "h:1", "--target", "t:1", "--congestion", "reno"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("bbr") && unknown.stderr.contains("cubic"), "{unknown:?}");
}

#[test]
fn certificates() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let made = run(binary(), ["cert", &at("a/b/server"), "--san", "example.org", "--san", "::1"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let fingerprint = made.stdout.trim_end().strip_prefix("sha256:").unwrap();
    assert!(fingerprint.len() == 64 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made:?}");
    fs::write(at("any"), "").unwrap();
    let public = 0o644 & mode(at("any").as_ref());
    for (ending, label, expected) in [("pub", "CERTIFICATE", public), ("priv", "PRIVATE KEY", 0o600)] {
        let path = directory.path().join(format!("a/b/server.{ending}.pem"));
        assert_eq!(mode(&path), expected);
        assert!(fs::read_to_string(path).unwrap().starts_with(&format!("-----BEGIN {label}-----")));
    }

    let before = fs::read(at("a/b/server.priv.pem")).unwrap();
    run(binary(), ["cert", &at("a/b/server")]).failed_with(&["already exists", "--force"]);
    fs::remove_file(at("a/b/server.pub.pem")).unwrap();
    run(binary(), ["cert", &at("a/b/server")]).failed_with(&["server.priv.pem already exists"]);
    assert!(!fs::exists(at("a/b/server.pub.pem")).unwrap(), "both or none");
    assert_eq!(fs::read(at("a/b/server.priv.pem")).unwrap(), before);
    assert_eq!(run(binary(), ["cert", &at("a/b/server"), "--force"]).code, Some(0));
    assert_ne!(fs::read(at("a/b/server.priv.pem")).unwrap(), before);

    fs::write(at("file"), "").unwrap();
    run(binary(), ["cert", &at("file/server")]).failed_with(&["cannot make the directory"]);
}

/// OpenSSL and what builds on it, and Python's cryptography, read PKCS#8 in its first version only.
#[test]
fn openssl_reads_the_key_of_a_certificate() {
    let keys = Keys::new();
    let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
    let openssl = |arguments: &[&str]| match Command::new("openssl").args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            Some(output.stdout)
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "there is no openssl: {error}");
            println!("skipped: there is no openssl");
            None
        }
    };
    let of_key = openssl(&["pkey", "-in", &at("server.priv.pem"), "-pubout"]);
    let of_certificate = openssl(&["x509", "-in", &at("server.pub.pem"), "-noout", "-pubkey"]);
    assert_eq!(of_key, of_certificate);
}

#[test]
fn tokens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys/token");
    let at = path.to_str().unwrap();
    let printed = run(binary(), ["token"]);
    assert_eq!(
        (printed.code, printed.stderr.as_str(), printed.stdout.len()),
        (Some(0), "", 44),
        "{printed:?}"
    );
    assert_ne!(printed.stdout, run(binary(), ["token"]).stdout);

    let made = run(binary(), ["token", at, "--name", "alice"]);
    assert_eq!((made.code, made.stdout.as_str()), (Some(0), ""), "a secret is in one place: {made:?}");
    assert_eq!(mode(&path), 0o600);
    let line = fs::read_to_string(&path).unwrap();
    assert!(line.starts_with("alice:") && line.len() == 50 && line.ends_with('\n'));
    assert!(!made.stderr.contains(line.trim_start_matches("alice:").trim_end()));
    run(binary(), ["token", at]).failed_with(&["already exists", "--force"]);
    assert_eq!(run(binary(), ["token", at, "--force"]).code, Some(0));
    assert_eq!(fs::read_to_string(&path).unwrap().len(), 44);
}

#[test]
fn files_that_do_not_serve() {
    let keys = Keys::new();
    let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
    let (cert, key, token) = (at("server.pub.pem"), at("server.priv.pem"), at("token"));
    let server = |cert: &str, key: &str, token: &str| {
        run(
            binary(),
            ["server", "--cert", cert, "--key", key, "--token-file", token, "--quic", "127.0.0.1:0"],
        )
    };
    let secret = |name: &str, text: &str| {
        fs::write(at(name), text).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    server(&at("none"), &key, &token).failed_with(&["none", "snocat cert"]);
    server(&cert, &at("none"), &token).failed_with(&["none"]);
    server(&cert, &key, &at("none")).failed_with(&["none", "snocat token"]);
    server(&key, &key, &token).failed_with(&["holds no certificate"]);
    server(&cert, &cert, &token).failed_with(&["holds no private key"]);
    secret("bad", "# one\nalice:hello\n");
    let bad = server(&cert, &key, &at("bad"));
    bad.failed_with(&["line 2"]);
    assert!(!bad.stderr.contains("hello"), "{bad:?}");
    assert_eq!(run(binary(), ["cert", &at("other")]).code, Some(0));
    server(&cert, &at("other.priv.pem"), &token).failed_with(&["is not the key of"]);

    let client = |authority: &str, token: &str| {
        let ends = ["--driver", "127.0.0.1:9", "--target", "127.0.0.1:9"];
        run(binary(), [&["client", "--authority", authority, "--token-file", token][..], &ends].concat())
    };
    client(&at("none"), &token).failed_with(&["none"]);
    client(&cert, &at("none")).failed_with(&["none"]);
    let line = fs::read_to_string(&token).unwrap();
    secret("two", &format!("{line}{}", run(binary(), ["token"]).stdout));
    client(&cert, &at("two")).failed_with(&["holds 2 tokens"]);
    assert_eq!(run(binary(), ["keygen", &at("web")]).code, Some(0));
    let public =
        ["client", "--identity", &at("web.pub"), "--driver", "127.0.0.1:9", "--target", "127.0.0.1:9"];
    run(binary(), public).failed_with(&["holds a public key", "without .pub"]);
}

#[test]
fn files_that_others_may_read_or_change_are_refused() {
    let keys = Keys::new();
    let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
    let (cert, key, token) = (at("server.pub.pem"), at("server.priv.pem"), at("token"));
    let chmod = |path: &str, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let server = ["server", "--cert", &cert, "--key", &key, "--token-file", &token, "--quic", "127.0.0.1:0"];
    let client = ["client", "--authority", &cert, "--token-file", &token, "--driver", "127.0.0.1:9"];
    let client = [&client[..], &["--target", "127.0.0.1:9"]].concat();
    for secret in [&key, &token] {
        chmod(secret, 0o644);
        let mend = format!("`chmod 600 {secret}`");
        run(binary(), server).failed_with(&[secret, "can be read by every user of this machine", &mend]);
        if *secret == token {
            run(binary(), &client).failed_with(&[secret, &mend]);
        }
        chmod(secret, 0o600);
    }
    chmod(&cert, 0o664);
    run(binary(), &client).failed_with(&[&cert, "can be changed by group ", "`chmod go-w "]);
}

#[test]
fn key_pairs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys/laptop");
    let (at, public) = (path.to_str().unwrap(), path.with_extension("pub"));
    let made = run(binary(), ["keygen", at, "--comment", "alice@laptop"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(
        made.stdout.starts_with("ssh-ed25519 AAAA") && made.stdout.ends_with(" alice@laptop\n"),
        "{made:?}"
    );
    assert_eq!(fs::read_to_string(&public).unwrap(), made.stdout, "it can be appended to a file as it is");
    assert!(made.stderr.contains("--identity") && made.stderr.contains("--authorized-keys"), "{made:?}");
    let any = directory.path().join("any");
    fs::write(&any, "").unwrap();
    assert_eq!((mode(&path), mode(&public)), (0o600, 0o644 & mode(&any)));
    let private = fs::read_to_string(&path).unwrap();
    assert!(private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "{private}");
    let told = format!("{}{}", made.stdout, made.stderr);
    assert!(private.lines().skip(1).all(|line| !told.contains(line)), "a secret is in one place");

    run(binary(), ["keygen", at]).failed_with(&["already exists", "--force"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), private);
    let again = run(binary(), ["keygen", at, "--force"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_ne!(again.stdout, made.stdout);
}

#[test]
#[cfg_attr(
    not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64")),
    ignore = "the system's allocator is used here"
)]
fn the_allocator_was_compiled_as_this_project_wants_it() {
    for binary in binaries() {
        let mut command = Command::new(binary);
        let ended =
            Program::spawn(command.arg("--version").env("_RJEM_MALLOC_CONF", "confirm_conf:true")).end();
        for set in ["background_thread:true", "narenas:1", "dirty_decay_ms:2000", "tcache_nslots_small_max:8"]
        {
            assert!(ended.stderr.contains(&format!("Set conf value: {set}\n")), "{set}: {ended:?}");
        }
    }
}
