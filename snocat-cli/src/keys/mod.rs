//! Files of keys: whom a server lets in and what they may do, a credential a line; and a client's own key.
//!
//! No message tells any text of a line, only its number: a slip may have put a secret anywhere.

pub mod authorized;
pub mod identity;
pub mod keygen;
pub mod options;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str;
use std::time::SystemTime;

use crate::error::Error;

/// What a server's file of credentials held when it was read. Which of them are valid is a question of the time.
#[derive(Clone, Debug)]
pub struct KeyFile<T> {
    path: PathBuf,
    entries: Vec<Entry<T>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    line: usize,
    /// From then on it is not valid any more.
    expires: Option<SystemTime>,
    credential: T,
}

/// What a line says.
pub(crate) struct Said<T, I> {
    /// By what it is known that two lines mean the same credential.
    pub(crate) id: I,
    /// Whose it is, if the line says so.
    pub(crate) identity: Option<String>,
    /// From then on it is not valid any more.
    pub(crate) expires: Option<SystemTime>,
    /// The credential.
    pub(crate) credential: T,
}

impl<T: Clone> KeyFile<T> {
    /// Takes the file's contents line by line, with `read` for each that is neither blank nor a `#` comment. `form`
    /// tells what a line looks like.
    ///
    /// Lines that say the same identity are logged: that may be meant, as while a key is replaced by another.
    ///
    /// # Errors
    /// A line is wrong, or is there twice.
    pub(crate) fn parse<I: Ord>(
        path: &Path,
        contents: &[u8],
        form: &str,
        read: impl Fn(&str) -> Result<Said<T, I>, String>,
    ) -> Result<Self, Error> {
        let Parsed { entries, shared } = parse(contents, read).map_err(|Wrong { line, what, advice }| {
            Error::failed(format_args!("{}, line {line}: {what}", path.display()), advice.unwrap_or(form))
        })?;
        for (first, second) in shared {
            tracing::warn!(
                file = %path.display(),
                "lines {first} and {second} have the same identity: a tunnel of one replaces a tunnel of the other that \
                 has the same name"
            );
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    /// The credentials that are valid `now`: those that have expired are left out, and the log says so.
    pub fn valid(&self, now: SystemTime) -> Vec<T> {
        let mut valid = Vec::new();
        for entry in &self.entries {
            if entry.expires.is_some_and(|expires| expires <= now) {
                tracing::info!(file = %self.path.display(), line = entry.line, "expired, and left out");
            } else {
                valid.push(entry.credential.clone());
            }
        }
        valid
    }

    /// When the first of those that are valid `now` expires, if any does: the time to ask [`valid`](Self::valid)
    /// again.
    pub fn next_expiry(&self, now: SystemTime) -> Option<SystemTime> {
        self.entries.iter().filter_map(|entry| entry.expires).filter(|expires| *expires > now).min()
    }

    /// Like [`valid`](Self::valid), where a file that lets nobody in is a mistake. `what` is what it should hold.
    ///
    /// # Errors
    /// It holds none, or all have expired.
    pub fn some_valid(&self, now: SystemTime, what: &str, advice: &str) -> Result<Vec<T>, Error> {
        let valid = self.valid(now);
        if !valid.is_empty() {
            return Ok(valid);
        }
        let path = self.path.display();
        Err(if self.entries.is_empty() {
            Error::failed(format_args!("{path} holds no {what}"), advice)
        } else {
            Error::failed(format_args!("{path} holds no {what} that has not expired"), advice)
        })
    }
}

/// What a file is that was given in place of another, if its beginning tells.
pub(crate) fn mistaken(contents: &[u8]) -> Option<&'static str> {
    let text = contents.trim_ascii_start();
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    if let Some(label) = first.strip_prefix(b"-----BEGIN ") {
        let is = |kind: &str| label.ends_with(format!("{kind}-----").as_bytes());
        let kinds = [
            ("PRIVATE KEY", "a private key"),
            ("PUBLIC KEY", "a public key"),
            ("CERTIFICATE", "a certificate"),
        ];
        return kinds.into_iter().find(|(kind, _)| is(kind)).map(|(_, what)| what);
    }
    [&b"ssh-"[..], b"ecdsa-", b"sk-"].iter().any(|kind| text.starts_with(kind)).then_some("a public key")
}

/// What a file says.
struct Parsed<T> {
    entries: Vec<Entry<T>>,
    /// The numbers of lines that say the same identity: of the first of them, and of each further one.
    shared: Vec<(usize, usize)>,
}

/// What is wrong with a line.
struct Wrong {
    line: usize,
    what: String,
    /// What to do, if it does not help to know what a line looks like.
    advice: Option<&'static str>,
}

/// What the file says, or what is wrong with it.
fn parse<T, I: Ord>(
    contents: &[u8],
    read: impl Fn(&str) -> Result<Said<T, I>, String>,
) -> Result<Parsed<T>, Wrong> {
    // Some editors put a byte order mark there, which nobody sees.
    let contents = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents);
    let mut parsed = Parsed { entries: Vec::new(), shared: Vec::new() };
    let mut seen = BTreeMap::new();
    let mut holders = BTreeMap::new();
    for (number, line) in (1..).zip(contents.split(|byte| *byte == b'\n')) {
        let wrong = |what: &str| Wrong { line: number, what: what.to_owned(), advice: None };
        let line = str::from_utf8(line).map_err(|_| wrong("this is not UTF-8 text"))?.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.contains(|character: char| character.is_control() && character != '\t') {
            return Err(wrong("there is a control character in it"));
        }
        let Said { id, identity, expires, credential } = read(line).map_err(|what| wrong(&what))?;
        if let Some(first) = seen.insert(id, number) {
            let what = format!("this is the key of line {first} again");
            return Err(Wrong { line: number, what, advice: Some("take one of the two lines out") });
        }
        if let Some(identity) = identity {
            let first = *holders.entry(identity).or_insert(number);
            if first != number {
                parsed.shared.push((first, number));
            }
        }
        parsed.entries.push(Entry { line: number, expires, credential });
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Lines are `NAME` or `NAME EXPIRY`, the time in seconds.
    fn file(contents: &[u8]) -> Result<KeyFile<String>, Error> {
        KeyFile::parse(Path::new("keys"), contents, "a line is NAME", |line| {
            let (name, expires) = line.split_once(' ').unwrap_or((line, ""));
            if name == "wrong" {
                return Err("it is wrong".to_owned());
            }
            let expires = expires.parse().ok().map(at);
            Ok(Said { id: name.to_owned(), identity: None, expires, credential: name.to_owned() })
        })
    }

    #[test]
    fn lines_of_one_identity_are_found() {
        let parsed = parse(b"a alice\nb bob\n\nc alice\nd\ne alice", |line| {
            let (id, identity) = line.split_once(' ').unzip();
            let id = id.unwrap_or(line).to_owned();
            Ok(Said { id, identity: identity.map(str::to_owned), expires: None, credential: () })
        });
        assert_eq!(parsed.ok().unwrap().shared, [(1, 4), (1, 6)]);
    }

    #[test]
    fn comments_blank_lines_and_both_kinds_of_line_ends() {
        let read = file(b"# one\r\n\r\na\r\n \tb 5 \n#c\n\nd").unwrap();
        assert_eq!(read.valid(at(0)), ["a", "b", "d"]);
        for empty in [&b""[..], b"\n", b"\r\n\r\n", b"# nothing"] {
            let read = file(empty).unwrap();
            assert!(read.valid(at(0)).is_empty());
            let error = read.some_valid(at(0), "name", "add one").unwrap_err();
            assert_eq!(error.to_string(), "keys holds no name; add one");
        }
    }

    #[test]
    fn what_has_expired_is_left_out_from_that_moment_on() {
        let read = file(b"a 20\nb\nc 10\nd 20").unwrap();
        assert_eq!((read.valid(at(9)).join(""), read.next_expiry(at(9))), ("abcd".into(), Some(at(10))));
        assert_eq!((read.valid(at(10)).join(""), read.next_expiry(at(10))), ("abd".into(), Some(at(20))));
        assert_eq!((read.valid(at(20)).join(""), read.next_expiry(at(20))), ("b".into(), None));
        assert_eq!(read.some_valid(at(20), "name", "add one").unwrap(), ["b"]);
        let error = file(b"a 1").unwrap().some_valid(at(1), "name", "add one").unwrap_err();
        assert!(error.to_string().contains("has not expired"), "{error}");
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let huge = [&b"a\nCANARY"[..], &b"x".repeat(1 << 20), b"\0"].concat();
        for (contents, line, hint) in [
            (&b"a\n\n# c\nwrong"[..], 4, "it is wrong"),
            (b"a\nCANARY\0b", 2, "control character"),
            (b"CANARY\rb", 1, "control character"),
            (b"CANARY\x1b[2J", 1, "control character"),
            (b"\n\xff\xfeCANARY", 2, "UTF-8"),
            (&huge, 2, "control character"),
        ] {
            let error = file(contents).unwrap_err().to_string();
            assert!(error.starts_with(&format!("keys, line {line}: ")), "{error}");
            assert!(error.contains(hint) && error.ends_with("; a line is NAME"), "{error}");
            assert!(!error.contains("CANARY"), "{error}");
        }
        let twice = file(b"a\r\nb\r\na 7\r\n").unwrap_err().to_string();
        assert_eq!(twice, "keys, line 3: this is the key of line 1 again; take one of the two lines out");
    }
}
