//! Network namespaces that a test makes with `ip`: one alone, or a client's network, a router and a server's network.

#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test a surprise is a failure")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The server's address.
pub(crate) const SERVER: &str = "10.77.2.2";

/// The commands that join the three namespaces. `{client}`, `{router}` and `{server}` stand for their names.
const LINKS: &str = "\
ip link add wan netns {client} type veth peer name west netns {router}
ip link add wan netns {server} type veth peer name east netns {router}
ip -n {client} address add 10.77.1.2/24 dev wan
ip -n {router} address add 10.77.1.1/24 dev west
ip -n {router} address add 10.77.2.1/24 dev east
ip -n {server} address add 10.77.2.2/24 dev wan
ip -n {client} link set wan up
ip -n {router} link set west up
ip -n {router} link set east up
ip -n {server} link set wan up
ip -n {client} route add default via 10.77.1.1
ip -n {server} route add default via 10.77.2.1";

/// A network of its own, where only the loopback device is, and that is up; gone when dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one. `None`, with a message, where that is not possible: it takes root on Linux, and `ip`. In CI it has to be
    /// possible.
    pub(crate) fn new() -> Option<Self> {
        possible(Self::make("alone"))
    }

    fn make(host: &str) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("snocat-{}-{number}-{host}", std::process::id());
        run(&format!("ip netns add {name}"))?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs an `ip` command in it.
    fn ip(&self, command: &str) -> Result<(), String> {
        run(&format!("ip -n {} {command}", self.name))
    }

    /// A command that runs `program` in it. What that mounts is seen by nobody else.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `inside` in it: the sockets that it opens belong to it.
    pub(crate) fn on<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                inside()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _it_may_be_gone = run(&format!("ip netns delete {}", self.name));
    }
}

/// Two networks with a router between them.
pub(crate) struct Networks {
    pub(crate) client: Namespace,
    router: Namespace,
    pub(crate) server: Namespace,
}

impl Networks {
    /// Makes them, where that is [possible](Namespace::new).
    pub(crate) fn new() -> Option<Self> {
        possible(Self::make())
    }

    fn make() -> Result<Self, String> {
        let [client, router, server] = ["client", "router", "server"].map(Namespace::make);
        let networks = Self { client: client?, router: router?, server: server? };
        let links = LINKS
            .replace("{client}", &networks.client.name)
            .replace("{router}", &networks.router.name)
            .replace("{server}", &networks.server.name);
        links.lines().try_for_each(run)?;
        let forwarding = "/proc/sys/net/ipv4/ip_forward";
        let forwards = networks.router.on(|| fs::write(forwarding, "1"));
        forwards.map_err(|error| format!("{forwarding}: {error}"))?;
        Ok(networks)
    }

    /// Runs an `ip` command in the router's namespace.
    #[track_caller]
    pub(crate) fn router(&self, command: &str) {
        self.router.ip(command).unwrap();
    }
}

fn possible<T>(made: Result<T, String>) -> Option<T> {
    match made {
        Ok(made) => Some(made),
        Err(problem) if std::env::var_os("CI").is_some() => panic!("no network namespaces: {problem}"),
        Err(problem) => {
            println!("skipped, no network namespaces: {problem}");
            None
        }
    }
}

fn run(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let output = command.args(words).output().map_err(|error| format!("`{line}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
