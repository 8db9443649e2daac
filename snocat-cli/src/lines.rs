//! Lines that a thread of its own writes, so that no task ever waits for a terminal that was stopped (Ctrl-S), a
//! pipe that nobody reads, or a disk that is away.
//!
//! What waits is bounded. Beyond that lines are dropped whole, counted, and the reader is told how many as soon as it
//! reads again.

use std::fmt;
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes that may wait for a reader: thousands of lines. As much again may be on its way to the system.
const CAPACITY: usize = 1 << 20;

/// The pause before a writer is tried again that takes nothing now: another process has made it non-blocking.
const RETRY: Duration = Duration::from_millis(20);

/// Where lines are left to be written. Clones share one thread.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write, or everything is written.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Whole lines.
    text: Vec<u8>,
    /// Lines that did not fit. Until the reader was told, further ones are dropped, too: it is told once for all of them,
    /// and where they are missing.
    dropped: u64,
    /// The thread has taken lines and not written them yet.
    writing: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl Lines {
    /// Starts the thread `name`, which writes to what `open` returns. `dropped` is the line, without its end, that
    /// tells the reader how many are missing. Lines that cannot be written are lost.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start<W: Write>(
        name: &str,
        open: impl FnOnce() -> io::Result<W> + Send + 'static,
        dropped: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let lines = Self(shared.clone());
        let work = move || {
            let mut to = open();
            loop {
                let text = shared.take(&dropped);
                // A reader that went away is no reason to end anything.
                let _gone = to.as_mut().map(|to| write_all(to, &text));
                shared.written();
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(lines)
    }

    /// Leaves a line, or several, with their ends. Never waits.
    pub fn leave(&self, lines: &[u8]) {
        let mut queue = self.0.lock();
        if queue.dropped > 0 || queue.text.len() + lines.len() > CAPACITY {
            queue.dropped += 1;
            return;
        }
        queue.text.extend_from_slice(lines);
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Waits until what was left is written, but no longer than `time`. Says whether it is.
    pub fn flush(&self, time: Duration) -> bool {
        let queue = self.0.lock();
        let waited = self.0.changed.wait_timeout_while(queue, time, |queue| !queue.is_done());
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.is_done()
    }
}

impl Queue {
    fn is_done(&self) -> bool {
        self.text.is_empty() && self.dropped == 0 && !self.writing
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to write.
    fn take(&self, dropped: impl Fn(u64) -> String) -> Vec<u8> {
        let nothing = |queue: &mut Queue| queue.text.is_empty() && queue.dropped == 0;
        let queue = self.changed.wait_while(self.lock(), nothing);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.writing = true;
        if queue.text.is_empty() {
            let count = mem::take(&mut queue.dropped);
            drop(queue);
            return (dropped(count) + "\n").into_bytes();
        }
        mem::take(&mut queue.text)
    }

    fn written(&self) {
        self.lock().writing = false;
        self.changed.notify_all();
    }
}

/// Like [`Write::write_all`] and [`Write::flush`], but patient with what does not block.
fn write_all(to: &mut impl Write, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match patiently(|| to.write(text))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => text = text.get(written..).unwrap_or_default(),
        }
    }
    // The writer may have kept the end of it.
    patiently(|| to.flush())
}

/// Tries again as long as a try would block.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::mpsc::{Receiver, channel};

    /// More than any of this takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Takes what is written only when the test lets it.
    struct Gate {
        open: Receiver<()>,
        to: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _closed_for_good = self.open.recv();
            self.to.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_dropped_is_told() {
        let (let_through, open) = channel();
        let to = Arc::new(Mutex::new(Vec::new()));
        let gate = Gate { open, to: to.clone() };
        let lines = Lines::start("test", || Ok(gate), |count| format!("{count} dropped")).unwrap();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        // What the thread has taken is not in the queue any more.
        lines.leave(b"first\n");
        while !lines.0.lock().writing {
            thread::yield_now();
        }
        for _ in 0..CAPACITY / line.len() + 7 {
            lines.leave(&line);
        }
        lines.leave(b"short, and behind what was dropped\n");
        assert_eq!(lines.0.lock().text.len(), CAPACITY);
        assert!(!lines.flush(Duration::from_millis(10)), "it waits for no reader for long");
        drop(let_through);
        assert!(lines.flush(PATIENCE));
        lines.leave(b"after\n");
        assert!(lines.flush(PATIENCE));
        let written = String::from_utf8(mem::take(&mut *to.lock().unwrap())).unwrap();
        let mut written: Vec<_> = written.lines().collect();
        assert_eq!((written.remove(0), written.len()), ("first", 1024 + 2));
        assert_eq!(written.split_off(1024), ["8 dropped", "after"]);
    }

    #[test]
    fn a_pipe_that_does_not_block_is_written_all_the_same() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let lines = Lines::start("test", || Ok(writer), |count| format!("{count} dropped")).unwrap();
        let text = b"0123456789abcde\n".repeat(CAPACITY / 16);
        lines.leave(&text);
        let mut read = vec![0; text.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read == text && lines.flush(PATIENCE));
    }

    /// As stdout, which keeps the end of what was written to it.
    #[test]
    fn what_a_writer_keeps_is_flushed_as_patiently() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let writer = io::LineWriter::new(writer);
        let lines = Lines::start("test", || Ok(writer), |count| format!("{count} dropped")).unwrap();
        // A little more than the pipe takes.
        let text = b"0123456789abcde\n".repeat((65_536 + 512) / 16);
        lines.leave(&text);
        assert!(!lines.flush(Duration::from_millis(200)), "some of it was not written");
        let mut read = vec![0; text.len()];
        reader.read_exact(&mut read[..65_536]).unwrap();
        assert!(lines.flush(PATIENCE));
        reader.read_exact(&mut read[65_536..]).unwrap();
        assert!(read == text);
    }

    #[test]
    fn a_reader_that_went_away_stops_nobody() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let lines = Lines::start("test", || Ok(writer), |_| String::new()).unwrap();
        for _ in 0..3 {
            lines.leave(b"x\n");
            assert!(lines.flush(PATIENCE));
        }
        let no_file = || Err::<io::Stderr, _>(io::ErrorKind::NotFound.into());
        let lines = Lines::start("test", no_file, |_| String::new()).unwrap();
        lines.leave(b"x\n");
        assert!(lines.flush(PATIENCE));
    }
}
