//! A process that takes part: what it says is waited for, but never for ever; if it dies, its last words are in the
//! error; and it is ended when it is dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::keeper::Keeper;
use crate::{Result, process};

/// How long anything may take beyond what it has to take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

/// So much of standard error is kept.
const LAST_WORDS: usize = 8 * 1024;

/// A running process.
#[derive(Debug)]
pub struct Party {
    name: String,
    child: Child,
    identity: String,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
    errors_end: Option<JoinHandle<()>>,
    keeper: Keeper,
}

impl Party {
    /// Starts it.
    pub fn start(name: &str, command: &mut Command, keeper: &Keeper) -> Result<Self> {
        let mut child = command
            .env_remove("RUST_LOG")
            .env_remove("SSLKEYLOGFILE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name} does not start ({command:?}): {error}"))?;
        let identity = process::identity(child.id())?;
        keeper.add_process(child.id())?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("no stdout")?;
        let error_output = child.stderr.take().ok_or("no stderr")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let to = errors.clone();
        let errors_end = Some(std::thread::spawn(move || keep_last_words(error_output, &to)));
        let (name, keeper) = (name.to_owned(), keeper.clone());
        Ok(Self { name, child, identity, input, lines, errors, errors_end, keeper })
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says, after what takes `time`.
    pub fn line(&mut self, time: Duration) -> Result<String> {
        let why = match self.lines.recv_timeout(time + PATIENCE) {
            Ok(line) => return Ok(line),
            Err(RecvTimeoutError::Timeout) => "says nothing",
            Err(RecvTimeoutError::Disconnected) => "has ended",
        };
        Err(self.failure(why))
    }

    /// The numbers on the next line.
    pub fn numbers<const N: usize>(&mut self, time: Duration) -> Result<[f64; N]> {
        let line = self.line(time)?;
        let numbers: std::result::Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
        numbers
            .ok()
            .and_then(|numbers| numbers.try_into().ok())
            .ok_or_else(|| format!("{} says `{line}`, not {N} numbers", self.name).into())
    }

    /// The next line has to be this.
    pub fn expect(&mut self, wanted: &str) -> Result<()> {
        let line = self.line(Duration::ZERO)?;
        if line == wanted {
            Ok(())
        } else {
            Err(format!("{} says `{line}`, not `{wanted}`", self.name).into())
        }
    }

    /// Tells it something.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let said = self.input.as_mut().map(|input| writeln!(input, "{line}").and_then(|()| input.flush()));
        if matches!(said, Some(Ok(()))) { Ok(()) } else { Err(self.failure("does not listen")) }
    }

    /// Waits until it has ended by itself, and well.
    pub fn finish(mut self) -> Result<()> {
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                _ => return Err(self.failure("was to end well")),
            }
        }
    }

    /// How it has ended, if it has: only the parties of a measure end by themselves, at its end.
    pub fn death(&mut self) -> Option<String> {
        let ended = self.child.try_wait().ok().flatten().is_some();
        ended.then(|| self.failure("has ended").to_string())
    }

    fn failure(&mut self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        // Who is silent because it is about to end gets the time to say why.
        std::thread::sleep(Duration::from_millis(200));
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_some()
            && let Some(end) = self.errors_end.take()
        {
            let _it_has_read_all = end.join();
        }
        let status = ended.map_or_else(|| "it still runs".to_owned(), |status| status.to_string());
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let errors =
            if errors.is_empty() { "nothing".to_owned() } else { format!("\n{}", errors.trim_end()) };
        format!("{} {what} ({status}); on its standard error: {errors}", self.name).into()
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _it_has_ended = self.child.wait();
        self.keeper.forget_process(&self.identity);
    }
}

fn keep_last_words(mut from: impl Read, to: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut words = to.lock().unwrap_or_else(PoisonError::into_inner);
        words.push_str(&String::from_utf8_lossy(&buffer[..count]));
        while words.len() > LAST_WORDS {
            words.remove(0);
        }
    }
}
