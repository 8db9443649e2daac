//! A file, or several that belong together, that a running server reads again: what it held last, and the trouble with it
//! since.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::files;
use crate::output::{self, Event, Output};
use crate::watch::Watch;

/// How often it is told that a file cannot be read, as long as it cannot.
const REPEAT: Duration = Duration::from_secs(60);

/// Reads the files.
type Read<T> = dyn Fn() -> Result<T, Error> + Send + Sync;

/// Files, and what they held when they were last read without an error.
pub struct Source<T> {
    paths: Vec<PathBuf>,
    read: Arc<Read<T>>,
    held: T,
    trouble: Option<Trouble>,
    /// How long what it held counts while it cannot be read. `None`: for good.
    grace: Option<Duration>,
    /// What it held does not count any more.
    closed: bool,
}

/// The files cannot be read.
struct Trouble {
    error: Error,
    since: Instant,
    told: Option<Instant>,
}

/// Whether files are read because they have changed, or because that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attempt {
    /// They have changed, or somebody wants it.
    First,
    /// It failed before.
    Again,
}

/// What reading a source again has come to; nothing, if it was not to be read.
pub type Reading<T> = Option<Result<T, Error>>;

impl<T> Source<T> {
    /// Reads the file.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn file(
        path: &Path,
        grace: Option<Duration>,
        read: fn(&Path) -> Result<T, Error>,
    ) -> Result<Self, Error>
    where
        T: 'static,
    {
        let held = read(path)?;
        let file = path.to_owned();
        Ok(Self { grace, ..Self::new(vec![path.to_owned()], held, move || read(&file)) })
    }

    /// Files that held this, and how to read them again. What they held counts for good.
    pub fn new(
        paths: Vec<PathBuf>,
        held: T,
        read: impl Fn() -> Result<T, Error> + Send + Sync + 'static,
    ) -> Self {
        Self { paths, read: Arc::new(read), held, trouble: None, grace: None, closed: false }
    }

    /// What the files held.
    pub fn held(&self) -> &T {
        &self.held
    }

    /// The first of the files.
    pub fn path(&self) -> &Path {
        self.paths.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Whether the last attempt to read them was in vain.
    pub fn failed(&self) -> bool {
        self.trouble.is_some()
    }

    /// Whether what they held does not count any more, because they cannot be read.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Those of them that cannot be read more than once, as no pipe can.
    pub fn once_only(&self, watch: &Watch) -> impl Iterator<Item = &Path> {
        self.paths.iter().filter(|path| !watch.watches(path)).map(PathBuf::as_path)
    }

    /// Whether all of them can be read more than once. What belongs together is read together.
    fn can_be_read_again(&self, watch: &Watch) -> bool {
        self.once_only(watch).next().is_none()
    }

    /// How to read them again, if that is to be done: wherever it is asked.
    pub fn question(&self, watch: &Watch, attempt: Attempt) -> impl FnOnce() -> Reading<T> + Send + use<T> {
        let asked = attempt == Attempt::First || self.failed();
        let again = self.can_be_read_again(watch);
        let (paths, read) = (self.paths.clone(), self.read.clone());
        move || {
            let regular = || paths.iter().try_for_each(|path| files::regular(path));
            (asked && again).then(|| regular().and_then(|()| read()))
        }
    }

    /// Takes in what reading them again has come to. What cannot be read changes nothing.
    pub fn take_in(&mut self, reading: Reading<T>, attempt: Attempt, now: Instant, output: &Output) {
        match reading {
            None => {}
            Some(Err(error)) => self.fail(error, attempt, now),
            Some(Ok(held)) => {
                self.held = held;
                self.closed = false;
                if self.trouble.take().is_some() {
                    output.event_for_programs(&Event::FileRead { file: self.path().display().to_string() });
                }
            }
        }
    }

    /// Their file system does not answer.
    pub fn no_answer(&mut self, watch: &Watch, now: Instant) {
        if self.can_be_read_again(watch) {
            let what = format_args!("cannot read {}: the file system does not answer", self.path().display());
            self.fail(Error::failed(what, "see to where it is mounted from"), Attempt::Again, now);
        }
    }

    /// They cannot be read.
    fn fail(&mut self, error: Error, attempt: Attempt, now: Instant) {
        match &mut self.trouble {
            Some(trouble) if attempt == Attempt::Again => trouble.error = error,
            // The same trouble, or another one, and somebody has just tried to mend it.
            Some(trouble) => (trouble.error, trouble.told) = (error, None),
            None => self.trouble = Some(Trouble { error, since: now, told: None }),
        }
    }

    /// Tells of the trouble, if it is time to. Says whether what they held has just stopped counting.
    pub fn look_after(&mut self, now: Instant, output: &Output) -> bool {
        let Some(trouble) = &mut self.trouble else { return false };
        let left = self.grace.map(|grace| (trouble.since + grace).saturating_duration_since(now));
        let closes = !self.closed && left.is_some_and(|left| left.is_zero());
        self.closed |= closes;
        if closes || trouble.told.is_none_or(|told| now >= told + REPEAT) {
            trouble.told = Some(now);
            let error = &trouble.error;
            let file = self.paths.first().map(|path| path.display().to_string()).unwrap_or_default();
            output::warning(match left {
                None => format!("{error}; what was read before stays in force"),
                Some(_) if self.closed => format!("{error}; nobody is let in by what {file} held before"),
                Some(left) => {
                    format!("{error}; what was read before stays in force for {} s", left.as_secs().max(1))
                }
            });
            let (problem, in_force) = (error.to_string(), !self.closed);
            output.event_for_programs(&Event::FileFailed { file, problem, in_force });
        }
        closes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn error() -> Error {
        Error::failed("it is damaged", "mend it")
    }

    /// The seconds at which it was told, of those up to `until`, and those at which it closed.
    fn told(source: &mut Source<()>, until: u64) -> (Vec<u64>, Vec<u64>) {
        let output = Output::stdout(true).unwrap();
        let start = Instant::now();
        source.fail(error(), Attempt::First, start);
        let (mut told, mut closed) = (Vec::new(), Vec::new());
        for second in 0..=until {
            let now = start + Duration::from_secs(second);
            source.fail(error(), Attempt::Again, now);
            if source.look_after(now, &output) {
                closed.push(second);
            }
            if source.trouble.as_ref().unwrap().told == Some(now) {
                told.push(second);
            }
        }
        (told, closed)
    }

    #[test]
    fn trouble_is_told_each_minute() {
        let mut source = Source::new(vec!["file".into()], (), || Ok(()));
        assert_eq!(told(&mut source, 150), (vec![0, 60, 120], vec![]));
        assert!(source.failed() && !source.closed());
    }

    #[test]
    fn what_it_held_stops_counting_once_and_counts_again_when_it_was_read() {
        for (grace, when, closes) in [(0, vec![0, 60], 0), (30, vec![0, 30, 90], 30), (60, vec![0, 60], 60)] {
            let source = Source::new(vec!["file".into()], (), || Ok(()));
            let mut source = Source { grace: Some(Duration::from_secs(grace)), ..source };
            assert_eq!(told(&mut source, 100), (when, vec![closes]));
            assert!(source.closed());
            let output = Output::stdout(true).unwrap();
            source.take_in(Some(Ok(())), Attempt::Again, Instant::now(), &output);
            assert!(!source.failed() && !source.closed());
        }
    }

    #[test]
    fn somebody_who_tries_to_mend_it_is_told_at_once() {
        let output = Output::stdout(true).unwrap();
        let mut source = Source::new(vec!["file".into()], (), || Ok(()));
        let start = Instant::now();
        for (attempt, tells) in [(Attempt::First, true), (Attempt::Again, false), (Attempt::First, true)] {
            source.fail(error(), attempt, start);
            assert_eq!(source.trouble.as_ref().unwrap().told.is_none(), tells);
            source.look_after(start, &output);
        }
    }

    #[test]
    fn what_cannot_be_read_leaves_what_was_held() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "one").unwrap();
        let watch = Watch::new([path.clone()]);
        let read = |path: &Path| files::read(path, "x").map(|contents| contents.to_vec());
        let mut source = Source::file(&path, None, read).unwrap();
        let output = Output::stdout(true).unwrap();
        let renew = |source: &mut Source<Vec<u8>>, attempt| {
            let reading = source.question(&watch, attempt)();
            let asked = reading.is_some();
            source.take_in(reading, attempt, Instant::now(), &output);
            asked
        };
        assert!(!renew(&mut source, Attempt::Again), "there was no trouble");
        fs::remove_file(&path).unwrap();
        assert!(renew(&mut source, Attempt::First) && source.failed());
        assert_eq!(source.held(), b"one");
        fs::write(&path, "two").unwrap();
        assert!(renew(&mut source, Attempt::Again) && !source.failed());
        assert_eq!(source.held(), b"two");
    }
}
