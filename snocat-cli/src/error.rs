//! Why a command did not do its work: one line for a person to act on, and the exit code for a script.

use std::fmt;
use std::io;
use std::path::Path;

/// A failure as the person at the keyboard meets it: what went wrong, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Error {
    message: String,
    code: u8,
}

impl Error {
    /// The command was understood, and failed at run time: exit code 1.
    pub fn failed(what: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self { message: format!("{what}; {advice}"), code: 1 }
    }

    /// The command line asks for what cannot be: exit code 2.
    pub fn usage(what: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self { message: format!("{what}; {advice}"), code: 2 }
    }

    /// The operating system refused `action` ("read", "write", …) on a file: exit code 1.
    pub fn file(action: &str, path: &Path, error: &io::Error, advice: impl fmt::Display) -> Self {
        let what = format!("cannot {action} {}: {error}", path.display());
        match (action, error.kind()) {
            // It is there: making another one would not help.
            ("read", io::ErrorKind::PermissionDenied) => {
                Self::failed(what, "let the user that runs this command read it, and enter its directory")
            }
            ("read", io::ErrorKind::IsADirectory) => Self::failed(what, "give a file"),
            _ => Self::failed(what, advice),
        }
    }

    /// The process' exit code.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_and_what_to_do() {
        let error = Error::failed("the sky fell", "look up");
        assert_eq!((error.to_string().as_str(), error.code()), ("the sky fell; look up", 1));
        assert_eq!(Error::usage("a", "b").code(), 2);
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let error = Error::file("read", Path::new("x.pem"), &missing, "check the path");
        assert_eq!(error.to_string(), "cannot read x.pem: entity not found; check the path");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = Error::file("read", Path::new("x.pem"), &denied, "make one").to_string();
        assert!(
            error.contains("let the user that runs this command read it") && !error.contains("make one"),
            "{error}"
        );
    }
}
