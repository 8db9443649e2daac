//! Files that are read again when they change, and when what they hold expires.
//!
//! Looking at them now and then works on every file system and on every machine, and notices a file that is replaced
//! (as editors do it) like one that is written to. A file system may take its time: looking is done [away](Away).

use std::fs::{self, Metadata};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_lite::future;
use snocat_driver::Runtime;

use crate::away::Away;

/// How often it looks. A change is noticed at the second look behind it.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long looking at files, or reading them, may take before it counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at files that do not come to rest, until they are taken as they are: what was withdrawn must not live on
/// because of a file that somebody touches all the time.
const RESTLESS: u32 = 8;

/// Knows how some files look, and tells when they have changed.
///
/// Make it before the files are read: what changes in between is noticed, too.
pub struct Watch {
    paths: Arc<[PathBuf]>,
    state: State,
    expiry: Option<SystemTime>,
    next_look: Option<Instant>,
    looking: Option<Looking>,
}

/// A look that is not done yet.
struct Looking {
    looks: Pin<Box<dyn Future<Output = Vec<Look>> + Send>>,
    /// After that it counts as failed.
    until: Instant,
}

impl Watch {
    /// Watches these files. One that is missing may come; one that is there and is not a regular file, such as a
    /// pipe, is not watched: it can be read only once.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let watched = |path: &PathBuf| look_at(path) != Look::Other;
        let paths: Arc<[_]> = paths.into_iter().filter(watched).collect();
        let state = State::new(looks(&paths));
        Self { paths, state, expiry: None, next_look: None, looking: None }
    }

    /// Whether this file is watched, which says that it can be read again.
    pub fn watches(&self, path: &Path) -> bool {
        self.paths.iter().any(|watched| watched == path)
    }

    /// Tells, wherever it is asked, whether the files look as they did when a change was told last.
    pub fn at_rest(&self) -> impl FnOnce() -> bool + Send + 'static {
        let (paths, told) = (self.paths.clone(), self.state.told.clone());
        move || looks(&paths) == told
    }

    /// From when on what the files hold is another, though they stay the same. It is told once.
    pub fn set_expiry(&mut self, expiry: Option<SystemTime>) {
        self.expiry = expiry;
    }

    /// Waits until a file has changed and come to rest, or until the expiry. Within 1.1 s of the change, unless it
    /// goes on. May be dropped while it waits and called again.
    ///
    /// # Errors
    /// The files cannot be looked at: a file system does not answer.
    pub async fn changed<R: Runtime>(&mut self, runtime: &R, away: &Away) -> Result<(), NoAnswer> {
        loop {
            if self.looking.is_none() {
                let now = runtime.now();
                runtime.sleep_until(*self.next_look.get_or_insert(now + INTERVAL)).await;
                let paths = self.paths.clone();
                let looks = Box::pin(away.ask(move || looks(&paths)));
                self.looking = Some(Looking { looks, until: runtime.now() + PATIENCE });
            }
            // If this is dropped while it waits, the next call goes on with the same look.
            let Some(looking) = &mut self.looking else { continue };
            let until = looking.until;
            let looks = future::or(async { Some((&mut looking.looks).await) }, async {
                runtime.sleep_until(until).await;
                None
            })
            .await;
            self.looking = None;
            self.next_look = Some(runtime.now() + INTERVAL);
            if self.take_in(looks.ok_or(NoAnswer)?, SystemTime::now()) {
                return Ok(());
            }
        }
    }

    /// Takes in one more look. Says whether there is something new.
    fn take_in(&mut self, looks: Vec<Look>, now: SystemTime) -> bool {
        let changed = self.state.look(looks);
        let expired = self.expiry.take_if(|expiry| *expiry <= now).is_some();
        changed || expired
    }
}

/// A file system does not answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoAnswer;

fn looks(paths: &[PathBuf]) -> Vec<Look> {
    paths.iter().map(|path| look_at(path)).collect()
}

/// How a file looks. As long as that is the same, so is what is in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Look {
    /// It is not there, or cannot be looked at.
    Missing,
    /// It is a pipe, a directory …
    Other,
    /// A regular file.
    Regular {
        modified: Option<SystemTime>,
        len: u64,
        /// What else tells two files, and two states of one, from each other.
        rest: [i64; 4],
    },
}

fn look_at(path: &Path) -> Look {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {
            Look::Regular { modified: found.modified().ok(), len: found.len(), rest: rest(&found) }
        }
        Ok(_) => Look::Other,
        Err(_) => Look::Missing,
    }
}

/// Where the file lies, and when its mode or owner changed: after `chmod` it may be one that can be read.
#[cfg(unix)]
fn rest(found: &Metadata) -> [i64; 4] {
    use std::os::unix::fs::MetadataExt;
    [found.dev().cast_signed(), found.ino().cast_signed(), found.ctime(), found.ctime_nsec()]
}

#[cfg(not(unix))]
fn rest(_: &Metadata) -> [i64; 4] {
    [0; 4]
}

/// Whether looks at files amount to a change.
#[derive(Debug)]
struct State {
    /// As it was told last.
    told: Vec<Look>,
    /// As it was at the last look.
    last: Vec<Look>,
    /// Looks in a row that were each another than the one before.
    restless: u32,
}

impl State {
    fn new(looks: Vec<Look>) -> Self {
        Self { told: looks.clone(), last: looks, restless: 0 }
    }

    /// Takes in one more look. Says whether the files are others than last told, and no longer half-written.
    fn look(&mut self, looks: Vec<Look>) -> bool {
        let rests = looks == self.last;
        self.restless = if rests { 0 } else { self.restless + 1 };
        self.last = looks;
        if self.last == self.told || !(rests || self.restless >= RESTLESS) {
            return false;
        }
        self.restless = 0;
        self.told.clone_from(&self.last);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{self, Existing};
    use std::io::Write;

    /// A file with `len` bytes.
    fn file(len: u64) -> Look {
        Look::Regular { modified: None, len, rest: [0; 4] }
    }

    /// What a series of looks at one file, 1 at first, is told as.
    fn told(looks: &[Look]) -> String {
        let mut state = State::new(vec![file(1)]);
        looks.iter().map(|look| if state.look(vec![*look]) { '!' } else { '.' }).collect()
    }

    #[test]
    fn a_change_is_told_when_it_has_stayed_for_a_look() {
        let [a, b, c] = [1, 2, 3].map(file);
        assert_eq!(told(&[a, a, a]), "...");
        assert_eq!(told(&[a, b, b, b, a, a, a]), "..!..!.");
        assert_eq!(told(&[b, c, a, c, c, c]), "....!.", "not while it is being written");
        assert_eq!(told(&[b, a, a, a]), "....", "nor if all was undone");
        assert_eq!(told(&[Look::Missing, Look::Missing, b, b, Look::Missing, a, a]), ".!.!..!");
        assert_eq!(told(&[Look::Missing, b, b, b]), "..!.", "replaced by way of nothing");
    }

    #[test]
    fn what_never_rests_is_told_all_the_same() {
        let looks: Vec<_> = (2..=20).map(file).collect();
        assert_eq!(told(&looks), ".......!.......!...");
    }

    #[test]
    fn one_file_of_many_is_enough() {
        let mut state = State::new(vec![file(1), Look::Missing]);
        assert!(!state.look(vec![file(1), file(2)]));
        assert!(!state.look(vec![file(3), file(2)]), "they are told together");
        assert!(state.look(vec![file(3), file(2)]));
    }

    /// Looks now.
    fn look(watch: &mut Watch, now: SystemTime) -> bool {
        watch.take_in(looks(&watch.paths.clone()), now)
    }

    /// Looks until nothing changes any more: how often a change was told.
    fn changes(watch: &mut Watch) -> usize {
        (0..4).filter(|_| look(watch, SystemTime::UNIX_EPOCH)).count()
    }

    #[test]
    fn real_files() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let write =
            |name: &str, text: &str| files::create(&at(name), text.as_bytes(), Existing::Replace).unwrap();
        write("a", "one");
        let mut watch = Watch::new([at("a"), at("b")]);
        assert!(watch.watches(&at("a")) && watch.watches(&at("b")) && !watch.watches(&at("c")));
        assert_eq!(changes(&mut watch), 0);
        write("b", "came");
        assert_eq!(changes(&mut watch), 1, "came");
        write("a", "two");
        assert_eq!(changes(&mut watch), 1, "replaced by one of the same length");
        fs::OpenOptions::new().append(true).open(at("a")).unwrap().write_all(b"!").unwrap();
        assert!(!watch.at_rest()());
        assert_eq!(changes(&mut watch), 1, "appended to");
        assert!(watch.at_rest()());
        fs::remove_file(at("b")).unwrap();
        assert_eq!(changes(&mut watch), 1, "removed");
        write("c", "another");
        assert_eq!(changes(&mut watch), 0, "not watched");
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
            fs::set_permissions(at("a"), mode).unwrap();
            assert_eq!(changes(&mut watch), 1, "its mode was changed");
        }
    }

    #[test]
    #[cfg(unix)]
    fn pipes_and_directories_are_not_watched() {
        use std::io;
        use std::os::fd::AsRawFd;
        let directory = tempfile::tempdir().unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let pipe = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
        let mut watch = Watch::new([pipe.clone(), directory.path().to_owned()]);
        assert!(!watch.watches(&pipe) && watch.paths.is_empty());
        drop(reader);
        assert_eq!(changes(&mut watch), 0, "that it is used up is no change");
    }

    #[test]
    fn an_expiry_is_told_once() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut watch = Watch::new([]);
        watch.set_expiry(Some(at(10)));
        assert!(!look(&mut watch, at(9)));
        assert!(look(&mut watch, at(10)));
        assert!(!look(&mut watch, at(11)));
        watch.set_expiry(Some(at(5)));
        assert!(look(&mut watch, at(11)), "one that has passed already");
    }

    #[test]
    #[cfg(feature = "smol")]
    fn waiting_may_be_given_up_and_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let mut watch = Watch::new([path.clone()]);
        fs::write(&path, "came").unwrap();
        let runtime = snocat_smol::Smol::new(std::sync::Arc::default());
        let away = Away::start().unwrap();
        let noticed = future::block_on(async {
            for _ in 0..500 {
                let a_moment = runtime.sleep_until(runtime.now() + INTERVAL / 10);
                let noticed = async {
                    watch.changed(&runtime, &away).await.unwrap();
                    true
                };
                if future::or(noticed, async {
                    a_moment.await;
                    false
                })
                .await
                {
                    return true;
                }
            }
            false
        });
        assert!(noticed, "each wait that was given up has moved the look away");
    }

    #[test]
    #[cfg(feature = "smol")]
    fn a_file_system_that_does_not_answer_is_told() {
        let runtime = snocat_smol::Smol::new(std::sync::Arc::default());
        let away = Away::start().unwrap();
        let (_answer, never) = std::sync::mpsc::channel::<()>();
        let _hangs = away.ask(move || never.recv());
        let mut watch = Watch::new([PathBuf::from("file")]);
        // However often the wait is given up and begun again.
        let told = future::block_on(async {
            for _ in 0..40 {
                let a_moment = runtime.sleep_until(runtime.now() + PATIENCE / 10);
                let told = async { Some(watch.changed(&runtime, &away).await) };
                let told = future::or(told, async {
                    a_moment.await;
                    None
                });
                if let Some(told) = told.await {
                    return told;
                }
            }
            Ok(())
        });
        assert_eq!(told, Err(NoAnswer));
    }
}
