//! The built binaries, run as people and scripts run them.
#![cfg(unix)]

mod commands;
mod credentials;
mod killed;
mod program;
#[cfg(target_os = "linux")]
mod strangers;
mod tunnel;
