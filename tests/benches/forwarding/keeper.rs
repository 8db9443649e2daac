//! Nothing is left behind, whatever happens: a process of its own that outlives the benchmark (a panic, Ctrl-C,
//! SIGKILL) and then ends the parties that still run and removes the namespaces and files that are still there.
//!
//! It is told about each on its standard input, the end of which is the end of the benchmark. A process is known by
//! its id and the time when it began, so that never another one is ended that got the same id.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Result, process, role};

/// The name of the role.
pub const ROLE: &str = "keeper";

/// Tells the keeper. Clones tell the same one.
#[derive(Clone, Debug)]
pub struct Keeper(Arc<Mutex<Option<(Child, ChildStdin)>>>);

impl Keeper {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([role::OPTION, ROLE]).stdin(Stdio::piped()).stdout(Stdio::null());
        #[cfg(unix)]
        {
            // Ctrl-C goes to a whole group of processes: this one stays to clean up.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let mut child = command.spawn()?;
        let input = child.stdin.take().ok_or("the keeper has no input")?;
        Ok(Self(Arc::new(Mutex::new(Some((child, input))))))
    }

    /// This process is to be ended, too.
    pub fn add_process(&self, id: u32) -> Result<()> {
        self.tell(&format!("+process {}", process::identity(id)?))
    }

    /// This process has ended.
    pub fn forget_process(&self, identity: &str) {
        let _nobody_needs_it_any_more = self.tell(&format!("-process {identity}"));
    }

    /// This namespace is to be removed, too.
    pub fn add_namespace(&self, name: &str) -> Result<()> {
        self.tell(&format!("+namespace {name}"))
    }

    /// This namespace has been removed.
    pub fn forget_namespace(&self, name: &str) {
        let _nobody_needs_it_any_more = self.tell(&format!("-namespace {name}"));
    }

    /// This directory is to be removed at the end.
    pub fn add_directory(&self, path: &Path) -> Result<()> {
        self.tell(&format!("+directory {}", path.display()))
    }

    fn tell(&self, line: &str) -> Result<()> {
        let mut keeper = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, input) = keeper.as_mut().ok_or("the keeper is gone")?;
        writeln!(input, "{line}").map_err(|error| format!("the keeper is gone: {error}").into())
    }

    /// Waits until it has cleaned up, and ends it.
    pub fn finish(&self) {
        if let Some((mut child, input)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(input);
            let _it_has_ended = child.wait();
        }
    }
}

/// The role: what the benchmark leaves behind is ended and removed.
pub fn run() -> Result<()> {
    let mut kept = BTreeSet::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_at_checked(1) {
            Some(("+", what)) => kept.insert(what.to_owned()),
            Some(("-", what)) => kept.remove(what),
            _ => return Err(format!("the keeper does not understand `{line}`").into()),
        };
    }
    // "process" after "namespace": a namespace with processes in it would live on without a name.
    for what in kept.iter().rev() {
        match what.split_once(' ') {
            Some(("process", identity)) => process::end(identity),
            Some(("namespace", name)) => {
                let _may_be_gone = Command::new("ip").args(["netns", "del", name]).output();
            }
            Some(("directory", path)) => {
                let _may_be_gone = std::fs::remove_dir_all(path);
            }
            _ => {}
        }
    }
    Ok(())
}
