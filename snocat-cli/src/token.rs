//! `snocat token`: secrets that server and client share, and the files that hold them.
//!
//! A line is `[OPTIONS ][NAME:]SECRET` ([`options`](crate::keys::options)), the secret in base64url without padding.

use std::path::Path;
use std::time::SystemTime;

use snocat_driver::core::auth::{TokenKey, TokenSecret, TunnelName};
use zeroize::Zeroizing;

use crate::args::TokenArgs;
use crate::error::Error;
use crate::files::{self, Existing};
use crate::keys::options::Options;
use crate::keys::{KeyFile, Said, mistaken};
use crate::output;

/// Random bytes in a token that is made here.
const SECRET_BYTES: usize = 32;

/// What to do when a token file cannot be used.
pub(crate) const ADVICE: &str = "make one with `snocat token PATH`";

/// What a line looks like.
const FORM: &str = "a line is [OPTIONS ][NAME:]SECRET";

/// Runs `snocat token`.
///
/// # Errors
/// The file is there already or cannot be made, or the system gives no randomness.
pub fn run(arguments: &TokenArgs) -> Result<(), Error> {
    let encoded = random()?.to_text();
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
pub fn random() -> Result<TokenSecret, Error> {
    let mut secret = Zeroizing::new(vec![0; SECRET_BYTES]);
    getrandom::fill(&mut secret).map_err(|error| {
        Error::failed(format_args!("the system gives no randomness: {error}"), "try again")
    })?;
    TokenSecret::new(std::mem::take(&mut *secret))
        .map_err(|error| Error::failed(error, "this is a defect of snocat"))
}

/// The one token of a client.
///
/// # Errors
/// The file cannot be read or others can read it, it holds none or several or one that has expired, or a line is
/// wrong.
pub fn client_secret(path: &Path) -> Result<TokenSecret, Error> {
    let mut keys = read(path)?.some_valid(SystemTime::now(), "token", ADVICE)?;
    match (keys.pop(), keys.is_empty()) {
        (Some(key), true) => Ok(key.secret),
        _ => Err(Error::failed(
            format_args!("{} holds {} tokens", path.display(), keys.len() + 1),
            "a client's file holds its own one: copy that line to a file",
        )),
    }
}

/// Reads a file of tokens. It may hold none: then nobody is let in.
///
/// # Errors
/// The file cannot be read or others can read it, or a line is wrong.
pub fn read(path: &Path) -> Result<KeyFile<TokenKey>, Error> {
    let contents = files::read_secret(path, ADVICE)?;
    if let Some(what) = mistaken(&contents) {
        return Err(Error::failed(format_args!("{} holds {what}, and no token", path.display()), ADVICE));
    }
    KeyFile::parse(path, &contents, FORM, line)
}

/// A line of a file, or what is wrong with it, without any of its text: it may be a secret with a slip.
fn line(line: &str) -> Result<Said<TokenKey, [u8; 8]>, String> {
    let (options, rest) = Options::split(line)?;
    let (name, secret) = match rest.split_once(':') {
        Some((name, secret)) => (Some(name.trim_end()), secret.trim_start()),
        None => (None, rest),
    };
    let name = name
        .map(|name| name.parse::<TunnelName>().map(|name| name.to_string()))
        .transpose()
        .map_err(|error| error.to_string())?;
    if name.is_some() && options.identity.is_some() {
        return Err("it has a name and the option identity, which say the same".to_owned());
    }
    let grant = options.grant();
    let identity = name.or(options.identity);
    let secret = secret.parse::<TokenSecret>().map_err(|error| error.to_string())?;
    let id = secret.key_id();
    let credential = TokenKey { identity: identity.clone(), grant, secret };
    Ok(Said { id, identity, expires: options.expires, credential })
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64URL_NOPAD;
    use snocat_driver::core::auth::{Grant, Names};

    const A: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const B: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE";

    fn parse(contents: &[u8]) -> Result<Vec<TokenKey>, Error> {
        KeyFile::parse(Path::new("tokens"), contents, FORM, line)
            .map(|file| file.valid(SystemTime::UNIX_EPOCH))
    }

    #[test]
    fn names_comments_and_blank_lines() {
        let text = format!("# the team\r\n\r\nalice:{A}\r\n  {B}\t\n#bob:{A}");
        let keys = parse(text.as_bytes()).unwrap();
        let names: Vec<_> = keys.iter().map(|key| key.identity.as_deref()).collect();
        assert_eq!(names, [Some("alice"), None]);
        assert_eq!((&keys[0].grant, &keys[1].grant), (&Grant::default(), &Grant::default()));
        assert_eq!(parse(format!("\u{feff}{A}").as_bytes()).unwrap().len(), 1, "a byte order mark");
        assert!(parse(b"").unwrap().is_empty());
        assert!(parse(b"# nothing\n").unwrap().is_empty());
    }

    #[test]
    fn options_say_what_a_token_allows_and_until_when() {
        let only = |name: &str| Names::Only(vec![name.parse().unwrap()]);
        for (options, name, identity, names) in [
            (r#"names="web-*""#, "alice:", Some("alice"), only("web-*")),
            (r#"names="web-*""#, "", None, only("web-*")),
            (r#"identity="al ice""#, "", Some("al ice"), Names::Unreserved),
            (r#"identity="alice""#, "", Some("alice"), Names::Unreserved),
            (r#"ports="80""#, "", None, Names::Unreserved),
            (r#"ports="80""#, "alice : ", Some("alice"), Names::Unreserved),
        ] {
            let text = format!("{options} \t{name}{A}\r\n");
            let key = parse(text.as_bytes()).unwrap().pop().unwrap();
            assert_eq!((key.identity.as_deref(), &key.grant.names), (identity, &names), "{text}");
            assert_eq!(key.grant.ports.is_some(), options.contains("ports"), "{text}");
            assert_eq!(key.secret.key_id(), A.parse::<TokenSecret>().unwrap().key_id());
        }
        let expired = format!("expires=\"1969-12-31T23:59:59Z\" {A}\nexpires=\"2970-01-01\" {B}");
        assert_eq!(parse(expired.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn wrong_lines_are_named_and_not_shown() {
        let short = BASE64URL_NOPAD.encode(&[7; 15]);
        let huge = format!("CANARY{}!", "A".repeat(1 << 20));
        let secret = format!("CANARY{}", &A[6..]);
        let mut cases = vec![
            (format!("{A}\n\n{A}"), 3, "line 1 again"),
            (format!("{A}\nexpires=\"1970-01-01\" alice:{A}"), 2, "line 1 again"),
            (format!("#\n{short}"), 2, "at least 16 bytes"),
            ("alice:".to_owned(), 1, "at least 16 bytes"),
            (format!("{A}="), 1, "base64url"),
            (format!("{A}\nCANARY world"), 2, "base64url"),
            (format!("restrict {A}"), 1, "base64url"),
            (format!("from=10.0.0.1 {A}"), 1, "in quotes"),
            (format!("a/b:{A}"), 1, "a name has"),
            (format!(":{A}"), 1, "a name has"),
            (format!("restrict alice:{A}"), 1, "a name has"),
            (format!("identity=\"a\" b:{A}"), 1, "which say the same"),
            (huge, 1, "base64url"),
        ];
        // A slip at any place must not show the secret.
        cases.extend(
            [
                ("{}\0", "control character"),
                ("{}\u{e4}", "base64url"),
                ("{}\rx", "control character"),
                ("{}:x", "base64url"),
                ("{},x", "option 1 is not known"),
                ("{}=x", "option 1 is not known"),
                ("{}=\"x\" y", "option 1 is not known"),
                ("{}\"", "base64url"),
                ("alice={}", "option 1 is not known"),
                ("alice,{}", "option 1 is not known"),
                ("alice {}", "base64url"),
                ("names={}", "in quotes"),
                ("names=\"{}", "in quotes"),
                ("names=\"{}/\" x", "give tunnel names"),
                ("names=\"a\"{}", "neither a comma nor a blank"),
                ("names=\"a\",{}", "option 2 is not known"),
                ("expires=\"{}\" x", "give the last day"),
                ("identity=\"a\" {}\\", "base64url"),
            ]
            .map(|(form, hint)| (form.replace("{}", &secret), 1, hint)),
        );
        for (text, line, hint) in cases {
            let Err(error) = parse(text.as_bytes()) else { panic!("{text} was taken") };
            let error = error.to_string();
            assert!(error.starts_with(&format!("tokens, line {line}: ")), "{text:.200}: {error}");
            assert!(error.contains(hint) && error.len() < 200, "{text:.200}: {error}");
            for fragment in ["CANARY", "AAAA"] {
                assert!(!error.contains(fragment), "{error}");
            }
        }
        assert!(parse(b"\xff\xfe").is_err());
        assert!(parse(BASE64URL_NOPAD.encode(&[7; 16]).as_bytes()).is_ok());
        assert!(!format!("{:?}", parse(secret.as_bytes())).contains("CANARY"));
    }

    #[test]
    fn a_made_file_serves_both_sides() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys/tokens");
        let arguments =
            TokenArgs { path: Some(path.clone()), name: Some("alice".parse().unwrap()), force: false };
        run(&arguments).unwrap();
        assert!(run(&arguments).unwrap_err().to_string().contains("--force"));
        assert_eq!(read(&path).unwrap().valid(SystemTime::now()).len(), 1);
        client_secret(&path).unwrap();

        let mut text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim_end().len(), "alice:".len() + A.len());
        text.push_str(A);
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read(&path).unwrap().valid(SystemTime::now()).len(), 2);
        let error = client_secret(&path).unwrap_err().to_string();
        assert!(error.contains("holds 2 tokens"), "{error}");

        std::fs::write(&path, "# none\n").unwrap();
        assert!(client_secret(&path).unwrap_err().to_string().contains("holds no token"));
        std::fs::write(&path, "a:b\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 1"));
        std::fs::write(&path, format!("expires=\"2020-01-01\" {A}\n")).unwrap();
        assert!(client_secret(&path).unwrap_err().to_string().contains("not expired"));
        assert!(read(&path).unwrap().valid(SystemTime::now()).is_empty());
        let missing = client_secret(&directory.path().join("missing")).unwrap_err().to_string();
        assert!(missing.ends_with("make one with `snocat token PATH`"), "{missing}");
    }
}
