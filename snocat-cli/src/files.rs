//! Files that hold secrets or keys: made for the owner's eyes only, never half-written, never too big to read, and
//! refused if others could know or change what they hold ([`access`](crate::access)).

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

#[cfg(unix)]
use crate::access::{Access, Process, Wrong};
use crate::error::Error;

/// For the owner's eyes.
const PRIVATE: u32 = 0o600;
/// For everybody's eyes, as far as the umask allows it.
const PUBLIC: u32 = 0o644;

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
    create_as(path, contents, existing, PRIVATE)
}

fn create_as(path: &Path, contents: &[u8], existing: Existing, mode: u32) -> Result<(), Error> {
    match existing {
        Existing::Keep => {
            make_directory_of(path)?;
            write_new(path, contents, mode).map_err(|error| cannot_write(path, &error))
        }
        Existing::Replace => Aside::write(path, contents, mode)?.put_in_place(),
    }
}

fn make_directory_of(path: &Path) -> Result<(), Error> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    fs::create_dir_all(directory)
        .map_err(|error| Error::file("make the directory", directory, &error, "choose another place"))
}

fn cannot_write(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Error::file("write", path, error, "choose another place"),
    }
}

/// A file beside the one whose place it is to take. A reader meets the old one or the new one, and the old one's mode does
/// not live on.
struct Aside<'a> {
    path: &'a Path,
    aside: PathBuf,
}

impl<'a> Aside<'a> {
    fn write(path: &'a Path, contents: &[u8], mode: u32) -> Result<Self, Error> {
        make_directory_of(path)?;
        let aside = aside(path);
        // A process that had this one's number may have been cut off before the renaming.
        let _ = fs::remove_file(&aside);
        write_new(&aside, contents, mode).map_err(|error| cannot_write(&aside, &error))?;
        Ok(Self { path, aside })
    }

    fn put_in_place(self) -> Result<(), Error> {
        fs::rename(&self.aside, self.path).map_err(|error| cannot_write(self.path, &error))
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        let _it_may_be_in_place = fs::remove_file(&self.aside);
    }
}

/// That `path` is in the way.
pub fn exists(path: &Path) -> Error {
    Error::failed(format_args!("{} already exists", path.display()), "pass --force to replace it")
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
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

/// Makes two files that belong together, both or none: a private one, and a public one that everybody may read.
///
/// # Errors
/// One of them exists and is to be kept, or the system refuses.
pub fn create_both(private: (&Path, &[u8]), public: (&Path, &[u8]), existing: Existing) -> Result<(), Error> {
    // Nothing is written while one of them is in the way.
    if let (Existing::Keep, Some(path)) =
        (existing, [private.0, public.0].into_iter().find(|path| path.exists()))
    {
        return Err(exists(path));
    }
    if existing == Existing::Replace {
        let new_private = Aside::write(private.0, private.1, PRIVATE)?;
        // First what can be made again from the other half, should only one get into its place.
        Aside::write(public.0, public.1, PUBLIC)?.put_in_place()?;
        return new_private.put_in_place();
    }
    create(private.0, private.1, existing)?;
    create_as(public.0, public.1, existing, PUBLIC).inspect_err(|_| {
        let _ = fs::remove_file(private.0);
    })
}

/// The path with something more at its end.
///
/// # Errors
/// It names a directory.
pub fn with_ending(path: &Path, ending: &str) -> Result<PathBuf, Error> {
    // `file_name` alone would take the `x` of `x/` for a name.
    if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(Error::usage(
            format_args!("{} names a directory", path.display()),
            "end PATH in a name, such as `keys/mine`",
        ));
    }
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    Ok(name.into())
}

/// Reads all of a file; `advice` tells what to do if that fails. The bytes are wiped after use. What is no regular
/// file is refused, but for a pipe, as in `<(pass show token)`, into which somebody writes.
///
/// # Errors
/// There is no such file, it is not readable, or it is far larger than what it should hold.
pub fn read(path: &Path, advice: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    read_checked(path, advice, |_, _| Ok(()))
}

/// Like [`read`], for a secret: a file is refused if others can read it than root, the user of this process and its
/// groups, or if others can change it than root and that user. Where it comes from a pipe, there is nothing to refuse.
///
/// # Errors
/// As [`read`]; and the file is refused.
pub fn read_secret(path: &Path, advice: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    #[cfg(unix)]
    return read_if(path, advice, |access, process| {
        access.wrong_for_secret(&path.display().to_string(), process)
    });
    #[cfg(not(unix))]
    read(path, advice)
}

/// Like [`read_secret`], for a private key as PEM. What holds none is not refused: whoever gave the public half should
/// learn that, and not how to hide it.
///
/// # Errors
/// As [`read_secret`].
pub fn read_key(path: &Path, advice: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    const LABEL: &[u8] = b"PRIVATE KEY";
    read_secret(path, advice).or_else(|refused| match read(path, advice) {
        Ok(contents) if !contents.windows(LABEL.len()).any(|part| part == LABEL) => Ok(contents),
        _ => Err(refused),
    })
}

/// Like [`read`], for what says whom to trust: a file is refused if others can change it than root and the user of
/// this process.
///
/// # Errors
/// As [`read`]; and the file is refused.
pub fn read_trusted(path: &Path, advice: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    #[cfg(unix)]
    return read_if(path, advice, |access, process| {
        access.wrong_for_trust(&path.display().to_string(), process)
    });
    #[cfg(not(unix))]
    read(path, advice)
}

/// Reads all of a regular file in which `wrong` finds nothing wrong, or of a pipe.
#[cfg(unix)]
fn read_if(
    path: &Path,
    advice: &str,
    wrong: impl FnOnce(&Access, &Process) -> Option<Wrong>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    read_checked(path, advice, |file, found| match wrong(&Access::of(file, found), &Process::this()) {
        Some(Wrong { what, advice }) => Err(Error::failed(format_args!("{} {what}", path.display()), advice)),
        None => Ok(()),
    })
}

/// Refuses what cannot be read a second time: all but a regular file. One that is missing passes.
///
/// # Errors
/// The path leads to something else.
pub fn regular(path: &Path) -> Result<(), Error> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(not_regular(path, &found)),
        _ => Ok(()),
    }
}

fn not_regular(path: &Path, found: &Metadata) -> Error {
    let what = match () {
        () if found.is_dir() => "a directory",
        () if is_pipe(found) => "a pipe",
        () => "a device",
    };
    Error::failed(format_args!("{} is {what}", path.display()), "put a regular file there")
}

/// Reads all of a file. `check` sees it first, if it is a regular one.
fn read_checked(
    path: &Path,
    advice: &str,
    check: impl FnOnce(&File, &Metadata) -> Result<(), Error>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |error: io::Error| Error::file("read", path, &error, advice);
    let file = open(path).map_err(failed)?;
    // Of what was opened: what the path leads to may be another file by now.
    let found = file.metadata().map_err(failed)?;
    let pipe = is_pipe(&found);
    match () {
        () if found.is_file() => check(&file, &found)?,
        () if pipe => wait_for_writers(&file).map_err(failed)?,
        () => return Err(not_regular(path, &found)),
    }
    let size = usize::try_from(found.len().min(MAX_SIZE)).unwrap_or(0);
    let contents = read_all(file.take(MAX_SIZE + 1), size).map_err(failed)?;
    if contents.len() as u64 > MAX_SIZE {
        return Err(Error::failed(format_args!("{} is too large", path.display()), advice));
    }
    if pipe && contents.is_empty() {
        return Err(Error::failed(format_args!("nothing came through the pipe {}", path.display()), advice));
    }
    Ok(contents)
}

/// Opens for reading, and does not wait for anybody who opens the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    options.open(path)
}

/// Reading waits for whoever has the other end of the pipe open.
fn wait_for_writers(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    rustix::io::ioctl_fionbio(file, false)?;
    let _ = file;
    Ok(())
}

fn is_pipe(found: &Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::FileTypeExt::is_fifo(&found.file_type());
    #[cfg(not(unix))]
    return !found.is_file() && !found.is_dir();
}

/// Reads to the end, and leaves no copies behind as a vector does that grows by itself.
fn read_all(mut from: impl Read, expected: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut contents = Zeroizing::new(vec![0; expected + 4096]);
    let mut filled = 0;
    loop {
        if filled == contents.len() {
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * filled));
            larger.extend_from_slice(&contents);
            larger.resize(2 * filled, 0);
            contents = larger;
        }
        match from.read(contents.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    contents.truncate(filled);
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
    }

    #[cfg(unix)]
    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
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
            chmod(&path, 0o644);
        }
        create(&path, b"three", Existing::Replace).unwrap();
        assert_eq!(read(&path, "").unwrap().as_slice(), b"three");
        #[cfg(unix)]
        {
            assert_eq!(mode(&path), 0o600, "a replaced file's mode does not live on");
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left behind");
    }

    /// In a container each start may have the same number.
    #[test]
    fn what_a_process_of_the_same_number_has_left_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(aside(&path), "half of").unwrap();
        create(&path, b"one", Existing::Replace).unwrap();
        assert_eq!(read(&path, "").unwrap().as_slice(), b"one");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
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

    #[test]
    #[cfg(unix)]
    fn what_others_could_read_or_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "CANARY").unwrap();
        for mode in 0..0o777 {
            if mode & 0o400 == 0 {
                continue;
            }
            chmod(&path, mode);
            // The group is one of this process.
            assert_eq!(read_secret(&path, "x").is_ok(), mode & 0o026 == 0, "{mode:o}");
            assert_eq!(read_trusted(&path, "x").is_ok(), mode & 0o022 == 0, "{mode:o}");
            assert!(read(&path, "x").is_ok());
        }
        chmod(&path, 0o644);
        let error = read_secret(&path, "x").unwrap_err().to_string();
        let shown = path.display();
        assert_eq!(
            error,
            format!("{shown} can be read by every user of this machine; run `chmod 600 {shown}`")
        );
        // The file is what counts, not the way to it.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read_secret(&link, "x").is_err());
        chmod(&path, 0o600);
        assert_eq!(read_secret(&link, "x").unwrap().as_slice(), b"CANARY");
    }

    #[test]
    #[cfg(unix)]
    fn the_public_half_is_for_everybody() {
        let directory = tempfile::tempdir().unwrap();
        let [private, public] = ["private", "public"].map(|name| directory.path().join(name));
        for existing in [Existing::Keep, Existing::Replace] {
            create_both((&private, b"x"), (&public, b"y"), existing).unwrap();
            fs::write(directory.path().join("any"), "").unwrap();
            let masked = mode(&directory.path().join("any"));
            assert_eq!((mode(&private), mode(&public)), (0o600, 0o644 & masked));
        }
    }

    #[test]
    fn the_old_private_half_stays_if_the_public_one_cannot_be_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let [private, public] = ["private", "public"].map(|name| directory.path().join(name));
        create(&private, b"old", Existing::Keep).unwrap();
        fs::create_dir(&public).unwrap();
        create_both((&private, b"new"), (&public, b"new"), Existing::Replace).unwrap_err();
        assert_eq!(read(&private, "").unwrap().as_slice(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    #[cfg(unix)]
    fn pipes_are_read_whatever_their_mode() {
        use std::os::fd::AsRawFd;
        let (reader, mut writer) = io::pipe().unwrap();
        // Above what a buffer has at first.
        let secret = b"0123456789abcdef".repeat(1000);
        let writing = std::thread::spawn({
            let secret = secret.clone();
            move || writer.write_all(&secret).unwrap()
        });
        let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
        assert_eq!(read_secret(&path, "x").unwrap().as_slice(), secret);
        writing.join().unwrap();
        for device in ["/dev/null", "/dev/zero"] {
            let error = read_secret(Path::new(device), "x").unwrap_err().to_string();
            assert!(error.starts_with(&format!("{device} is a device; ")), "{error}");
        }
        let endless = std::process::Command::new("yes").stdout(std::process::Stdio::piped()).spawn();
        let mut endless = endless.unwrap();
        let path = format!("/dev/fd/{}", endless.stdout.as_ref().unwrap().as_raw_fd());
        let error = read_secret(Path::new(&path), "x").unwrap_err().to_string();
        assert!(error.contains("too large"), "{error}");
        endless.kill().unwrap();
        endless.wait().unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_regular_file_is_named_and_nobody_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Nobody writes into it.
        let error = read_secret(&pipe, "make one").unwrap_err().to_string();
        assert!(
            error.starts_with("nothing came through the pipe ") && error.ends_with("; make one"),
            "{error}"
        );
        for (path, what) in [(pipe.as_path(), "a pipe"), (directory.path(), "a directory")] {
            let error = regular(path).unwrap_err().to_string();
            assert_eq!(error, format!("{} is {what}; put a regular file there", path.display()));
        }
        assert!(regular(&directory.path().join("missing")).is_ok());
        assert!(read(directory.path(), "x").unwrap_err().to_string().contains("is a directory"));
    }
}
