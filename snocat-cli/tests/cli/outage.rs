//! A path that fails and comes back, and a server that is gone, told apart by what ICMP says.

#![expect(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::namespaces::{Namespace, Networks, SERVER};
use crate::program::{Keys, PATIENCE, Program, binaries, bound_address, echo, free_ports};

/// As long as a router takes to dial in.
const OUTAGE: Duration = Duration::from_secs(8);

/// What the router does while the server's network cannot be reached, and how it is mended.
const OUTAGES: [(&str, &str, &str); 3] = [
    ("host unreachable", "route add unreachable 10.77.2.2", "route delete unreachable 10.77.2.2"),
    ("prohibited", "route add prohibit 10.77.2.2", "route delete prohibit 10.77.2.2"),
    ("network unreachable", "link set east down", "link set east up"),
];

/// The next keep-alive, the time that the path gets, and time for a busy machine.
const SOON: Duration = Duration::from_secs(12 + 10 + 8);

struct Scene {
    networks: Networks,
    keys: Keys,
}

impl Scene {
    fn start(&self, host: &Namespace, binary: &str, arguments: &[&str], files: &[(&str, &str)]) -> Program {
        let mut command = host.command(binary);
        command.args(arguments).arg("--json").env_remove("SSLKEYLOGFILE");
        for (option, file) in files {
            command.arg(option).arg::<&Path>(&self.keys.at(file));
        }
        Program::spawn(&mut command)
    }

    fn server(&self, binary: &str, ports: &str) -> (Program, SocketAddr) {
        let quic = format!("{SERVER}:9090");
        let files = [("--cert", "server.pub.pem"), ("--key", "server.priv.pem"), ("--token-file", "token")];
        let arguments = ["server", "--quic", &quic, "--ports", ports];
        let mut server = self.start(&self.networks.server, binary, &arguments, &files);
        server.event("listening");
        (server, quic.parse().unwrap())
    }

    fn client(&self, binary: &str, driver: SocketAddr, target: SocketAddr) -> Program {
        let (driver, target) = (driver.to_string(), target.to_string());
        let arguments = ["client", "--driver", &driver, "--san", "localhost", "--target", &target];
        let files = [("--authority", "server.pub.pem"), ("--token-file", "token")];
        self.start(&self.networks.client, binary, &arguments, &files)
    }
}

/// Says something each now and then while `meanwhile` runs, and then expects all of it back.
fn converse_during(visitor: &mut TcpStream, time: Duration, heal: impl FnOnce()) {
    let began = Instant::now();
    let mut said = Vec::new();
    while began.elapsed() < time {
        let word = format!("{:?} ", began.elapsed());
        visitor.write_all(word.as_bytes()).unwrap();
        said.extend(word.into_bytes());
        thread::sleep(Duration::from_millis(200));
    }
    heal();
    let mut heard = vec![0; said.len()];
    visitor.read_exact(&mut heard).unwrap();
    assert_eq!(heard, said);
}

fn survives_outages(binary: &str) {
    let Some(networks) = Networks::new() else { return };
    let scene = Scene { networks, keys: Keys::new() };
    let (server, driver) = scene.server(binary, &free_ports(1));
    let target = scene.networks.client.on(echo);
    let mut client = scene.client(binary, driver, target);
    client.event("tunnel-up");
    let port = bound_address(&client.event("bound"));
    let mut visitor = scene.networks.server.on(|| TcpStream::connect_timeout(&port, PATIENCE).unwrap());
    visitor.set_read_timeout(Some(PATIENCE)).unwrap();
    for (name, fail, mend) in OUTAGES {
        println!("{binary}: {name}");
        scene.networks.router(fail);
        converse_during(&mut visitor, OUTAGE, || scene.networks.router(mend));
    }
    visitor.shutdown(Shutdown::Write).unwrap();
    assert_eq!(visitor.read(&mut [0]).unwrap(), 0, "the visitor's connection ends cleanly");

    // Now the server is gone for good, and its host is there to say so.
    let began = Instant::now();
    server.signal(Signal::KILL);
    client.end().failed_with(&["has fallen silent"]);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn an_outage_that_a_router_tells_of_costs_no_tunnel_and_a_server_that_is_gone_is_noticed() {
    let tests: Vec<_> =
        binaries().into_iter().map(|binary| thread::spawn(move || survives_outages(binary))).collect();
    for test in tests {
        test.join().unwrap();
    }
}
