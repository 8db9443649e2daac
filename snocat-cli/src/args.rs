//! The command line: commands, options and what `--help` says about them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use snocat_driver::core::auth::TunnelName;

use crate::values::{CertifiedName, HostPort, Ports};

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

Exit codes:
  0  done, or ended by Ctrl-C or SIGTERM
  1  failed; one line on stderr says why and what to do
  2  wrong usage";

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
  snocat cert keys/server
  snocat cert keys/server --san example.org --san 203.0.113.7 --days 90")]
    Cert(CertArgs),

    /// Make a token: the secret that lets a client in
    ///
    /// Server and client hold the same token and prove it to each other; it never travels. The server's file may
    /// hold many, one a line, with names and # comments; a client's holds one.
    #[command(after_long_help = "\
Examples:
  snocat token keys/tokens                   one token, for server and client
  snocat token --name alice >> keys/tokens   one more, for somebody else")]
    Token(TokenArgs),

    /// Take tunnels from clients, and forward TCP ports of this machine into them
    ///
    /// Each client gets a port of this machine, and connections to that port come out at the client's target. Who
    /// may be a client is a decision that the server does not start without: give --token-file, or say --auth none.
    #[command(after_long_help = "\
Examples:
  snocat server --cert server.pub.pem --key server.priv.pem --token-file tokens
  snocat server --cert server.pub.pem --key server.priv.pem --token-file tokens \\
      --quic '[::]:9090' --tcp 0.0.0.0 --ports 20000:20999")]
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
      --token-file token --name web --port 8081 --target intranet.local:80")]
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
    /// Directories are made. Both files are for their owner alone (mode 0600).
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

    /// Whose token it is, for the server's log
    #[arg(long, value_name = "NAME")]
    pub name: Option<TunnelName>,

    /// Replace a file that exists
    #[arg(long, requires = "path")]
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
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)))]
    pub quic: SocketAddr,

    /// The IP address where visitors connect: 0.0.0.0 lets other machines do so
    #[arg(long, value_name = "IP", default_value_t = IpAddr::from(Ipv4Addr::LOCALHOST))]
    pub tcp: IpAddr,

    /// The TCP ports that clients may have, both included
    #[arg(long, value_name = "FIRST:LAST", default_value_t = Ports(8080..=8090))]
    pub ports: Ports,

    /// Let in who holds one of the tokens in this file (see `snocat token`)
    #[arg(long, value_name = "FILE", conflicts_with = "auth")]
    pub token_file: Option<PathBuf>,

    /// Let in everybody who can reach the server
    #[arg(long, value_name = "METHOD")]
    pub auth: Option<Authentication>,

    /// How to tell events.
    #[command(flatten)]
    pub format: Format,
}

/// What `--auth` can say.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Authentication {
    /// No proof is asked for.
    None,
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
    /// Without it, the platform's roots decide whom to trust.
    #[arg(long, value_name = "FILE")]
    pub authority: Option<PathBuf>,

    /// The name that the server's certificate must be valid for [default: the host of --driver]
    #[arg(long, value_name = "NAME|IP")]
    pub san: Option<CertifiedName>,

    /// The tunnel's name; without it the server picks one
    #[arg(long, value_name = "NAME")]
    pub name: Option<TunnelName>,

    /// The TCP port to have on the server; without it, the first free one of its range
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// A file with the token that the server lets in (see `snocat token`)
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

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

/// How events are told.
#[derive(Args, Clone, Copy, Debug)]
pub struct Format {
    /// Tell events as JSON, one object a line
    ///
    /// Each has "event": listening {quic}, tunnel-up {tunnel, remote}, bound {tunnel, addresses, target},
    /// tunnel-down {tunnel, reason}, stopped.
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
        let Command::Cert(cert) = parse("snocat cert x").unwrap().command else { panic!("not cert") };
        assert_eq!((cert.days, cert.force, cert.san.len()), (365, false, 0));
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
            "snocat server --cert c --key k --auth none --token-file t",
            "snocat server --cert c --key k --auth maybe",
            "snocat server --cert c --key k --auth none --ports 9:8",
            "snocat server --cert c --key k --auth none --quic localhost",
            "snocat client --driver h:1",
            "snocat client --driver h --target t:1",
            "snocat client --driver h:1 --target t:1 --port 0",
            "snocat client --driver h:1 --target t:1 --name a/b",
        ] {
            let error = Arguments::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
