//! The systems that are compared, and how each is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::keeper::Keeper;
use crate::party::Party;
use crate::place::{End, Place, WIRE};
use crate::{Result, quic, relay, role, target};

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// TCP from the visitor to the target: the physical limit.
    Direct,
    /// Two hops of `copy_bidirectional`: what carrying TCP costs without any protocol.
    Relay,
    /// One stream of quinn without TCP: what QUIC costs.
    Quinn,
    /// snocat, tokio on both sides.
    Snocat,
    /// snocat, smol on both sides.
    SnocatSmol,
}

impl System {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 5] = [Self::Direct, Self::Relay, Self::Quinn, Self::Snocat, Self::SnocatSmol];
    /// Those that have to reach the bars.
    pub const OURS: [Self; 2] = [Self::Snocat, Self::SnocatSmol];

    /// Its name; of snocat, also that of its binary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Quinn => "quinn",
            Self::Snocat => "snocat",
            Self::SnocatSmol => "snocat-smol",
        }
    }
}

/// What is the same for all systems: binaries, keys, and who cleans up.
#[derive(Debug)]
pub struct Setup {
    /// Cleans up, whatever happens.
    pub keeper: Keeper,
    congestion: Option<String>,
    binaries: PathBuf,
    files: TempDir,
}

impl Setup {
    /// Makes the keys that are needed, with snocat's own commands.
    pub fn new(keeper: Keeper, congestion: Option<String>) -> Result<Self> {
        // This is `target/release/deps/forwarding-…`, and they are `target/release/snocat…`.
        let executable = std::env::current_exe()?;
        let binaries = executable.ancestors().nth(2).ok_or("this executable is in no target directory")?;
        let files = tempfile::Builder::new().prefix("snocat-bench-").tempdir()?;
        keeper.add_directory(files.path())?;
        let setup = Self { keeper, congestion, binaries: binaries.to_owned(), files };
        for system in System::OURS {
            setup.binary(system)?;
        }
        let [server_wire, _] = WIRE.map(|address| address.to_string());
        setup.make(&["cert", &setup.text("server"), "--san", "127.0.0.1", "--san", &server_wire])?;
        setup.make(&["token", &setup.text("token")])?;
        Ok(setup)
    }

    fn make(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(self.binary(System::Snocat)?);
        let what = format!("snocat {}", arguments.join(" "));
        Party::start(&what, command.args(arguments), &self.keeper)?.finish()
    }

    /// The release binary of one of ours.
    pub fn binary(&self, system: System) -> Result<PathBuf> {
        let path = self.binaries.join(system.name());
        if path.is_file() {
            return Ok(path);
        }
        let build = "cargo build --release --locked -p snocat-cli";
        Err(format!("{} is missing: `{build}` builds it", path.display()).into())
    }

    /// The server's certificate.
    pub fn certificate(&self) -> String {
        self.text("server.pub.pem")
    }

    /// The token of all clients.
    pub fn token(&self) -> String {
        self.text("token")
    }

    /// What ours are told about congestion.
    fn congestion(&self) -> impl Iterator<Item = &str> {
        self.congestion.iter().flat_map(|name| ["--congestion", name])
    }

    fn text(&self, file: &str) -> String {
        self.files.path().join(file).display().to_string()
    }
}

/// A system that runs. What has no such party has none.
#[derive(Debug)]
pub struct Running {
    /// Which one.
    pub system: System,
    /// Where visitors go.
    pub entry: Option<SocketAddr>,
    /// Its parts.
    pub server: Option<Party>,
    /// Its parts.
    pub client: Option<Party>,
    target: Option<Party>,
    /// Where more clients of its server go.
    pub driver: Option<SocketAddr>,
}

impl Running {
    /// Starts it, ready for visitors.
    pub fn start(system: System, place: &Place, setup: &Setup) -> Result<Self> {
        match system {
            System::Direct => {
                let (target, entry) = start_target(place, setup)?;
                Ok(Self {
                    system,
                    entry: Some(entry),
                    server: None,
                    client: None,
                    target: Some(target),
                    driver: None,
                })
            }
            System::Relay => {
                let (target, address) = start_target(place, setup)?;
                let ([server, client], entry) = start_relay(place, setup, address)?;
                Ok(Self::of_all(system, entry, server, client, target))
            }
            System::Quinn => {
                let certificate = setup.text(&format!("quinn-{}.der", place.kind.name()));
                let keeper = &setup.keeper;
                let arguments: [&dyn ToString; 2] = [&place.server.address, &certificate];
                let mut server = role::start(quic::SERVER, &arguments, &place.server, keeper)?;
                let address = role::listening(&mut server)?;
                let mut client = role::start(quic::CLIENT, &[&address, &certificate], &place.client, keeper)?;
                client.expect("connected")?;
                Ok(Self {
                    system,
                    entry: None,
                    server: Some(server),
                    client: Some(client),
                    target: None,
                    driver: None,
                })
            }
            System::Snocat | System::SnocatSmol => {
                let (target, address) = start_target(place, setup)?;
                let (server, driver) = start_server(system, place, setup)?;
                let (client, entry) = start_client(system, place, setup, driver, address)?;
                Ok(Self { driver: Some(driver), ..Self::of_all(system, entry, server, client, target) })
            }
        }
    }

    fn of_all(system: System, entry: SocketAddr, server: Party, client: Party, target: Party) -> Self {
        let [server, client, target] = [server, client, target].map(Some);
        Self { system, entry: Some(entry), server, client, target, driver: None }
    }

    /// The two processes that are the system itself, without visitors and target.
    pub fn parts(&self) -> impl Iterator<Item = &Party> {
        [&self.server, &self.client].into_iter().flatten()
    }

    /// What its parties that have died left to say.
    pub fn deaths(&mut self) -> Vec<String> {
        let parties = [&mut self.server, &mut self.client, &mut self.target];
        parties.into_iter().flatten().filter_map(Party::death).collect()
    }
}

/// Starts a target; returns it with its address.
pub fn start_target(place: &Place, setup: &Setup) -> Result<(Party, SocketAddr)> {
    let end = &place.client;
    let mut target = role::start(target::ROLE, &[&end.address, &place.kind.is_path()], end, &setup.keeper)?;
    let address = role::listening(&mut target)?;
    Ok((target, address))
}

/// Starts the two hops of a plain relay to a target; returns them with the address for visitors.
pub fn start_relay(place: &Place, setup: &Setup, target: SocketAddr) -> Result<([Party; 2], SocketAddr)> {
    let hop = |end: &End, to: SocketAddr| -> Result<(Party, SocketAddr)> {
        let mut party = role::start(relay::ROLE, &[&end.address, &to], end, &setup.keeper)?;
        let address = role::listening(&mut party)?;
        Ok((party, address))
    };
    let (client, inner) = hop(&place.client, target)?;
    let (server, entry) = hop(&place.server, inner)?;
    Ok(([server, client], entry))
}

/// Starts one of our servers; returns it with the address for clients.
pub fn start_server(system: System, place: &Place, setup: &Setup) -> Result<(Party, SocketAddr)> {
    start_server_with(system, &ports(), place, setup)
}

/// The same with these ports for its tunnels.
pub fn start_server_with(
    system: System,
    ports: &str,
    place: &Place,
    setup: &Setup,
) -> Result<(Party, SocketAddr)> {
    let address = place.server.address;
    let key = setup.text("server.priv.pem");
    let mut command = place.server.command(&setup.binary(system)?);
    command
        .args(["server", "--json", "--cert", &setup.certificate(), "--key", &key])
        .args(["--token-file", &setup.token(), "--quic", &format!("{address}:0")])
        .args(["--tcp", &address.to_string(), "--ports", ports])
        .args(setup.congestion());
    let mut server = Party::start(&format!("{} server", system.name()), &mut command, &setup.keeper)?;
    let listening = event(&mut server, "listening")?;
    Ok((server, parse(&listening["quic"])?))
}

/// Starts one of our clients; returns it with the port for its visitors.
pub fn start_client(
    system: System,
    place: &Place,
    setup: &Setup,
    driver: SocketAddr,
    target: SocketAddr,
) -> Result<(Party, SocketAddr)> {
    let mut command = place.client.command(&setup.binary(system)?);
    command
        .args(["client", "--json", "--authority", &setup.certificate(), "--token-file", &setup.token()])
        .args(["--driver", &driver.to_string(), "--target", &target.to_string()])
        .args(setup.congestion());
    let mut client = Party::start(&format!("{} client", system.name()), &mut command, &setup.keeper)?;
    event(&mut client, "tunnel-up")?;
    let bound = event(&mut client, "bound")?;
    Ok((client, parse(&bound["addresses"][0])?))
}

/// The next event, which has to be this one.
fn event(party: &mut Party, name: &str) -> Result<Value> {
    let line = party.line(Duration::ZERO)?;
    let event: Value = serde_json::from_str(&line)?;
    if event["event"] == name { Ok(event) } else { Err(format!("`{line}` instead of `{name}`").into()) }
}

fn parse(field: &Value) -> Result<SocketAddr> {
    let text = field.as_str().ok_or_else(|| format!("{field} is not an address"))?;
    Ok(text.parse()?)
}

/// Two thousand ports for each server, below those from which systems take the ports of outgoing connections.
fn ports() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + 2000 * (NEXT.fetch_add(1, Ordering::Relaxed) % 10);
    format!("{first}:{}", first + 1999)
}

/// How old the binaries are, for people who wonder whether they measure what they have just changed.
pub fn age(binary: &Path) -> Result<Duration> {
    Ok(binary.metadata()?.modified()?.elapsed().unwrap_or_default())
}
