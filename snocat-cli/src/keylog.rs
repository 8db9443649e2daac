//! The TLS secrets that `SSLKEYLOGFILE` asks for, for Wireshark. No handshake waits for the file.

use std::env;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use data_encoding::HEXLOWER;
use rustls::KeyLog;

use crate::lines::Lines;

const VARIABLE: &str = "SSLKEYLOGFILE";

/// How long the end of the process waits for the file.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The one file of the process, if it has one.
static FILE: OnceLock<Option<Lines>> = OnceLock::new();

/// Where to write the secrets to: only if `SSLKEYLOGFILE` says so.
pub fn key_log() -> Option<Arc<dyn KeyLog>> {
    let lines = FILE.get_or_init(|| {
        let path = env::var_os(VARIABLE).filter(|path| !path.is_empty())?;
        let open = move || {
            open(Path::new(&path)).inspect_err(|error| tracing::warn!(%error, "cannot open {VARIABLE}"))
        };
        Lines::start("key log", open, |dropped| format!("# {dropped} lines were dropped here")).ok()
    });
    let lines = lines.clone()?;
    Some(Arc::new(Secrets(lines)))
}

/// Waits until the secrets are in the file, but not for a file that takes nothing.
pub fn flush() {
    if let Some(Some(lines)) = FILE.get() {
        lines.flush(LAST_WORDS);
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// In the format of NSS, a line a secret.
#[derive(Debug)]
struct Secrets(Lines);

impl KeyLog for Secrets {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let (random, secret) = (HEXLOWER.encode(client_random), HEXLOWER.encode(secret));
        self.0.leave(format!("{label} {random} {secret}\n").as_bytes());
    }
}
