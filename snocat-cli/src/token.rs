//! `snocat token`: secrets that server and client share, and the files that hold them.
//!
//! A line is `[NAME:]SECRET`, the secret in base64url without padding; `#` starts a comment line.

use std::collections::BTreeMap;
use std::path::Path;
use std::str;

use data_encoding::BASE64URL_NOPAD;
use snocat_driver::core::auth::{TokenKey, TokenKeys, TokenSecret, TunnelName};
use zeroize::Zeroizing;

use crate::args::TokenArgs;
use crate::error::Error;
use crate::files::{self, Existing};
use crate::output;

/// Random bytes in a token that is made here.
const SECRET_BYTES: usize = 32;

/// What to do when a token file cannot be used.
const ADVICE: &str = "make one with `snocat token PATH`";

/// Runs `snocat token`.
///
/// # Errors
/// The file is there already or cannot be made, or the system gives no randomness.
pub fn run(arguments: &TokenArgs) -> Result<(), Error> {
    let secret = random()?;
    let encoded = Zeroizing::new(BASE64URL_NOPAD.encode(secret.as_slice()));
    let line = Zeroizing::new(match &arguments.name {
        Some(name) => format!("{name}:{}", encoded.as_str()),
        None => encoded.to_string(),
    });
    let Some(path) = &arguments.path else { return output::result(&line) };
    let existing = if arguments.force { Existing::Replace } else { Existing::Keep };
    let contents = Zeroizing::new(format!("{}\n", line.as_str()));
    files::create(path, contents.as_bytes(), existing)?;
    output::note(format_args!("wrote {}; server and client take it with --token-file", path.display()));
    Ok(())
}

/// A new secret.
///
/// # Errors
/// The system gives no randomness.
pub fn random() -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut secret = Zeroizing::new(vec![0; SECRET_BYTES]);
    getrandom::fill(&mut secret).map_err(|error| {
        Error::failed(format_args!("the system gives no randomness: {error}"), "try again")
    })?;
    Ok(secret)
}

/// The tokens that a server lets in.
///
/// # Errors
/// The file cannot be read, holds none, or a line is wrong.
pub fn server_keys(path: &Path) -> Result<TokenKeys, Error> {
    let keys = load(path)?;
    Ok(TokenKeys::new(keys))
}

/// The one token of a client.
///
/// # Errors
/// The file cannot be read, holds none or several, or a line is wrong.
pub fn client_secret(path: &Path) -> Result<TokenSecret, Error> {
    let mut keys = load(path)?;
    match (keys.pop(), keys.is_empty()) {
        (Some(key), true) => Ok(key.secret),
        _ => Err(Error::failed(
            format_args!("{} holds {} tokens", path.display(), keys.len() + 1),
            "a client's file holds its own one: copy that line to a file",
        )),
    }
}

fn load(path: &Path) -> Result<Vec<TokenKey>, Error> {
    let contents = files::read_secret(path, ADVICE)?;
    let keys = parse(&contents).map_err(|(line, what)| {
        Error::failed(format_args!("{}, line {line}: {what}", path.display()), "a line is [NAME:]SECRET")
    })?;
    if keys.is_empty() {
        return Err(Error::failed(format_args!("{} holds no token", path.display()), ADVICE));
    }
    Ok(keys)
}

/// The tokens of a file's contents, or the number of the line that is wrong and what is wrong with it, without
/// any of its text: it may be a secret with a slip.
fn parse(contents: &[u8]) -> Result<Vec<TokenKey>, (usize, String)> {
    let mut keys = Vec::new();
    let mut seen = BTreeMap::new();
    for (number, line) in (1..).zip(contents.split(|byte| *byte == b'\n')) {
        let wrong = |what: &str| (number, what.to_owned());
        let line = str::from_utf8(line).map_err(|_| wrong("this is not UTF-8 text"))?.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, secret) = match line.split_once(':') {
            Some((name, secret)) => (Some(name.trim_end()), secret.trim_start()),
            None => (None, line),
        };
        let identity = name
            .map(|name| name.parse::<TunnelName>().map(|name| name.to_string()))
            .transpose()
            .map_err(|error| (number, error.to_string()))?;
        let secret = BASE64URL_NOPAD
            .decode(secret.as_bytes())
            .map_err(|_| wrong("the secret is not base64url without padding"))?;
        let secret = TokenSecret::new(secret).map_err(|error| (number, error.to_string()))?;
        if let Some(first) = seen.insert(secret.key_id(), number) {
            return Err((number, format!("this is the secret of line {first} again")));
        }
        keys.push(match identity {
            Some(identity) => TokenKey::of(&identity, secret),
            None => TokenKey::nameless(secret),
        });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const B: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE";

    #[test]
    fn names_comments_and_blank_lines() {
        let text = format!("# the team\r\n\r\nalice:{A}\r\n  {B}\t\n#bob:{A}");
        let names: Vec<_> = parse(text.as_bytes()).unwrap().into_iter().map(|key| key.identity).collect();
        assert_eq!(names, [Some("alice".to_owned()), None]);
        assert!(parse(b"").unwrap().is_empty());
        assert!(parse(b"# nothing\n").unwrap().is_empty());
    }

    #[test]
    fn wrong_lines_are_named_and_not_shown() {
        let short = BASE64URL_NOPAD.encode(&[7; 15]);
        for (text, line, hint) in [
            (format!("{A}\n\n{A}"), 3, "line 1 again"),
            (format!("#\n{short}"), 2, "at least 16 bytes"),
            (format!("{A}="), 1, "base64url"),
            (format!("{A}\nhello world"), 2, "base64url"),
            (format!("a/b:{A}"), 1, "a tunnel name has"),
            (format!(":{A}"), 1, "a tunnel name has"),
        ] {
            let Err((number, what)) = parse(text.as_bytes()) else { panic!("{text} was taken") };
            assert_eq!(number, line, "{text}");
            assert!(what.contains(hint), "{text}: {what}");
            assert!(!what.contains(A) && !what.contains("hello"), "{what}");
        }
        assert!(parse(b"\xff\xfe").is_err());
        assert!(parse(BASE64URL_NOPAD.encode(&[7; 16]).as_bytes()).is_ok());
    }

    #[test]
    fn a_made_file_serves_both_sides() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys/tokens");
        let arguments =
            TokenArgs { path: Some(path.clone()), name: Some("alice".parse().unwrap()), force: false };
        run(&arguments).unwrap();
        assert!(run(&arguments).unwrap_err().to_string().contains("--force"));
        server_keys(&path).unwrap();
        client_secret(&path).unwrap();

        let mut text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim_end().len(), "alice:".len() + A.len());
        text.push_str(A);
        std::fs::write(&path, &text).unwrap();
        server_keys(&path).unwrap();
        let error = client_secret(&path).unwrap_err().to_string();
        assert!(error.contains("holds 2 tokens"), "{error}");

        std::fs::write(&path, "# none\n").unwrap();
        assert!(server_keys(&path).unwrap_err().to_string().contains("holds no token"));
        std::fs::write(&path, "a:b\n").unwrap();
        assert!(server_keys(&path).unwrap_err().to_string().contains("line 1"));
        let missing = client_secret(&directory.path().join("missing")).unwrap_err().to_string();
        assert!(missing.ends_with("make one with `snocat token PATH`"), "{missing}");
    }
}
