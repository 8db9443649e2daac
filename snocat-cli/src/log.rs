//! The log: to stderr, as much of it as `RUST_LOG` asks for.

use std::env::{self, VarError};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::Error;
use crate::output;
use crate::similar::similar;

/// Where it is said how much is logged.
const VARIABLE: &str = "RUST_LOG";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// How the parts of the program begin that log something.
const PARTS: [&str; 6] = ["snocat", "quinn", "rustls", "mio", "polling", "async_io"];

/// Begins to log.
///
/// # Errors
/// Wrong usage, if `RUST_LOG` makes no sense.
pub fn start() -> Result<(), Error> {
    let wanted = match env::var(VARIABLE) {
        Ok(text) => text,
        Err(VarError::NotPresent) => String::new(),
        Err(VarError::NotUnicode(_)) => return Err(nonsense("it is not text")),
    };
    let log = tracing_subscriber::fmt()
        .with_writer(|| output::Stderr)
        .with_ansi(output::stderr_takes_colours())
        // What is logged is the filter's to say.
        .with_max_level(LevelFilter::TRACE)
        .finish();
    let _an_embedder_was_first = log.with(filter(&wanted)?).try_init();
    Ok(())
}

/// What is logged: warnings, where the text does not say otherwise.
fn filter(wanted: &str) -> Result<Targets, Error> {
    let default = LevelFilter::WARN;
    if wanted.trim().is_empty() {
        return Ok(Targets::new().with_default(default));
    }
    for part in wanted.split(',').map(str::trim) {
        // What is no level is taken for a part of the program, of which all is logged then.
        let is_level = part.is_empty() || part.parse::<LevelFilter>().is_ok();
        if !is_level && !part.contains('=') && !PARTS.iter().any(|known| part.starts_with(known)) {
            let meant = similar(part, &LEVELS).map(|level| format!(", did you mean `{level}`?"));
            return Err(nonsense(format_args!("`{part}` is no level{}", meant.unwrap_or_default())));
        }
    }
    let targets: Targets = wanted.parse().map_err(nonsense)?;
    Ok(if targets.default_level().is_some() { targets } else { targets.with_default(default) })
}

fn nonsense(why: impl std::fmt::Display) -> Error {
    Error::usage(
        format_args!("{VARIABLE} makes no sense: {why}"),
        "use error, warn, info, debug or trace, or parts with a level each, such as snocat_core=debug,warn",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(wanted: &str, target: &str) -> Option<LevelFilter> {
        let levels = [LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG];
        let filter = filter(wanted).ok()?;
        levels
            .into_iter()
            .rfind(|level| level.into_level().is_some_and(|level| filter.would_enable(target, &level)))
    }

    #[test]
    fn warnings_are_logged_unless_something_else_is_asked_for() {
        assert_eq!(level("", "snocat_core"), Some(LevelFilter::WARN));
        assert_eq!(level("info", "snocat_core"), Some(LevelFilter::INFO));
        assert_eq!(level("snocat_core=debug", "snocat_core::tunnel"), Some(LevelFilter::DEBUG));
        assert_eq!(level("snocat_core=debug", "quinn_proto"), Some(LevelFilter::WARN));
        assert_eq!(level("snocat_core=debug,error", "quinn_proto"), Some(LevelFilter::ERROR));
        assert_eq!(level("off", "snocat_core"), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(filter("snocat_core=loud").unwrap_err().code(), 2);
        for (wanted, hint) in [
            ("warning", "did you mean `warn`?"),
            ("deubg", "did you mean `debug`?"),
            ("info,deubg", "`deubg` is no level"),
            ("verbose", "`verbose` is no level;"),
        ] {
            let error = filter(wanted).unwrap_err();
            assert!(error.code() == 2 && error.to_string().contains(hint), "{error}");
        }
        for wanted in ["WARN", "snocat_core", "snocat_core::tunnel,info", "info,hyper=debug", "3"] {
            assert!(filter(wanted).is_ok(), "{wanted}");
        }
    }
}
