//! The `snocat` commands, from one source for every runtime: a binary brings its [`Launch`] and calls [`main`].
//!
//! stdout is for results and events, stderr for errors, warnings and the log; see [`args`] for the commands.

pub mod args;
pub mod cert;
pub mod error;
pub mod files;
pub mod launch;
pub mod limits;
pub mod output;
pub mod page;
pub mod signal;
pub mod tls;
pub mod token;
pub mod values;

