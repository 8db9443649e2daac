//! Where the parties run: on loopback at its natural MTU, or in two network namespaces with a wire of MTU 1,500
//! between them, or a [`path`](crate::path).
//!
//! Unless on loopback, the server and its visitors are at one end, the client and its target at the other.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::ValueEnum;

use crate::Result;
use crate::keeper::Keeper;
use crate::path::Path;

/// The kinds of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Where {
    /// 127.0.0.1.
    Loopback,
    /// Two network namespaces and a veth pair. Needs root.
    Wire,
    /// Two network namespaces and a path of 50 ms, 300 Mbit/s and 50 ms of queue. Needs root and TUN devices.
    Path,
    /// The same with 1 % of random loss in each direction.
    LossyPath,
}

impl Where {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 4] = [Self::Loopback, Self::Wire, Self::Path, Self::LossyPath];

    /// Whether it has measures of its own, and not those of loopback and wire.
    pub fn is_path(self) -> bool {
        matches!(self, Self::Path | Self::LossyPath)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Wire => "wire",
            Self::Path => "path",
            Self::LossyPath => "lossy-path",
        }
    }
}

/// One end.
#[derive(Debug)]
pub struct End {
    /// The address of what runs there.
    pub address: Ipv4Addr,
    namespace: Option<Namespace>,
}

impl End {
    /// A command that runs there.
    pub fn command(&self, program: &std::path::Path) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(program) };
        // `ip` becomes the program: its process id is that of the child.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace.name]).arg(program);
        command
    }

    /// The name of its namespace; empty, which is none, on loopback.
    pub fn namespace(&self) -> &str {
        self.namespace.as_ref().map_or("", |namespace| &namespace.name)
    }

    /// Gives a device of its namespace the address, and brings it up.
    pub fn bring_up(&self, device: &str) -> Result<()> {
        let (name, address) = (self.namespace(), format!("{}/30", self.address));
        ip(&["-n", name, "address", "add", &address, "dev", device])?;
        ip(&["-n", name, "link", "set", device, "up"])
    }

    /// Changes a setting of IP in its namespace.
    pub fn set(&self, setting: &str, value: &str) -> Result<()> {
        let change = format!("echo {value} > /proc/sys/net/ipv4/{setting}");
        ip(&["netns", "exec", self.namespace(), "sh", "-c", &change])
    }
}

/// A place. Dropped last: whoever runs in it is to be ended before.
#[derive(Debug)]
pub struct Place {
    /// Which one.
    pub kind: Where,
    /// What joins the ends, if it is a program.
    pub path: Option<Path>,
    /// Where the server and its visitors are.
    pub server: End,
    /// Where the client and its target are.
    pub client: End,
}

/// The addresses on the wire, and on the path. Nobody else is in these namespaces.
pub const WIRE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 213, 0, 1), Ipv4Addr::new(10, 213, 0, 2)];

impl Place {
    /// Makes the place.
    pub fn new(kind: Where, keeper: &Keeper) -> Result<Self> {
        let mut path = None;
        let [server, client] = match kind {
            Where::Loopback => [(); 2].map(|()| End { address: Ipv4Addr::LOCALHOST, namespace: None }),
            Where::Wire => wire(keeper)?,
            Where::Path | Where::LossyPath => {
                let ends = namespaces(keeper)?;
                let loss = if kind == Where::Path { 0 } else { 10_000 };
                path = Some(Path::start(&ends, loss, keeper)?);
                ends
            }
        };
        Ok(Self { kind, path, server, client })
    }
}

fn wire(keeper: &Keeper) -> Result<[End; 2]> {
    let ends = namespaces(keeper)?;
    let [server, client] = ends.each_ref().map(End::namespace);
    ip(&["-n", server, "link", "add", "eth0", "mtu", "1500", "type", "veth"]
        .into_iter()
        .chain(["peer", "name", "eth0", "mtu", "1500", "netns", client])
        .collect::<Vec<_>>())?;
    ends.iter().try_for_each(|end| end.bring_up("eth0"))?;
    Ok(ends)
}

/// Two of them, with nothing in them but their loopback.
fn namespaces(keeper: &Keeper) -> Result<[End; 2]> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let end = |name: &str, address| -> Result<End> {
        let name = format!("snocat-bench-{}-{number}{name}", std::process::id());
        let end = End { address, namespace: Some(Namespace::new(name, keeper)?) };
        ip(&["-n", end.namespace(), "link", "set", "lo", "up"])?;
        // As the system does it on loopback: thousands of connections a second need their ports back.
        end.set("tcp_tw_reuse", "1")?;
        Ok(end)
    };
    let [server, client] = WIRE;
    Ok([end("s", server)?, end("c", client)?])
}

/// A network namespace, removed when dropped.
#[derive(Debug)]
struct Namespace {
    name: String,
    keeper: Keeper,
}

impl Namespace {
    fn new(name: String, keeper: &Keeper) -> Result<Self> {
        keeper.add_namespace(&name)?;
        let namespace = Self { name, keeper: keeper.clone() };
        ip(&["netns", "add", &namespace.name])?;
        Ok(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if ip(&["netns", "del", &self.name]).is_ok() {
            self.keeper.forget_namespace(&self.name);
        }
    }
}

/// Runs `ip`.
pub fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", arguments.join(" "), errors.trim()).into())
}
