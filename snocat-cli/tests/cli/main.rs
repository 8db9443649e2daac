//! The built binaries, run as people and scripts run them.
#![cfg(unix)]

mod commands;
mod credentials;
#[cfg(target_os = "linux")]
mod examples;
mod killed;
mod program;
#[cfg(target_os = "linux")]
mod strangers;
mod tunnel;
