//! What `/proc` knows about a process: processor time, memory, and the UDP counters of its network namespace.

use std::process::Command;
use std::time::Duration;

use crate::Result;

/// The unit of times in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// The processor time that a process has used, user and system, in all its threads.
pub fn cpu(id: u32) -> Result<Duration> {
    let [user, system] = [14, 15].map(|field| stat(id, field));
    Ok(TICK * u32::try_from(user? + system?)?)
}

/// A process and when it began: unlike the id alone, this is never given to another.
pub fn identity(id: u32) -> Result<String> {
    Ok(format!("{id} {}", stat(id, 22)?))
}

/// Ends the process that has this identity, if it still runs.
pub fn end(of: &str) {
    if let Some(id) = of.split(' ').next().and_then(|id| id.parse().ok())
        && identity(id).is_ok_and(|now| now == of)
    {
        let _may_have_ended_meanwhile = Command::new("kill").args(["-KILL", &id.to_string()]).status();
    }
}

/// A numeric field of `/proc/PID/stat`, counted from 1 as in proc(5).
fn stat(id: u32, field: usize) -> Result<u64> {
    let text = read(id, "stat")?;
    // The second field is a name in parentheses, which may hold anything.
    let (_, rest) = text.rsplit_once(')').ok_or("no name in /proc/PID/stat")?;
    let value = rest.split_whitespace().nth(field - 3).ok_or("too few fields in /proc/PID/stat")?;
    Ok(value.parse()?)
}

/// The resident memory of a process in KiB. Of `smaps_rollup`, because `VmRSS` is only kept roughly.
pub fn rss(id: u32) -> Result<f64> {
    let text = read(id, "smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("no Rss in smaps_rollup")?;
    Ok(number.trim().parse()?)
}

/// The UDP datagrams that were sent in the network namespace of a process.
pub fn datagrams_sent(id: u32) -> Result<u64> {
    let text = read(id, "net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = lines.next().zip(lines.next()).ok_or("no UDP counters in /proc/PID/net/snmp")?;
    let at = names.split(' ').position(|name| name == "OutDatagrams").ok_or("no OutDatagrams")?;
    Ok(values.split(' ').nth(at).ok_or("too few UDP counters")?.parse()?)
}

fn read(id: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{id}/{file}");
    std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}").into())
}
