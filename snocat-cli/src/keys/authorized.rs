//! Authorized keys: the public keys that a server lets in, as OpenSSH writes them, each with what it allows.
//!
//! A line is `[OPTIONS ]ssh-ed25519 BASE64[ COMMENT]` ([`options`](super::options)). Whoever made the key wrote the comment, so it
//! decides nothing: the identity is what the option says, else the key's fingerprint.

use std::path::Path;

use snocat_driver::core::auth::AuthorizedKey;
use ssh_key::{HashAlg, PublicKey};

use super::options::{KNOWN, Options};
use super::{KeyFile, Said, mistaken};
use crate::error::Error;
use crate::files;

/// The one type of keys.
const TYPE: &str = "ssh-ed25519";

/// How the types begin that OpenSSH has besides.
const OTHER_TYPES: [&str; 4] = ["ssh-", "ecdsa-", "sk-", "rsa-"];

/// What is wrong with a key of another type.
const OTHER_TYPE: &str = "only ssh-ed25519 keys are taken";

/// What a line looks like.
pub(crate) const FORM: &str =
    "a line is [OPTIONS ]ssh-ed25519 BASE64[ COMMENT], as in the .pub file of `snocat keygen PATH`";

/// Reads a file of authorized keys. It may hold none: then nobody is let in.
///
/// # Errors
/// The file cannot be read or others may change it, or a line is wrong.
pub fn read(path: &Path) -> Result<KeyFile<AuthorizedKey>, Error> {
    let contents = files::read_trusted(path, FORM)?;
    match mistaken(&contents) {
        Some(what @ "a private key") => {
            return Err(Error::failed(
                format_args!("{} holds {what}", path.display()),
                "it stays where it was made; give the public key of a client: the file with .pub",
            ));
        }
        Some(what @ "a certificate") => {
            return Err(Error::failed(
                format_args!("{} holds {what}, and no public key", path.display()),
                "give the certificate of an authority with --client-ca",
            ));
        }
        _ => {}
    }
    KeyFile::parse(path, &contents, FORM, line)
}

fn line(line: &str) -> Result<Said<AuthorizedKey, [u8; 32]>, String> {
    let (options, rest) = Options::split(line)?;
    let (kind, rest) = split_word(rest);
    if kind != TYPE {
        return Err(if OTHER_TYPES.iter().any(|other| kind.starts_with(other)) {
            OTHER_TYPE.to_owned()
        } else {
            format!("there is neither a key nor an option: {KNOWN}")
        });
    }
    let (base64, _comment) = split_word(rest);
    // Without the parser's words, which may show what it found.
    let key = PublicKey::from_openssh(&format!("{TYPE} {base64}"))
        .map_err(|_| "the key is damaged: its base64 text does not parse")?;
    let bytes = key.key_data().ed25519().ok_or(OTHER_TYPE)?.0;
    let fingerprint = || key.fingerprint(HashAlg::Sha256).to_string();
    let identity = options.identity.clone().unwrap_or_else(fingerprint);
    let credential = AuthorizedKey { key: bytes, identity, grant: options.grant() };
    Ok(Said { id: bytes, identity: options.identity, expires: options.expires, credential })
}

/// The first word, and what follows the blanks behind it.
fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use snocat_driver::core::auth::{Grant, Names};
    use std::fs;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    const A: &str = "AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    /// What `ssh-keygen -l` says of it.
    const A_PRINT: &str = "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ";
    const B: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    fn parse(text: &[u8]) -> Result<Vec<AuthorizedKey>, Error> {
        KeyFile::parse(Path::new("keys"), text, FORM, line).map(|file| file.valid(UNIX_EPOCH))
    }

    fn one(text: &str) -> AuthorizedKey {
        let mut keys = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(keys.len(), 1, "{text}");
        keys.pop().unwrap()
    }

    #[test]
    fn whose_key_it_is() {
        for (line, identity) in [
            (format!("ssh-ed25519 {A}"), A_PRINT),
            (format!("ssh-ed25519 {A} \t\r"), A_PRINT),
            (format!("ssh-ed25519 {A} alice@laptop"), A_PRINT),
            (format!(" ssh-ed25519\t{A}  Alice's laptop = good,  really \r\n"), A_PRINT),
            (format!("ssh-ed25519 {A} {}", "x".repeat(1 << 20)), A_PRINT),
            (format!(r#"identity="alice" ssh-ed25519 {A} laptop"#), "alice"),
            (format!("identity=\"alice\" ssh-ed25519 {A} {}", "x".repeat(1 << 20)), "alice"),
        ] {
            let key = one(&line);
            assert_eq!(key.identity, identity, "{line}");
            assert_eq!(key.key[..4], [0xb3, 0x3e, 0xae, 0xf3]);
            assert_eq!(key.grant, Grant::default());
        }
    }

    #[test]
    fn what_it_allows() {
        let options = r#"identity="alice",names="web,db-*",ports="80",from="192.0.2.1""#;
        let key = one(&format!("{options} ssh-ed25519 {A} a laptop"));
        let names = vec!["web".parse().unwrap(), "db-*".parse().unwrap()];
        let sources = vec!["192.0.2.1/32".parse().unwrap()];
        let grant = Grant { names: Names::Only(names), ports: Some(vec![80..=80]), sources: Some(sources) };
        assert_eq!((key.identity.as_str(), key.grant), ("alice", grant));
    }

    #[test]
    fn until_when_it_counts() {
        let options = r#"identity="a",expires="1970-01-01""#;
        let text = format!("{options} ssh-ed25519 {A}\r\nidentity=\"b\" ssh-ed25519 {B}\r\n# end");
        let file = KeyFile::parse(Path::new("keys"), text.as_bytes(), FORM, line).unwrap();
        let day = UNIX_EPOCH + Duration::from_secs(86_400);
        let valid = |now: SystemTime| file.valid(now).into_iter().map(|key| key.identity).collect::<Vec<_>>();
        assert_eq!(valid(UNIX_EPOCH), ["a", "b"]);
        assert_eq!(file.next_expiry(UNIX_EPOCH), Some(day));
        assert_eq!((valid(day), file.next_expiry(day)), (vec!["b".to_owned()], None));
    }

    #[test]
    fn wrong_lines_are_named_and_not_shown() {
        let rsa = "AAAAB3NzaC1yc2EAAAADAQABAAAAQQDC";
        let huge = format!("ssh-ed25519 {A}{}", "A".repeat(1 << 20));
        for (text, line, hint) in [
            (format!("# c\n\nssh-rsa {rsa} CANARY").as_bytes(), 3, "only ssh-ed25519 keys are taken"),
            (format!(r#"names="a" ssh-rsa {rsa}"#).as_bytes(), 1, "only ssh-ed25519 keys are taken"),
            (format!("ssh-ed25519 {rsa}").as_bytes(), 1, "the key is damaged"),
            (b"ecdsa-sha2-nistp256 CANARY", 1, "only ssh-ed25519 keys are taken"),
            (b"sk-ssh-ed25519@openssh.com CANARY", 1, "only ssh-ed25519 keys are taken"),
            (b"ssh-ed25519-cert-v01@openssh.com CANARY", 1, "only ssh-ed25519 keys are taken"),
            (format!("cert-authority ssh-ed25519 {A}").as_bytes(), 1, "neither a key nor an option"),
            (format!("restrict ssh-ed25519 {A}").as_bytes(), 1, "neither a key nor an option"),
            (format!("restrict,names=\"a\" ssh-ed25519 {A}").as_bytes(), 1, "option 1 is not known"),
            (format!("SSH-ED25519 {A}").as_bytes(), 1, "neither"),
            (A.as_bytes(), 1, "neither"),
            (b"ssh-ed25519", 1, "the key is damaged"),
            (b"ssh-ed25519 CANARY", 1, "the key is damaged"),
            (format!("ssh-ed25519 {}", &A[..A.len() - 4]).as_bytes(), 1, "the key is damaged"),
            (format!("ssh-ed25519 {A}AAAA").as_bytes(), 1, "the key is damaged"),
            (huge.as_bytes(), 1, "the key is damaged"),
            (b"ssh-ed25519 \0CANARY", 1, "control character"),
            (b"\xffCANARY", 1, "UTF-8"),
            (b"-----BEGIN OPENSSH PRIVATE KEY-----\nCANARY", 1, "neither"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("keys, line {line}: ")) && error.contains(hint), "{error}");
            assert!(error.ends_with("`snocat keygen PATH`"), "{error}");
            assert!(!error.contains("CANARY") && !error.contains("AAAA"), "{error}");
        }
        let twice = format!("ssh-ed25519 {A} a\nidentity=\"b\",expires=\"1970-01-01\" ssh-ed25519 {A} b");
        let error = parse(twice.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("keys, line 2: this is the key of line 1 again; "), "{error}");
    }

    #[test]
    fn a_file_may_be_empty_and_not_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let error = read(&path).unwrap_err().to_string();
        assert!(error.starts_with("cannot read") && error.ends_with("`snocat keygen PATH`"), "{error}");
        files::create(&path, b"# nobody yet\n", files::Existing::Keep).unwrap();
        assert!(read(&path).unwrap().valid(UNIX_EPOCH).is_empty());
        fs::write(&path, format!("ssh-ed25519 {A} a")).unwrap();
        assert_eq!(read(&path).unwrap().valid(UNIX_EPOCH).len(), 1);
    }
}
