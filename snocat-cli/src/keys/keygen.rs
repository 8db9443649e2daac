//! `snocat keygen`: a key pair for a client, in the files that `ssh-keygen` makes, too.

use snocat_driver::core::auth::Ed25519Key;
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::Ed25519PublicKey;
use ssh_key::{LineEnding, PrivateKey};
use zeroize::Zeroizing;

use crate::args::KeygenArgs;
use crate::error::Error;
use crate::files::{self, Existing};
use crate::output;

/// A key pair.
pub struct Made {
    /// The private key, as OpenSSH writes it.
    pub private: Zeroizing<String>,
    /// The line for a file of authorized keys, without its end.
    pub public: String,
}

/// Runs `snocat keygen`.
///
/// # Errors
/// The files are there already or cannot be made, or the system gives no randomness.
pub fn run(arguments: &KeygenArgs) -> Result<(), Error> {
    let private = &arguments.path;
    let public = files::with_ending(private, ".pub")?;
    let existing = if arguments.force { Existing::Replace } else { Existing::Keep };
    let made = make(&arguments.comment.clone().unwrap_or_else(default_comment))?;
    let line = format!("{}\n", made.public);
    files::create_both((private, made.private.as_bytes()), (&public, line.as_bytes()), existing)?;
    output::result(&made.public)?;
    output::note(format_args!(
        "wrote {} and {}; the client takes the first with --identity, the server the line above in its file of \
         --authorized-keys",
        private.display(),
        public.display()
    ));
    Ok(())
}

/// Makes an Ed25519 key pair. `comment` is for people: it stands behind the public key and decides nothing.
///
/// # Errors
/// The system gives no randomness.
pub fn make(comment: &str) -> Result<Made, Error> {
    let seed = seed()?;
    let pair = Ed25519Keypair {
        public: Ed25519PublicKey(Ed25519Key::from_seed(&seed).public_key()),
        private: Ed25519PrivateKey::from_bytes(&seed),
    };
    let key = PrivateKey::new(KeypairData::Ed25519(pair), comment);
    let made = key.and_then(|key| {
        Ok(Made { private: key.to_openssh(LineEnding::LF)?, public: key.public_key().to_openssh()? })
    });
    made.map_err(|error| Error::failed(format_args!("cannot make a key: {error}"), "try another --comment"))
}

/// What an Ed25519 key is made from.
///
/// # Errors
/// The system gives no randomness.
pub fn seed() -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|error| {
        Error::failed(format_args!("the system gives no randomness: {error}"), "try again")
    })?;
    Ok(seed)
}

/// The most bytes of a comment: it stands at the end of a line that people look at.
const MAX_COMMENT: usize = 128;

/// What `--comment` takes: up to 128 bytes of text, or nothing.
///
/// # Errors
/// It is longer, or would break the line.
pub fn comment(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.len() > MAX_COMMENT {
        Err(format!("a comment has at most {MAX_COMMENT} bytes"))
    } else if text.contains(char::is_control) {
        Err("a comment has no control characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// The name of this machine, if it is one that can be told.
fn default_comment() -> String {
    let host = hostname::get().ok().and_then(|name| name.into_string().ok());
    host.and_then(|name| comment(&name).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{authorized, identity};
    use std::fs;
    use std::time::UNIX_EPOCH;

    #[test]
    fn both_halves_belong_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys/laptop");
        let arguments = |comment: Option<&str>, force| KeygenArgs {
            path: path.clone(),
            comment: comment.map(str::to_owned),
            force,
        };
        run(&arguments(Some("alice@laptop"), false)).unwrap();
        let seed = identity::read(&path).unwrap();
        let public = directory.path().join("keys/laptop.pub");
        let keys = authorized::read(&public).unwrap().valid(UNIX_EPOCH);
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].key, Ed25519Key::from_seed(&seed).public_key());
        assert!(
            keys[0].identity.starts_with("SHA256:"),
            "the comment decides nothing: {:?}",
            keys[0].identity
        );
        let text = fs::read_to_string(&public).unwrap();
        assert!(text.starts_with("ssh-ed25519 ") && text.ends_with(" alice@laptop\n"), "{text}");

        let error = run(&arguments(None, false)).unwrap_err().to_string();
        assert!(error.contains("laptop already exists; pass --force"), "{error}");
        fs::remove_file(&path).unwrap();
        let error = run(&arguments(None, false)).unwrap_err().to_string();
        assert!(error.contains("laptop.pub already exists"), "{error}");
        assert!(!path.exists(), "both or none");
        run(&arguments(Some(""), true)).unwrap();
        assert_ne!(identity::read(&path).unwrap(), seed);
        assert_eq!(authorized::read(&public).unwrap().valid(UNIX_EPOCH).len(), 1);
    }

    #[test]
    fn a_comment_is_any_short_text_of_one_line() {
        assert_eq!(comment(" al ice\t"), Ok("al ice".to_owned()));
        assert_eq!(comment(""), Ok(String::new()));
        for wrong in ["a\nb", "a\0b", "\u{9b}", &"x".repeat(129)] {
            assert!(comment(wrong).is_err(), "{wrong:?}");
        }
        assert!(comment(&default_comment()).is_ok());
        for text in ["", "ünï cödé", "#x", "ssh-ed25519"] {
            let made = make(text).unwrap();
            let key = PrivateKey::from_openssh(made.private.as_bytes()).unwrap();
            assert_eq!(key.comment(), text);
        }
    }
}
