//! The built binaries, run as people and scripts run them.
#![cfg(unix)]

mod commands;
mod connecting;
mod credentials;
mod diagnoses;
#[cfg(target_os = "linux")]
mod examples;
mod files;
mod killed;
#[cfg(target_os = "linux")]
mod namespaces;
#[cfg(target_os = "linux")]
mod outage;
mod program;
mod signals;
#[cfg(target_os = "linux")]
mod strangers;
mod tunnel;
mod unread;
