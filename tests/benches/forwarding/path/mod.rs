//! A bad network between two namespaces, for TCP and QUIC alike: 50 ms there and back, a bottleneck with a queue, and
//! loss. The kernels of test machines seldom have netem; a [`program`] with two TUN devices moves the packets instead.
//!
//! The [`measures`] that make sense only on it are taken in a [`round`] of their own, with [`steady`](crate::steady)
//! traffic, and are held against [`bars`] of their own.

pub mod bars;
#[cfg(target_os = "linux")]
mod link;
mod measures;
pub mod program;
mod round;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;

use crate::keeper::Keeper;
use crate::party::Party;
use crate::place::{End, ip};
use crate::{Result, role};

pub use self::measures::{Figure, Measure};
pub use self::round::round;

/// What fits through the bottleneck in each direction, in bytes a second, headers of IP included: 300 Mbit/s.
pub const RATE: u64 = 300_000_000 / 8;
/// How long the way takes behind the bottleneck, in each direction.
pub const DELAY: Duration = Duration::from_millis(25);
/// What waits for the bottleneck at most, in bytes: 50 ms of them. What comes then is lost.
pub const QUEUE: u64 = RATE * 50 / 1000;

/// The names of its devices, at the end of the server and at the end of the client.
const DEVICES: [&str; 2] = ["near", "far"];

/// A path that runs.
#[derive(Debug)]
pub struct Path {
    program: Party,
    namespaces: [String; 2],
    strays: u64,
}

/// How well a path did since it was asked for the last time. It is to be trusted as far as it was on time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// Packets in a hundred that arrived more than [`program::LATE`] after they should have.
    pub late: f64,
    /// How late the latest one was, in milliseconds.
    pub latest: f64,
    /// Packets in a hundred that found the queue of the bottleneck full.
    pub overflowed: f64,
    /// Packets in a hundred that were lost by chance.
    pub lost: f64,
    /// Packets that the devices lost because nobody fetched them, and that are in no plan.
    pub strays: f64,
}

impl Conditions {
    /// The worse of both.
    pub fn or_worse(self, other: Self) -> Self {
        Self {
            late: self.late.max(other.late),
            latest: self.latest.max(other.latest),
            overflowed: self.overflowed.max(other.overflowed),
            lost: self.lost.max(other.lost),
            strays: self.strays.max(other.strays),
        }
    }
}

impl Path {
    /// Joins two namespaces with a path that loses so many packets in a million.
    pub fn start(ends: &[End; 2], loss: u32, keeper: &Keeper) -> Result<Self> {
        let [server, client] = ends;
        let mut program = role::start(program::ROLE, &[&loss, &DEVICES[0], &DEVICES[1]], server, keeper)?;
        program.expect("ready")?;
        ip(&["-n", server.namespace(), "link", "set", DEVICES[1], "netns", client.namespace()])?;
        for (end, device) in ends.iter().zip(DEVICES) {
            end.bring_up(device)?;
            // Several times what 300 Mbit/s need on 100 ms: TCP counts its own overhead, too.
            end.set("tcp_rmem", "4096 131072 33554432")?;
            end.set("tcp_wmem", "4096 65536 33554432")?;
            // Hops inside of a namespace lose nothing; BBR, which some systems prefer, would pace them all the same.
            end.set("tcp_congestion_control", "reno")?;
            // No connection begins with what an earlier one has found out.
            end.set("tcp_no_metrics_save", "1")?;
        }
        // A network does not wait for a processor. Where this is not allowed, the path may be late, and says so.
        let chrt = ["--fifo", "--pid", "10", &program.id().to_string()];
        let _may_not_be_allowed = Command::new("chrt").args(chrt).output();
        program.say("go")?;
        let namespaces = ends.each_ref().map(|end| end.namespace().to_owned());
        Ok(Self { program, namespaces, strays: 0 })
    }

    /// What has happened since the last time.
    pub fn conditions(&mut self) -> Result<Conditions> {
        self.program.say("report")?;
        let [passed, late, latest, overflowed, lost] = self.program.numbers(Duration::ZERO)?;
        let strays = self.namespaces.iter().zip(DEVICES).map(|(name, device)| dropped(name, device));
        let strays = strays.sum::<Result<u64>>()?;
        let before = std::mem::replace(&mut self.strays, strays);
        let percent = |packets: f64, of: f64| 100.0 * packets / of.max(1.0);
        let sent = passed + overflowed + lost;
        Ok(Conditions {
            late: percent(late, passed),
            latest,
            overflowed: percent(overflowed, sent),
            lost: percent(lost, sent),
            strays: (strays - before) as f64,
        })
    }
}

/// Has a TCP connection behave like most of those it would meet on the way. Some systems prefer BBR, and allow a
/// namespace nothing but that and Reno; a connection may be told.
#[cfg(target_os = "linux")]
pub fn cubic(connection: &TcpStream) -> Result<()> {
    Ok(rustix::net::sockopt::set_tcp_congestion(connection, "cubic")?)
}

/// There is no path but on Linux.
#[cfg(not(target_os = "linux"))]
pub fn cubic(_: &TcpStream) -> Result<()> {
    Ok(())
}

/// What a device has lost, on the way to the program and back from it.
fn dropped(namespace: &str, device: &str) -> Result<u64> {
    let shown =
        Command::new("ip").args(["-n", namespace, "-s", "-j", "link", "show", "dev", device]).output()?;
    let shown: Value = serde_json::from_slice(&shown.stdout)?;
    let counter = |way: &str| shown[0]["stats64"][way]["dropped"].as_u64();
    counter("rx").zip(counter("tx")).map(|(rx, tx)| rx + tx).ok_or_else(|| "no counters of drops".into())
}
