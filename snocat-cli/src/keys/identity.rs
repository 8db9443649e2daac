//! A client's own key: the private half of an Ed25519 key pair, in OpenSSH's format.

use std::path::Path;

use snocat_driver::core::auth::Ed25519Key;
use ssh_key::PrivateKey;
use zeroize::Zeroizing;

use super::mistaken;
use crate::error::Error;
use crate::files;

/// How a private key in OpenSSH's format begins.
const BEGIN: &[u8] = b"-----BEGIN OPENSSH PRIVATE KEY-----";

/// Where to get one.
const ADVICE: &str = "make one with `snocat keygen PATH` or `ssh-keygen -t ed25519`";

/// Reads the private key: the 32 bytes that the key pair is made from.
///
/// # Errors
/// The file cannot be read or others can read it, it holds no Ed25519 key, or that is encrypted.
pub fn read(path: &Path) -> Result<Zeroizing<[u8; 32]>, Error> {
    let contents = files::read_key(path, ADVICE)?;
    let path = path.display();
    parse(&contents).map_err(|problem| {
        let damaged = format!("{path} is damaged");
        match problem {
            Problem::Public => Error::failed(
                format_args!("{path} holds a public key"),
                "give the private one: the file without .pub",
            ),
            Problem::Format => {
                let what = match mistaken(&contents) {
                    Some("a private key") => "holds a private key in another format than OpenSSH's",
                    Some("a certificate") => "holds a certificate, and no private key of OpenSSH",
                    _ => "holds no private key of OpenSSH",
                };
                Error::failed(format_args!("{path} {what}"), ADVICE)
            }
            Problem::Type => Error::failed(format_args!("{path} holds a key of another type than Ed25519"), ADVICE),
            Problem::Encrypted => Error::failed(
                format_args!("{path} is encrypted with a passphrase"),
                "take it off a copy with `ssh-keygen -p -N '' -f COPY`, or make another key with `snocat keygen PATH`",
            ),
            Problem::Damaged => Error::failed(damaged, ADVICE),
        }
    })
}

/// Why contents are no key. Nothing of them: they may be a key all the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Problem {
    Public,
    Format,
    Type,
    Encrypted,
    Damaged,
}

fn parse(contents: &[u8]) -> Result<Zeroizing<[u8; 32]>, Problem> {
    let contents = contents.trim_ascii();
    if !contents.starts_with(BEGIN) {
        let public = [&b"ssh-"[..], b"ecdsa-", b"sk-"].iter().any(|kind| contents.starts_with(kind));
        return Err(if public { Problem::Public } else { Problem::Format });
    }
    let key = PrivateKey::from_openssh(contents).map_err(|error| match error {
        ssh_key::Error::AlgorithmUnknown | ssh_key::Error::AlgorithmUnsupported { .. } => Problem::Type,
        _ => Problem::Damaged,
    })?;
    if key.is_encrypted() {
        return Err(if key.algorithm().is_ed25519() { Problem::Encrypted } else { Problem::Type });
    }
    let pair = key.key_data().ed25519().ok_or(Problem::Type)?;
    let mut seed = Zeroizing::new([0; 32]);
    seed.copy_from_slice(pair.private.as_ref());
    // The parser only compares the copies of the public key with each other.
    if Ed25519Key::from_seed(&seed).public_key() == pair.public.0 { Ok(seed) } else { Err(Problem::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Existing;
    use std::process::Command;

    /// Made by `ssh-keygen -t ed25519 -C 'test key'`, for nothing but this.
    const KEY: &str = "\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACARAyFN+gpRPbSCYvXBgNWlJbHyM4lg4j6V2/frl+A1qQAAAJAatrJRGray
UQAAAAtzc2gtZWQyNTUxOQAAACARAyFN+gpRPbSCYvXBgNWlJbHyM4lg4j6V2/frl+A1qQ
AAAEB9J97iw5MTj9DkA5/qAVITxNwSNeAauVJgzQKji2MgNBEDIU36ClE9tIJi9cGA1aUl
sfIziWDiPpXb9+uX4DWpAAAACHRlc3Qga2V5AQIDBAU=
-----END OPENSSH PRIVATE KEY-----
";
    const KEY_PUB: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBEDIU36ClE9tIJi9cGA1aUlsfIziWDiPpXb9+uX4DWp test key";

    /// Made by `ssh-keygen -t ed25519 -N pass`.
    const ENCRYPTED: &str = "\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABD4mcnaMG
L+TF/0+rLHjdHzAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIDNWSm7loyBJGaYh
lf4iXzcur/JZuMY96wVY1Gb8zvgCAAAAkIJ8Yxfky7IyNi12kIZMt7+aKWEs2wCpfEh7C2
FYcp1LI8eER4OrJJBvjrDTZgFNV8ZHaTXQf6qaRmem3GL/iaw5Hq7PpVx6ndbfArP3qpVX
Yp+TSsFDnc3wbTRl3dyvi/S7EIt4wh8jaoH0mVBHwrDV84wu3PjAkNAimkuKjVTnrqUCYD
M9QLq7S+jCVIOzlg==
-----END OPENSSH PRIVATE KEY-----
";

    /// Whether `ssh-keygen` is there. What it says to `arguments`, if they are any.
    fn ssh_keygen(arguments: &[&str]) -> Option<String> {
        let made = Command::new("ssh-keygen").args(arguments).stdin(std::process::Stdio::null()).output();
        let Ok(output) = made else {
            println!("skipped: there is no ssh-keygen");
            return None;
        };
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        Some(String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn a_key_of_ssh_keygen() {
        let seed = parse(KEY.as_bytes()).unwrap();
        let public_key = ssh_key::PublicKey::from_openssh(KEY_PUB).unwrap();
        assert_eq!(Ed25519Key::from_seed(&seed).public_key(), public_key.key_data().ed25519().unwrap().0);
        for same in [KEY.replace('\n', "\r\n"), format!("\n\n{KEY}\n\n"), KEY.trim_end().to_owned()] {
            assert_eq!(parse(same.as_bytes()).unwrap(), seed);
        }
    }

    #[test]
    fn what_is_no_such_key_says_what_it_is() {
        let certificate = crate::cert::make(&["localhost".parse().unwrap()], 1).unwrap();
        for (contents, problem) in [
            (ENCRYPTED.as_bytes(), Problem::Encrypted),
            (KEY_PUB.as_bytes(), Problem::Public),
            (certificate.key.as_bytes(), Problem::Format),
            (b"", Problem::Format),
            (b"\0\0\0", Problem::Format),
            (b"\xff\xfe", Problem::Format),
            (&[b'A'; 1 << 20], Problem::Format),
            (BEGIN, Problem::Damaged),
            (&[BEGIN, b"\n\0\xff"].concat(), Problem::Damaged),
            (&[BEGIN, b"\n", &[b'A'; 1 << 20]].concat(), Problem::Damaged),
        ] {
            assert_eq!(parse(contents), Err(problem), "{}", contents.len());
        }
    }

    #[test]
    fn a_damaged_key_never_passes_for_one() {
        let seed = parse(KEY.as_bytes()).unwrap();
        let text = KEY.trim_end();
        for end in 0..text.len() {
            assert!(parse(&text.as_bytes()[..end]).is_err(), "cut off at {end}");
        }
        // Any one letter: another key that still is whole would be found out by its public half.
        for (at, byte) in text.bytes().enumerate() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if byte == b'A' { b'B' } else { b'A' };
            if let Ok(read) = parse(&changed) {
                assert_eq!(read, seed, "changed at {at}");
            }
        }
    }

    #[test]
    fn errors_say_what_to_do_and_show_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let error = |contents: &str| {
            files::create(&path, contents.as_bytes(), Existing::Replace).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(error(ENCRYPTED).contains("`ssh-keygen -p -N '' -f COPY`"), "{}", error(ENCRYPTED));
        assert!(error(KEY_PUB).contains("without .pub"));
        assert!(error("nothing").contains("no private key of OpenSSH; make one with `snocat keygen PATH`"));
        let secret = KEY.lines().nth(4).unwrap();
        for damaged in
            [KEY.replace("AAAEB9", "AAAEB8"), KEY.replace("AAAEB9", "CANARY"), KEY.replace('=', "!")]
        {
            let error = error(&damaged);
            assert!(error.contains("key is damaged; make one"), "{error}");
            for fragment in ["CANARY", &secret[..6], &secret[20..26]] {
                assert!(!error.contains(fragment), "{error}");
            }
        }
    }

    #[test]
    fn keys_of_all_types_from_ssh_keygen_itself() {
        let directory = tempfile::tempdir().unwrap();
        for (name, kind, passphrase, problem) in [
            ("plain", "ed25519", "", None),
            ("encrypted", "ed25519", "pass word", Some(Problem::Encrypted)),
            ("rsa", "rsa", "", Some(Problem::Type)),
            ("ecdsa", "ecdsa", "", Some(Problem::Type)),
            ("ecdsa-encrypted", "ecdsa", "pass word", Some(Problem::Type)),
        ] {
            let path = directory.path().join(name);
            let at = path.to_str().unwrap();
            if ssh_keygen(&["-q", "-t", kind, "-N", passphrase, "-C", "it's me", "-f", at]).is_none() {
                return;
            }
            let read = parse(&std::fs::read(&path).unwrap());
            assert_eq!(read.err(), problem, "{name}");
        }
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        // The way out that the message tells.
        ssh_keygen(&["-q", "-p", "-P", "pass word", "-N", "", "-f", &at("encrypted")]);
        parse(&std::fs::read(at("encrypted")).unwrap()).unwrap();
        let line = std::fs::read_to_string(at("plain.pub")).unwrap();
        assert!(line.ends_with(" it's me\n"));
    }

    #[test]
    fn ssh_keygen_reads_what_is_made_here() {
        let directory = tempfile::tempdir().unwrap();
        for (name, comment) in [("a", "alice's laptop"), ("b", "")] {
            let made = crate::keys::keygen::make(comment).unwrap();
            let path = directory.path().join(name);
            let at = path.to_str().unwrap();
            files::create(&path, made.private.as_bytes(), Existing::Keep).unwrap();
            let Some(line) = ssh_keygen(&["-y", "-f", at]) else { return };
            assert_eq!(line.trim_end(), made.public);
            let told = ssh_keygen(&["-l", "-f", at]).unwrap();
            let public_key = ssh_key::PublicKey::from_openssh(&made.public).unwrap();
            let fingerprint = public_key.fingerprint(ssh_key::HashAlg::Sha256).to_string();
            // Without a comment some versions say so.
            assert!(told.starts_with(&format!("256 {fingerprint} {comment}")), "{told}");
            assert!(told.trim_end().ends_with(" (ED25519)"), "{told}");
            // That ssh-keygen can change it shows that it takes every byte of it.
            ssh_keygen(&["-q", "-p", "-N", "pass word", "-f", at]).unwrap();
            assert_eq!(parse(&std::fs::read(at).unwrap()), Err(Problem::Encrypted));
        }
    }
}
