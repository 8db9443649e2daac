//! Where the parties run: on loopback at its natural MTU, or in two network namespaces with a wire of MTU 1,500
//! between them.
//!
//! On the wire, the server and its visitors are at one end, the client and its target at the other.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::ValueEnum;

use crate::Result;
use crate::keeper::Keeper;

/// The kinds of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Where {
    /// 127.0.0.1.
    Loopback,
    /// Two network namespaces and a veth pair. Needs root.
    Wire,
}

impl Where {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Wire => "wire",
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
}

/// A place. Dropped last: whoever runs in it is to be ended before.
#[derive(Debug)]
pub struct Place {
    /// Which one.
    pub kind: Where,
    /// Where the server and its visitors are.
    pub server: End,
    /// Where the client and its target are.
    pub client: End,
}

/// The addresses on the wire. Nobody else is in these namespaces.
pub const WIRE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 213, 0, 1), Ipv4Addr::new(10, 213, 0, 2)];

impl Place {
    /// Makes the place.
    pub fn new(kind: Where, keeper: &Keeper) -> Result<Self> {
        let [server, client] = match kind {
            Where::Loopback => [(); 2].map(|()| End { address: Ipv4Addr::LOCALHOST, namespace: None }),
            Where::Wire => wire(keeper)?,
        };
        Ok(Self { kind, server, client })
    }
}

fn wire(keeper: &Keeper) -> Result<[End; 2]> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let namespace =
        |end| Namespace::new(format!("snocat-bench-{}-{number}{end}", std::process::id()), keeper);
    let [server, client] = [namespace("s")?, namespace("c")?];
    ip(&["-n", &server.name, "link", "add", "eth0", "mtu", "1500", "type", "veth"]
        .into_iter()
        .chain(["peer", "name", "eth0", "mtu", "1500", "netns", &client.name])
        .collect::<Vec<_>>())?;
    for (namespace, address) in [&server, &client].into_iter().zip(WIRE) {
        let name = &namespace.name;
        ip(&["-n", name, "address", "add", &format!("{address}/30"), "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        // As the system does it on loopback: thousands of connections a second need their ports back.
        let reuse = "echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse";
        ip(&["netns", "exec", name, "sh", "-c", reuse])?;
    }
    let end = |(namespace, address)| End { address, namespace: Some(namespace) };
    let [server_address, client_address] = WIRE;
    Ok([(server, server_address), (client, client_address)].map(end))
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

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", arguments.join(" "), errors.trim()).into())
}
