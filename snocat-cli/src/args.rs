//! The command line: commands, options and what `--help` says about them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use snocat_driver::core::auth::TunnelName;
use snocat_driver::core::{CongestionControl, Limits};

use crate::keys::keygen;
use crate::methods::Methods;
use crate::values::{self, CertifiedName, HostPort, Pin, Ports};

/// Reach a TCP service inside another network through a port on your server
///
/// The server runs where visitors can reach it; the client runs inside the other network, beside the
/// service, and dials out. Between them is one QUIC connection, encrypted and authenticated: the tunnel.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = START, after_long_help = MANUAL)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const START: &str = "Start with `snocat demo`. `--help` shows more than `-h`, here and after each command.";

const MANUAL: &str = "\
Examples:
  See it work, all on this machine:
    snocat demo

  On a server that is reachable as example.org:
    snocat cert keys/server --san example.org
    snocat token keys/tokens
    snocat server --cert keys/server.pub.pem --key keys/server.priv.pem \\
        --token-file keys/tokens --quic 0.0.0.0:9090 --tcp 0.0.0.0

  On a machine beside the service, with copies of server.pub.pem and tokens:
    snocat client --driver example.org:9090 --authority server.pub.pem \\
        --token-file tokens --name web --target 127.0.0.1:3000

  The first free port of the server's range, 8080, now leads to that service.

Environment:
  RUST_LOG       what to log to stderr: error, warn (the default), info, debug, trace,
                 or by part, such as snocat_core=debug
  SSLKEYLOGFILE  a file to append the connections' TLS secrets to; Wireshark decrypts with it
  NO_COLOR       no colours on stderr

Signals:
  SIGINT (Ctrl-C), SIGTERM  an orderly end; a second one ends it at once
  SIGHUP                    server and client read their files again and go on
  What was ignored at the start, as by nohup, stays ignored.

Exit codes:
  0  done, or ended by Ctrl-C or SIGTERM
  1  failed; one line on stderr says why and what to do
  2  wrong usage";

/// What may stand before a key or a secret in a server's file.
const KEY_OPTIONS: &str = "\
In the server's file options may stand before a key, with commas between them:
  identity=\"alice\"                  whose it is [default: the token's NAME, the key's fingerprint]
  names=\"web,db-*\"                  tunnel names that it allows, and that nobody else may have
                                    [default: any that no line lists]
  ports=\"8080,9000-9010\"            ports that it allows [default: all of --ports]
  from=\"192.0.2.0/24,2001:db8::1\"   where its holder may come from
  expires=\"2027-01-31\"              its last day, UTC, or a time, such as 2027-01-31T12:00:00Z";

fn token_help() -> String {
    format!(
        "\
Examples:
  snocat token keys/tokens             # one token, for server and client
  snocat token --name alice token      # one more, for somebody else's client,
  cat token >> keys/tokens             # and for the server

{KEY_OPTIONS}
as in the line
  names=\"web\",expires=\"2027-01-31\" alice:SECRET"
    )
}

fn keygen_help() -> String {
    format!(
        "\
Examples:
  snocat keygen keys/web               # on the client
  cat web.pub >> keys/authorized       # on the server, with a copy of web.pub

{KEY_OPTIONS}
as in the line
  identity=\"alice\",names=\"web\",expires=\"2027-01-31\" ssh-ed25519 AAAAC3Nza… laptop"
    )
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it all on this machine: certificate, token, server, client and a web page
    ///
    /// Everything runs on loopback addresses in one process, over a real QUIC tunnel, and nothing is written to
    /// disk. Open the address that it prints; Ctrl-C ends it.
    Demo(DemoArgs),

    /// Make a certificate for a server, and its key
    ///
    /// Writes PATH.pub.pem, which the server shows (--cert) and clients get a copy of (--authority), and
    /// PATH.priv.pem, which stays on the server (--key). Prints the certificate's SHA-256 fingerprint.
    #[command(after_long_help = "\
Examples:
  snocat cert keys/local               # for a server on this machine
  snocat cert keys/server --san example.org --san 203.0.113.7 --days 90")]
    Cert(CertArgs),

    /// Make a token: the secret that lets a client in
    ///
    /// Server and client hold the same token and prove it to each other; it never travels. The server's file may
    /// hold many, one a line, with names, options and # comments; a client's holds one. Nobody
    /// may be able to read them but their owner, root, and groups of the process.
    #[command(after_long_help = token_help())]
    Token(TokenArgs),

    /// Make a key pair: a client's identity, of which the server only knows the public half
    ///
    /// Writes PATH, which stays on the client (--identity), and PATH.pub, one line for the server's file of
    /// --authorized-keys. Prints that line. Both are as `ssh-keygen -t ed25519` makes them, whose keys serve as well
    /// if they have no passphrase.
    #[command(after_long_help = keygen_help())]
    Keygen(KeygenArgs),

    /// Take tunnels from clients, and forward TCP ports of this machine into them
    ///
    /// Each client gets a port of this machine, and connections to that port come out at the client's target. Who
    /// may be a client is a decision that the server does not start without: give --authorized-keys, --token-file or
    /// --client-ca, or say --auth none. These files are read again when they change, and who is no longer in them has
    /// to go.
    #[command(after_long_help = "\
Examples:
  snocat server --cert server.pub.pem --key server.priv.pem --token-file tokens \\
      --quic 0.0.0.0:9090 --tcp 0.0.0.0
  snocat server --cert server.pub.pem --key server.priv.pem --authorized-keys authorized \\
      --quic '[::]:9090' --tcp 0.0.0.0 --ports 20000:20999
  snocat server --cert server.pub.pem --key server.priv.pem \\
      --client-ca ca.pem --token-file tokens")]
    Server(ServerArgs),

    /// Open a tunnel to a server, and connect what comes through it to one target
    ///
    /// Whatever the server asks for, nothing but --target is reachable through this client. It ends when the tunnel
    /// does, with the reason and exit code 1.
    #[command(after_long_help = "\
Examples:
  snocat client --driver example.org:9090 --authority server.pub.pem \\
      --token-file token --target 127.0.0.1:3000
  snocat client --driver '[2001:db8::1]:9090' --san example.org --authority server.pub.pem \\
      --identity keys/web --name web --port 20001 --target intranet.local:80
  snocat client --driver 203.0.113.7:9090 --pin \"$FINGERPRINT\" \\
      --token-file <(pass show snocat) --target 127.0.0.1:22
  snocat client --driver example.org:9090 --authority server.pub.pem \\
      --cert alice.pem --key alice.key --token-file token --target 127.0.0.1:3000")]
    Client(ClientArgs),
}

/// Options of `demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Fetch the page once, print it, and exit with 0 if it came through
    #[arg(long)]
    pub once: bool,
}

/// Options of `cert`.
#[derive(Args, Debug)]
pub struct CertArgs {
    /// Where to write, without the ending: `keys/server` makes keys/server.pub.pem and keys/server.priv.pem
    ///
    /// Directories are made. The key is for its owner alone (mode 0600), the certificate for everybody.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// A name or address under which clients reach the server (repeatable)
    ///
    /// Without it: localhost, 127.0.0.1, ::1 and the name of this machine.
    #[arg(long, value_name = "NAME|IP", value_parser = CertifiedName::with_wildcard)]
    pub san: Vec<CertifiedName>,

    /// Days until it expires
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,

    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
}

/// Options of `token`.
#[derive(Args, Debug)]
pub struct TokenArgs {
    /// The file to make, for its owner alone (mode 0600); without it the token goes to stdout
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,

    /// Whose token it is: its identity in the server's log and events; it restricts nothing
    #[arg(long, value_name = "NAME")]
    pub name: Option<TunnelName>,

    /// Replace a file that exists
    #[arg(long, requires = "path")]
    pub force: bool,
}

/// Options of `keygen`.
#[derive(Args, Debug)]
pub struct KeygenArgs {
    /// The file to make for the private key; the public one goes to PATH.pub
    ///
    /// Directories are made. The private key is for its owner alone (mode 0600), the public one for everybody.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// A word for people, to stand behind the public key; it decides nothing [default: this machine's name]
    #[arg(long, value_name = "TEXT", value_parser = keygen::comment)]
    pub comment: Option<String>,

    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
}

/// Options of `server`.
#[derive(Args, Debug)]
pub struct ServerArgs {
    /// The certificate to show, PEM, with its chain if it has one
    #[arg(long, value_name = "FILE")]
    pub cert: PathBuf,

    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,

    /// The UDP address where clients connect; port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
        value_parser = values::local_address)]
    pub quic: SocketAddr,

    /// The IP address where visitors connect: 0.0.0.0 lets other machines do so
    #[arg(long, value_name = "IP", default_value_t = IpAddr::from(Ipv4Addr::LOCALHOST),
        value_parser = values::local_ip)]
    pub tcp: IpAddr,

    /// The TCP ports that clients may have, both included
    #[arg(long, value_name = "FIRST:LAST", default_value_t = Ports(8080..=8090))]
    pub ports: Ports,

    /// A directory in which the server keeps what has to outlast a restart
    ///
    /// It holds the secret with which a server that was restarted tells clients that their tunnels have ended, even if the
    /// process was killed: they learn it with the next packet that they send, at the latest 12 seconds later. Without it they
    /// notice by silence, after up to 42 seconds. The directory is made; it must be for its owner alone (mode 0700), and no
    /// other server may use a copy of it.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// How to share the network.
    #[command(flatten)]
    pub sending: Sending,

    /// How to tell events.
    #[command(flatten)]
    pub format: Format,

    /// Let in who holds one of the private keys whose public keys are in this file (see `snocat keygen`)
    ///
    /// As OpenSSH's authorized_keys: a public key a line, behind options if it has some. Only the owner and root may be
    /// able to change the file.
    #[arg(long, value_name = "FILE", help_heading = "Who is let in")]
    pub authorized_keys: Option<PathBuf>,

    /// Let in who holds one of the tokens in this file (see `snocat token`)
    ///
    /// A line is a secret, behind its owner's name and a colon if it has one, and behind options if it has some. Nobody
    /// may be able to read the file but its owner, root, and groups of the process.
    #[arg(long, value_name = "FILE", help_heading = "Who is let in")]
    pub token_file: Option<PathBuf>,

    /// Let in who has a certificate that one of the authorities in this file has issued, PEM
    ///
    /// The file may hold revocation lists, too. The certificate's first DNS name says who it is.
    #[arg(long, value_name = "FILE", help_heading = "Who is let in")]
    pub client_ca: Option<PathBuf>,

    /// The methods, the preferred ones first, with + between those that are needed together; none lets in everybody
    ///
    /// Without it: all for which there are files, together. As in tls-client-cert+token,ed25519
    #[arg(long, value_name = "METHODS", help_heading = "Who is let in")]
    pub auth: Option<Methods>,

    /// Let nobody in by credentials whose file cannot be read, from so many seconds on [default: they stay in force]
    ///
    /// Without a number: at once. Their tunnels end, too. It begins when the file is deleted, damaged, or open to others,
    /// or does not answer for 5 s, and ends when it was read.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "0",
        value_parser = clap::value_parser!(u64).range(..=86_400), help_heading = "Who is let in")]
    pub fail_closed: Option<u64>,

    /// What strangers may have.
    #[command(flatten)]
    pub strangers: StrangerArgs,
}

/// What those may have who have not proven yet who they are.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Strangers (connections that are not authenticated yet)")]
pub struct StrangerArgs {
    /// Seconds that authentication may take, from the first packet; the fewer places are left, the less it is, down to 3
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().authentication_time.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub auth_time: u64,

    /// Strangers at once; further ones have to wait
    ///
    /// An eighth of the places is kept for sources that have authenticated in the last hour.
    #[arg(long, value_name = "N", default_value_t = limit(Limits::default().unauthenticated),
        value_parser = clap::value_parser!(u32).range(1..))]
    pub strangers: u32,

    /// Strangers at once of one source: an IPv4 address, an IPv6 /64
    ///
    /// From --retry-from strangers on it is less, in proportion to the places that are left. All of an IPv6 /56 may have
    /// twice as many, and all of a /48 four times.
    #[arg(long, value_name = "N", default_value_t = limit(Limits::default().unauthenticated_per_source),
        value_parser = clap::value_parser!(u32).range(1..))]
    pub strangers_per_source: u32,

    /// From this many strangers on, new ones first have to show that they receive, which takes a round trip
    #[arg(long, value_name = "N", default_value_t = limit(Limits::default().retry_from))]
    pub retry_from: u32,

    /// From this many strangers of one source on
    #[arg(long, value_name = "N", default_value_t = limit(Limits::default().retry_from_per_source))]
    pub retry_from_per_source: u32,
}

fn limit(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl StrangerArgs {
    /// The limits that follow.
    pub fn limits(self) -> Limits {
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let (places, of_source) = (count(self.strangers), count(self.strangers_per_source));
        let time = Duration::from_secs(self.auth_time);
        Limits {
            authentication_time: time,
            authentication_time_crowded: time.min(Limits::default().authentication_time_crowded),
            unauthenticated: places,
            unauthenticated_per_source: of_source,
            unauthenticated_per_56: of_source.saturating_mul(2),
            unauthenticated_per_48: of_source.saturating_mul(4),
            unauthenticated_reserve: places / 8,
            retry_from: count(self.retry_from),
            retry_from_per_source: count(self.retry_from_per_source),
            ..Limits::default()
        }
    }
}

/// Options of `client`.
#[derive(Args, Debug)]
pub struct ClientArgs {
    /// The server's host, by name or address, and its --quic port
    #[arg(long, value_name = "HOST:PORT")]
    pub driver: HostPort,

    /// Where connections come out: a host, by name or address, and a TCP port
    #[arg(long, value_name = "HOST:PORT")]
    pub target: HostPort,

    /// The server's certificate, or that of the CA which issued it, PEM
    ///
    /// A certificate that is no CA's is trusted itself, for its names and dates, and nothing that was signed with its key.
    /// Without it, the platform's roots decide whom to trust.
    #[arg(long, value_name = "FILE")]
    pub authority: Option<PathBuf>,

    /// Trust exactly the server's certificate that has this fingerprint, as `snocat cert` prints it
    ///
    /// Whatever the certificate says about names and dates, and whoever issued it.
    #[arg(long, value_name = "sha256:HEX", conflicts_with_all = ["authority", "san"])]
    pub pin: Option<Pin>,

    /// The name that the server's certificate must be valid for [default: the host of --driver]
    #[arg(long, value_name = "NAME|IP")]
    pub san: Option<CertifiedName>,

    /// The tunnel's name; without it the server picks one
    #[arg(long, value_name = "NAME")]
    pub name: Option<TunnelName>,

    /// The TCP port to have on the server; without it, the first free one of its range
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Connect to the target at the start, too, and warn if that fails
    ///
    /// Without it the target is connected to when a visitor comes. The check is a connection that says nothing: a
    /// target that takes only one, such as `nc -l`, would be used up.
    #[arg(long)]
    pub check_target: bool,

    /// How to share the network.
    #[command(flatten)]
    pub sending: Sending,

    /// The private key that the server lets in, in OpenSSH's format (see `snocat keygen`)
    ///
    /// Without a passphrase, and not to be read by others than its owner, root, and groups of the process.
    #[arg(long, value_name = "FILE", help_heading = "Credentials")]
    pub identity: Option<PathBuf>,

    /// The certificate that the server lets in, PEM, with its chain if it has one
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "Credentials")]
    pub cert: Option<PathBuf>,

    /// The private key of --cert, PEM
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Credentials")]
    pub key: Option<PathBuf>,

    /// A file with the token that the server lets in (see `snocat token`)
    ///
    /// Not to be read by others than its owner, root, and groups of the process; a pipe, as in <(pass show token), will
    /// do as well.
    #[arg(long, value_name = "FILE", help_heading = "Credentials")]
    pub token_file: Option<PathBuf>,

    /// The methods to offer, the preferred ones first, with + between those to use together
    ///
    /// Without it: all credentials that are given, together; none, if there are none.
    #[arg(long, value_name = "METHODS", help_heading = "Credentials")]
    pub auth: Option<Methods>,

    /// How to tell events.
    #[command(flatten)]
    pub format: Format,
}

impl ClientArgs {
    /// The name that the server's certificate must be valid for.
    pub fn server_name(&self) -> String {
        self.san.as_ref().map_or_else(|| self.driver.host.clone(), ToString::to_string)
    }
}

/// How what this side sends shares the network with others.
#[derive(Args, Clone, Copy, Debug)]
pub struct Sending {
    /// The congestion control of what this side sends; the other side chooses for itself
    #[arg(long, value_enum, value_name = "CONTROL", default_value_t = Congestion::Bbr)]
    pub congestion: Congestion,

    /// Seconds that a TCP connection is silent before the system asks whether its other end is still there; 0 for never
    ///
    /// An end that does not answer, nine times on Linux and as many seconds apart, is taken for gone.
    #[arg(long, value_name = "SECONDS", default_value_t = snocat_driver::KEEP_ALIVE.as_secs(),
        value_parser = clap::value_parser!(u64).range(0..=32_767))]
    pub tcp_keep_alive: u64,
}

impl Sending {
    /// How long a TCP connection may be silent before its other end is asked for.
    pub fn keep_alive(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.tcp_keep_alive)).filter(|every| !every.is_zero())
    }
}

/// The values of `--congestion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Congestion {
    /// Sends as fast as the path delivers; keeps queues short, and its rate where packets are lost at random
    Bbr,
    /// Sends more until something is lost, as most TCP does: for a path that is shared with such alone
    Cubic,
}

impl From<Congestion> for CongestionControl {
    fn from(congestion: Congestion) -> Self {
        match congestion {
            Congestion::Bbr => Self::Bbr,
            Congestion::Cubic => Self::Cubic,
        }
    }
}

/// How events are told.
#[derive(Args, Clone, Copy, Debug)]
pub struct Format {
    /// Tell events as JSON, one object a line
    ///
    /// Each has "event" and "time" (UTC): listening {quic}, connecting {driver, addresses, since} while there is no answer,
    /// tunnel-up {tunnel, remote, method, identity}, bound {tunnel, addresses,
    /// target}, tunnel-down {tunnel, reason}, strangers {admitted, authenticated, retried, ignored_total,
    /// ignored_source, refused, now, peak}, file-failed {file, problem, in_force}, file-read {file}, dropped {lines} where
    /// events are missing that were not read in time, stopped, failed {error, code}. What is wrong with the command line
    /// itself is told on stderr alone, with exit code 2.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        let Command::Server(server) = parse("snocat server --cert c --key k --auth none").unwrap().command
        else {
            panic!("not the server");
        };
        assert_eq!(server.quic.to_string(), "127.0.0.1:9090");
        assert_eq!(server.tcp.to_string(), "127.0.0.1");
        assert_eq!(server.ports, Ports(8080..=8090));
        assert_eq!(server.sending.keep_alive(), Some(snocat_driver::KEEP_ALIVE));
        assert_eq!(CongestionControl::from(server.sending.congestion), CongestionControl::default());
        let Command::Cert(cert) = parse("snocat cert x").unwrap().command else { panic!("not cert") };
        assert_eq!((cert.days, cert.force, cert.san.len()), (365, false, 0));
    }

    #[test]
    fn failing_closed_is_asked_for() {
        for (option, expected) in [("", None), (" --fail-closed", Some(0)), (" --fail-closed=300", Some(300))]
        {
            let line = format!("snocat server --cert c --key k --token-file t{option}");
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            let Command::Server(server) = arguments.command else { panic!("not the server") };
            assert_eq!(server.fail_closed, expected);
        }
    }

    #[test]
    fn limits_of_strangers_go_together() {
        let limits = |options: &str| {
            let line = format!("snocat server --cert c --key k --auth none{options}");
            match Arguments::try_parse_from(line.split(' ')).unwrap().command {
                Command::Server(server) => server.strangers.limits(),
                _ => panic!("not the server"),
            }
        };
        assert_eq!(limits(""), Limits::default());
        let few = limits(" --strangers 80 --strangers-per-source 5 --auth-time 2");
        assert_eq!((few.unauthenticated, few.unauthenticated_reserve), (80, 10));
        assert_eq!((few.unauthenticated_per_56, few.unauthenticated_per_48), (10, 20));
        assert_eq!(few.authentication_time_crowded, few.authentication_time);
    }

    #[test]
    fn wrong_usage_is_code_2() {
        for line in [
            "snocat",
            "snocat frobnicate",
            "snocat cert",
            "snocat cert x --days 0",
            "snocat cert x --san *",
            "snocat token --force",
            "snocat token x --name a/b",
            "snocat keygen",
            "snocat keygen x --comment a\u{9b}b",
            "snocat server --cert c --key k --auth maybe",
            "snocat server --cert c --key k --auth none --ports 9:8",
            "snocat server --cert c --key k --auth none --quic localhost",
            "snocat server --cert c --key k --auth none --congestion reno",
            "snocat server --cert c --key k --auth none --tcp-keep-alive 32768",
            "snocat client --driver h:1",
            "snocat client --driver h --target t:1",
            "snocat client --driver h:1 --target t:1 --port 0",
            "snocat client --driver h:1 --target t:1 --cert c",
            "snocat client --driver h:1 --target t:1 --key k",
            "snocat client --driver h:1 --target t:1 --pin sha256:00",
            "snocat client --driver h:1 --target t:1 --auth tokens",
            "snocat client --driver h:1 --target t:1 --name a/b",
        ] {
            let error = Arguments::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
