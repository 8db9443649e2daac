//! What a server keeps from one start to the next, in a directory of its own (`--state`): the secret with which it tells
//! clients of the server before it that their tunnels have ended.

use std::fs;
use std::io;
use std::path::Path;

use data_encoding::BASE64;
use snocat_driver::ResetSecret;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::files::{self, Existing};

/// The file with the secret.
const RESET_SECRET: &str = "reset-secret";

/// The secret kept in `directory`, which is made, and the secret drawn, if they are not there yet.
///
/// # Errors
/// The directory or the file cannot be made or read, others could read them, or the file does not hold a secret.
pub fn reset_secret(directory: &Path) -> Result<ResetSecret, Error> {
    make_private(directory)?;
    let path = directory.join(RESET_SECRET);
    let advice = "let this server write to its --state directory, or choose another";
    if !path.exists() {
        let mut drawn = Zeroizing::new([0; 32]);
        getrandom::fill(drawn.as_mut_slice()).map_err(|error| {
            Error::failed(format_args!("the system gives no random bytes: {error}"), advice)
        })?;
        let line = Zeroizing::new(format!("{}\n", BASE64.encode(drawn.as_slice())));
        // Put in place as a whole: a start that was cut off leaves none.
        files::create(&path, line.as_bytes(), Existing::Replace)?;
    }
    let text = files::read_secret(&path, advice)?;
    let decoded = Zeroizing::new(BASE64.decode(text.trim_ascii()).unwrap_or_default());
    let bytes = decoded.as_slice().try_into().map_err(|_| {
        Error::failed(
            format_args!("{} does not hold what `snocat server` has written there", path.display()),
            "delete it: the server makes another, and its clients notice that restart by silence only",
        )
    })?;
    Ok(ResetSecret::new(bytes))
}

/// Makes the directory for its owner alone; one that is there already must be so.
fn make_private(directory: &Path) -> Result<(), Error> {
    let failed =
        |error: &io::Error| Error::file("make the directory", directory, error, "choose another --state");
    if let Some(above) = directory.parent().filter(|above| !above.as_os_str().is_empty()) {
        fs::create_dir_all(above).map_err(|error| failed(&error))?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(&error)),
        _ => check_private(directory),
    }
}

#[cfg(unix)]
fn check_private(directory: &Path) -> Result<(), Error> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let shown = directory.display();
    let found = fs::metadata(directory)
        .map_err(|error| Error::file("read the directory", directory, &error, "choose another --state"))?;
    let me = rustix::process::geteuid().as_raw();
    if !found.is_dir() {
        Err(Error::failed(format_args!("{shown} is not a directory"), "choose another --state"))
    } else if found.uid() != me && found.uid() != 0 {
        Err(Error::failed(
            format_args!("{shown} belongs to another user of this machine"),
            "choose another --state, which the server makes itself",
        ))
    } else if found.permissions().mode() & 0o077 != 0 {
        Err(Error::failed(
            format_args!("{shown} is open to other users of this machine"),
            format_args!("run `chmod 700 {shown}`"),
        ))
    } else {
        Ok(())
    }
}

#[cfg(not(unix))]
fn check_private(_: &Path) -> Result<(), Error> {
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn kept(directory: &Path) -> Vec<u8> {
        reset_secret(directory).unwrap();
        fs::read(directory.join(RESET_SECRET)).unwrap()
    }

    #[test]
    fn the_secret_is_drawn_once_for_its_owner_alone() {
        let place = tempfile::tempdir().unwrap();
        let (one, two) = (place.path().join("a/state"), place.path().join("b"));
        let first = kept(&one);
        assert_eq!((mode(&one), mode(&one.join(RESET_SECRET))), (0o700, 0o600));
        assert_eq!(kept(&one), first);
        assert_ne!(kept(&two), first);
        assert_eq!(fs::read_dir(&one).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn what_others_can_read_or_nobody_has_written_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state");
        kept(&state);
        let file = state.join(RESET_SECRET);
        let refused = || reset_secret(&state).unwrap_err().to_string();
        for (path, open, closed) in [(&state, 0o750, 0o700), (&state, 0o701, 0o700), (&file, 0o604, 0o600)] {
            fs::set_permissions(path, PermissionsExt::from_mode(open)).unwrap();
            assert!(refused().contains(&format!("run `chmod {closed:o} ")), "{}", refused());
            fs::set_permissions(path, PermissionsExt::from_mode(closed)).unwrap();
        }
        for wrong in ["", "AAAA", "not base64"] {
            fs::write(&file, wrong).unwrap();
            assert!(refused().contains("; delete it"), "{}", refused());
        }
        assert!(reset_secret(&file).unwrap_err().to_string().contains("is not a directory"));
    }
}
