//! The number of files this process may have open: every visitor is a socket, and systems start low.

/// Raises the soft limit of open files to the hard one, where the system knows such limits.
///
/// Failing is no reason not to start: a server that runs out pauses accepting and goes on.
#[cfg(unix)]
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// macOS names no hard limit, but takes no soft one above this (`OPEN_MAX`).
    const OPEN_MAX: u64 = 10_240;

    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let fallback = limit.maximum.map_or(OPEN_MAX, |maximum| maximum.min(OPEN_MAX));
    let result = match raised {
        Err(_) if limit.current.is_some_and(|current| current < fallback) => {
            setrlimit(Resource::Nofile, Rlimit { current: Some(fallback), ..limit })
        }
        other => other,
    };
    match result {
        Ok(()) => {
            let now = getrlimit(Resource::Nofile).current;
            tracing::debug!(before = ?limit.current, ?now, "raised the limit of open files");
        }
        Err(error) => tracing::debug!(%error, "the limit of open files stays as it is"),
    }
}

/// There is no such limit here.
#[cfg(not(unix))]
pub fn raise_open_files() {}

#[cfg(all(test, unix))]
mod tests {
    use rustix::process::{Resource, getrlimit};

    #[test]
    fn the_soft_limit_never_sinks() {
        let before = getrlimit(Resource::Nofile);
        super::raise_open_files();
        let after = getrlimit(Resource::Nofile);
        assert_eq!(after.maximum, before.maximum);
        // `None` is "no limit".
        assert!(after.current.is_none_or(|after| before.current.is_some_and(|before| after >= before)));
        #[cfg(target_os = "linux")]
        assert_eq!(after.current, after.maximum);
    }
}
