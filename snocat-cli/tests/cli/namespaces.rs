//! A client's network, a router and a server's network, as network namespaces that the test makes with `ip`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test a surprise is a failure")]

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
ip -n {client} link set lo up
ip -n {server} link set lo up
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

/// Two networks with a router between them; gone when dropped.
pub(crate) struct Networks {
    name: String,
}

impl Networks {
    /// Makes them. `None`, with a message, where that is not possible: it takes root on Linux, and `ip`. In CI it has to be
    /// possible.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let networks = Self { name: format!("snocat-{}-{number}", std::process::id()) };
        let names = ["client", "router", "server"].map(|host| networks.namespace(host));
        let made = names.iter().try_for_each(|name| run(&format!("ip netns add {name}")));
        let made = made.and_then(|()| {
            let [client, router, server] = &names;
            let links =
                LINKS.replace("{client}", client).replace("{router}", router).replace("{server}", server);
            links.lines().try_for_each(run)?;
            let forwarding = "/proc/sys/net/ipv4/ip_forward";
            networks
                .on("router", || fs::write(forwarding, "1"))
                .map_err(|error| format!("{forwarding}: {error}"))
        });
        match made {
            Ok(()) => Some(networks),
            Err(problem) if std::env::var_os("CI").is_some() => panic!("no network namespaces: {problem}"),
            Err(problem) => {
                println!("skipped, no network namespaces: {problem}");
                None
            }
        }
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// Runs an `ip` command in the router's namespace.
    #[track_caller]
    pub(crate) fn router(&self, command: &str) {
        run(&format!("ip -n {} {command}", self.namespace("router"))).unwrap();
    }

    /// A command that runs `binary` on a host: `client` or `server`.
    pub(crate) fn command(&self, host: &str, binary: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host), binary]);
        command
    }

    /// Runs `inside` on a host: the sockets that it opens belong to that host.
    pub(crate) fn on<T: Send>(&self, host: &str, inside: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.namespace(host))).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                inside()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for host in ["client", "router", "server"] {
            let _it_may_not_exist = run(&format!("ip netns delete {}", self.namespace(host)));
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
