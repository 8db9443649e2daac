//! Files that hold secrets or keys: made for the owner's eyes only, never half-written, never too big to read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::Error;
use crate::output;

/// More than any list of keys or chain of certificates, and little enough to read without a thought.
const MAX_SIZE: u64 = 4 << 20;

/// What to do where a file already is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Existing {
    /// Leave it, and fail.
    Keep,
    /// Put the new one in its place (`--force`).
    Replace,
}

/// Makes the file `path`, and the directories above it, readable and writable by its owner alone.
///
/// # Errors
/// It exists and is to be kept, or the system refuses.
pub fn create(path: &Path, contents: &[u8], existing: Existing) -> Result<(), Error> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory {
        fs::create_dir_all(directory)
            .map_err(|error| Error::file("make the directory", directory, &error, "choose another place"))?;
    }
    let written = match existing {
        Existing::Keep => write_new(path, contents),
        // A reader meets the old file or the new one, and the old one's mode does not live on.
        Existing::Replace => {
            let aside = aside(path);
            write_new(&aside, contents).and_then(|()| fs::rename(&aside, path)).inspect_err(|_| {
                let _ = fs::remove_file(&aside);
            })
        }
    };
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Error::file("write", path, &error, "choose another place"),
    })
}

/// That `path` is in the way.
pub fn exists(path: &Path) -> Error {
    Error::failed(format_args!("{} already exists", path.display()), "pass --force to replace it")
}

fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let written = file.write_all(contents).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key helps nobody, and would be in the way of the next attempt.
        let _ = fs::remove_file(path);
    }
    written
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    name.into()
}

/// Reads all of a file; `advice` tells what to do if that fails. The bytes are wiped after use.
///
/// # Errors
/// There is no such file, it is not readable, or it is far larger than what it should hold.
pub fn read(path: &Path, advice: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |error: io::Error| Error::file("read", path, &error, advice);
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len().min(MAX_SIZE);
    // All the room at once: a buffer that grows leaves copies of what it held behind.
    let mut contents = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 4096));
    file.take(MAX_SIZE + 1).read_to_end(&mut contents).map_err(failed)?;
    if contents.len() as u64 > MAX_SIZE {
        return Err(Error::failed(format_args!("{} is too large", path.display()), advice));
    }
    Ok(contents)
}

/// Like [`read`], for a secret: warns if others than the owner can read the file, too.
///
/// # Errors
/// As [`read`].
pub fn read_secret(path: &Path, advice: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let contents = read(path, advice)?;
    if others_can_read(path) {
        let path = path.display();
        output::warning(format_args!("other users of this machine can read {path}; run `chmod 600 {path}`"));
    }
    Ok(contents)
}

#[cfg(unix)]
fn others_can_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_can_read(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
    }

    #[test]
    fn made_with_directories_and_never_overwritten_unasked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/secret");
        create(&path, b"one", Existing::Keep).unwrap();
        let error = create(&path, b"two", Existing::Keep).unwrap_err();
        assert!(error.to_string().ends_with("already exists; pass --force to replace it"), "{error}");
        assert_eq!(read(&path, "").unwrap().as_slice(), b"one");
        #[cfg(unix)]
        {
            assert_eq!(mode(&path), 0o600);
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            assert!(others_can_read(&path));
        }
        create(&path, b"three", Existing::Replace).unwrap();
        assert_eq!(read(&path, "").unwrap().as_slice(), b"three");
        #[cfg(unix)]
        {
            assert_eq!(mode(&path), 0o600, "a replaced file's mode does not live on");
            assert!(!others_can_read(&path));
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn unreadable_files_say_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = read(&directory.path().join("missing"), "make one").unwrap_err();
        assert!(error.to_string().contains("missing: "), "{error}");
        assert!(error.to_string().ends_with("; make one"), "{error}");
        assert!(read(directory.path(), "give a file").is_err());
        let large = directory.path().join("large");
        File::create(&large).unwrap().set_len(MAX_SIZE + 1).unwrap();
        assert!(read(&large, "x").unwrap_err().to_string().contains("too large"));
    }
}
