//! Open files: how many there may be, and how many there are.

/// Raises the soft limit of open files to the hard one. Returns whether at least `wanted` may be open then; says
/// so if not.
#[cfg(unix)]
pub fn enough_descriptors(wanted: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let current = if raised.is_ok() { limit.maximum } else { limit.current };
    let enough = current.is_none_or(|current| current >= wanted);
    if !enough {
        eprintln!("skipped: this needs {wanted} open files, and the limit is {current:?}");
    }
    enough
}

/// There is no such limit here.
#[cfg(not(unix))]
pub fn enough_descriptors(_: u64) -> bool {
    true
}

/// How many descriptors this process has open, where the system tells.
pub fn open_descriptors() -> Option<usize> {
    std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count)
}
