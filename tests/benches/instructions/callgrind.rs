//! Runs this executable under valgrind's callgrind.

use std::process::Command;

use crate::Result;
use crate::profile::Profile;

/// glibc copies long pieces with one instruction, which valgrind counts once for each byte. Not so with this.
const COPIES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=0x40000000:glibc.cpu.x86_rep_stosb_threshold=0x40000000";

/// What it takes to forward so many MiB, all that goes before included.
pub(crate) fn run(mib: usize) -> Result<Profile> {
    let directory = tempfile::Builder::new().prefix("snocat-instructions-").tempdir()?;
    let file = directory.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .args(["--forward", &mib.to_string()])
        .env_remove("RUST_LOG")
        .env("GLIBC_TUNABLES", COPIES)
        .output()
        .map_err(|error| format!("valgrind does not start ({error}); it is the package `valgrind`"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("valgrind: {}\n{}", output.status, errors.trim_end()).into());
    }
    Profile::parse(&std::fs::read_to_string(file)?)
}
