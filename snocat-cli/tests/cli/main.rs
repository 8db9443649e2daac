//! The built binaries, run as people and scripts run them.
#![cfg(unix)]

mod commands;
mod killed;
mod program;
mod tunnel;
