//! What the driver reports, in words that a person can act on.

use std::net::{IpAddr, SocketAddr};

use snocat_driver::core::route::{RouteAddress, Target};
use snocat_driver::core::{self, CloseReason, ClosedBy, Code, Refusal};
use snocat_driver::{BindError, CertificateProblem, ConnectError};

use crate::args::ClientArgs;
use crate::error::Error;
use crate::methods::{Method, Methods};
use crate::output::Event;
use crate::values::Pin;

/// What a client was asked to do, as far as the advice depends on it.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// `HOST:PORT` of the server.
    pub(crate) driver: String,
    /// The name that the certificate has to hold.
    pub(crate) server_name: String,
    /// Whether it trusts a file rather than the platform.
    pub(crate) authority: bool,
    /// The methods that it offers.
    pub(crate) methods: Methods,
    /// The tunnel name it asks for.
    pub(crate) name: Option<String>,
    /// The port it asks for.
    pub(crate) port: Option<u16>,
}

impl From<&ClientArgs> for Attempt {
    fn from(arguments: &ClientArgs) -> Self {
        Self {
            driver: arguments.driver.to_string(),
            server_name: arguments.server_name(),
            authority: arguments.authority.is_some(),
            methods: arguments.methods(),
            name: arguments.name.as_ref().map(ToString::to_string),
            port: arguments.port,
        }
    }
}

impl Attempt {
    /// Why there is no tunnel.
    pub(crate) fn connect(&self, error: &ConnectError) -> Error {
        let driver = &self.driver;
        match error {
            ConnectError::Resolve { host, source } => Error::failed(
                format_args!("cannot look up {host}: {source}"),
                "check the host of --driver, or give its address",
            ),
            ConnectError::NoAddress(host) => {
                Error::failed(format_args!("{host} has no address"), "check the host of --driver")
            }
            ConnectError::Socket(source) => Error::failed(
                format_args!("cannot open a UDP socket: {source}"),
                "check the network of this machine",
            ),
            ConnectError::Destination(core::ConnectError::ServerName(name)) => Error::usage(
                format_args!("a certificate cannot be valid for `{name}`"),
                "give the name in the server's certificate with --san",
            ),
            ConnectError::Destination(core::ConnectError::Address(address)) => {
                Error::failed(format_args!("{address} cannot be connected to"), "check --driver")
            }
            ConnectError::NoAnswer { addresses, unreachable } => {
                let tried = tried(driver, addresses);
                if *unreachable {
                    Error::failed(
                        format_args!("nothing listens at {driver}{tried}"),
                        "start `snocat server` there, or correct --driver",
                    )
                } else {
                    Error::failed(
                        format_args!("nothing answers at {driver}{tried}"),
                        "check that `snocat server` runs there with a --quic address that this machine reaches, and \
                         that no firewall drops UDP",
                    )
                }
            }
            ConnectError::Undecided(_) => self.undecided(),
            ConnectError::Certificate { problem, reason } => self.certificate(problem, reason),
            ConnectError::Closed(reason) => self.closed(reason),
            other => Error::failed(format_args!("cannot connect to {driver}: {other}"), MORE),
        }
    }

    /// The server answers, and does not say whether it lets this client in.
    fn undecided(&self) -> Error {
        Error::failed(
            format_args!("{} answers, but did not decide over the credentials in time", self.driver),
            "try again; if that does not help, look at the server's log",
        )
    }

    fn certificate(&self, problem: &CertificateProblem, reason: &CloseReason) -> Error {
        let driver = &self.driver;
        match problem {
            CertificateProblem::Untrusted if self.authority => Error::failed(
                format_args!("the certificate of {driver} is not trusted: it is not the one in --authority"),
                "copy the server's current .pub.pem file here",
            ),
            CertificateProblem::Untrusted => Error::failed(
                format_args!("the certificate of {driver} is not trusted by this machine"),
                "pass a copy of the server's .pub.pem file with --authority",
            ),
            CertificateProblem::WrongName { names } if names.is_empty() => Error::failed(
                format_args!(
                    "the certificate of {driver} is not valid for `{}`, nor for any other name",
                    self.server_name
                ),
                "let the server show one with its name, such as `snocat cert PATH --san NAME` makes",
            ),
            CertificateProblem::WrongName { names } => Error::failed(
                format_args!(
                    "the certificate of {driver} is not valid for `{}`, but for {}",
                    self.server_name,
                    listed(names)
                ),
                "if that is your server, pass one of these names with --san",
            ),
            CertificateProblem::Expired => Error::failed(
                format_args!("the certificate of {driver} has expired"),
                "make another with `snocat cert` (and check this machine's clock)",
            ),
            CertificateProblem::NotYetValid => Error::failed(
                format_args!("the certificate of {driver} is not valid yet"),
                "check the clocks of both machines",
            ),
            CertificateProblem::IsAuthority => Error::failed(
                format_args!("the certificate of {driver} has the CA bit, which a server's must not have"),
                "make the server one without it, with `snocat cert` or with `openssl req -x509 -addext \
                 basicConstraints=critical,CA:FALSE`; or trust exactly this one, with --pin and its SHA-256",
            ),
            CertificateProblem::NotPinned { fingerprint } => Error::failed(
                format_args!("the certificate of {driver} is another one: {}", Pin::from(*fingerprint)),
                "if that is the server's own (`snocat cert` has printed it there), pass it with --pin; else do not trust it",
            ),
            CertificateProblem::Other(what) => Error::failed(
                format_args!("the certificate of {driver} is refused: {what}"),
                "make another with `snocat cert`",
            ),
            _ => Error::failed(format_args!("the certificate of {driver} is refused: {reason}"), MORE),
        }
    }

    /// Why the tunnel ended.
    pub(crate) fn closed(&self, reason: &CloseReason) -> Error {
        let driver = &self.driver;
        match reason.by {
            ClosedBy::Peer | ClosedBy::Local => self.refused(&Refusal::new(reason.code, reason.text.clone())),
            ClosedBy::Idle => Error::failed(
                format_args!("{driver} has fallen silent"),
                "check the network between here and there, then run the command again",
            ),
            ClosedBy::Reset => Error::failed(format_args!("{driver} was restarted"), "run the command again"),
            ClosedBy::PeerHandshake(Some(NO_APPLICATION_PROTOCOL)) => Error::failed(
                format_args!("{driver} speaks QUIC, but not snocat"),
                "check --driver; it may also be a version that is too old or too new",
            ),
            _ => Error::failed(format_args!("the tunnel to {driver} ended: {reason}"), MORE),
        }
    }

    /// What a refusal of the whole tunnel, or of its port, is about.
    fn refused(&self, refusal: &Refusal) -> Error {
        let driver = &self.driver;
        let name = self.name.as_deref().unwrap_or("of this tunnel");
        let port = self.port.map_or_else(|| "a port".to_owned(), |port| format!("port {port}"));
        match refusal.code {
            Code::AUTH_REFUSED => {
                Error::failed(format_args!("{driver} did not accept the credentials"), self.refused_advice())
            }
            Code::AUTH_NO_METHOD if self.methods.uses(Method::None) => Error::failed(
                format_args!("{driver} wants a credential: {refusal}"),
                "pass one with --token-file, --identity, or --cert and --key",
            ),
            Code::AUTH_NO_METHOD => Error::failed(
                format_args!("{driver} does not take {}: {refusal}", self.methods),
                "pass credentials for one of these (see docs/Authentication.md; without --auth all that are given go \
                 together), or let the server take yours",
            ),
            Code::TIMEOUT => self.undecided(),
            Code::UNPROVEN => Error::failed(
                format_args!("{driver} did not prove that it means the same: {refusal}"),
                "check that --driver is your server",
            ),
            Code::SUPERSEDED => Error::failed(
                format_args!(
                    "another client with the same credentials has taken over the name {name} at {driver}"
                ),
                "if it is not this one after a restart, give each client its own credential and --name",
            ),
            Code::WITHDRAWN => Error::failed(
                format_args!("{driver} no longer accepts the credentials, or has changed what they allow"),
                "run the command again if they should still be good; else ask whoever runs the server",
            ),
            Code::NAME_TAKEN => Error::failed(
                format_args!("{driver} has a tunnel of somebody else with the name {name}"),
                "end that one, or choose another --name",
            ),
            Code::NAME_REFUSED if self.name.is_none() => Error::failed(
                format_args!("{driver} has no name for this tunnel: {refusal}"),
                "ask for one with --name, or have one listed on the server that all of the credentials allow (names=\"…\")",
            ),
            Code::NAME_REFUSED => Error::failed(
                format_args!("{driver} does not give out the name {name}: {refusal}"),
                "choose a --name that the credentials allow, or leave it out",
            ),
            Code::NAME_INVALID => {
                Error::failed(format_args!("{driver} does not take the name {name}"), "choose another --name")
            }
            Code::PORT_TAKEN if self.name.is_none() => Error::failed(
                format_args!("{port} of {driver} is taken"),
                "choose another --port, or leave it out for any; if it is an earlier run of this client that was cut off, \
                 give it a --name: a new run takes its own name over, and the port",
            ),
            Code::PORT_TAKEN => Error::failed(
                format_args!("{port} of {driver} is taken"),
                "choose another --port, or leave it out for any",
            ),
            Code::PORT_OUTSIDE => Error::failed(
                format_args!("{driver} does not give out {port}: {refusal}"),
                "choose a --port in the server's range that the credentials allow, or leave it out for any",
            ),
            Code::PORTS_EXHAUSTED => Error::failed(
                format_args!("{driver} has no port left"),
                "end another client, or give the server a longer range with --ports",
            ),
            Code::BIND_FAILED => Error::failed(
                format_args!("{driver} cannot listen on {port}: {refusal}"),
                "choose another --port, or check --tcp of the server",
            ),
            Code::BUSY => Error::failed(
                format_args!("{driver} cannot give {port} now: {refusal}"),
                "try again; the server may need a higher limit of open files",
            ),
            Code::STOPPING => Error::failed(
                format_args!("{driver} has stopped: {refusal}"),
                "start it, then run the command again",
            ),
            _ => Error::failed(format_args!("{driver} ended the tunnel: {refusal}"), MORE),
        }
    }

    /// What may help where credentials were not accepted: the server does not say what was wrong with them.
    fn refused_advice(&self) -> &'static str {
        let methods = &self.methods;
        match [Method::TlsClientCert, Method::Ed25519, Method::Token].map(|method| methods.uses(method)) {
            [false, false, true] => "put a line of the server's token file into --token-file",
            [false, true, false] => "append the .pub file of --identity to the server's --authorized-keys",
            [true, false, false] => {
                "check that the authority which issued --cert is in the server's --client-ca, and any between them in --cert"
            }
            _ => "check each of them; the server's log says more (RUST_LOG=info)",
        }
    }

    /// Why the server does not listen for this client.
    pub(crate) fn bind(&self, error: &BindError) -> Error {
        match error {
            BindError::Refused(refusal) => self.refused(refusal),
            BindError::Closed(reason) => self.closed(reason),
            other => Error::failed(format_args!("{} gives no port: {other}", self.driver), MORE),
        }
    }
}

/// How many names of a certificate are shown.
const SHOWN_NAMES: usize = 8;

/// Names that the server chose, on one line.
fn listed(names: &[String]) -> String {
    let mut shown: Vec<_> =
        names.iter().take(SHOWN_NAMES).map(|name| core::Escaped(name).to_string()).collect();
    if names.len() > SHOWN_NAMES {
        shown.push(format!("{} more", names.len() - SHOWN_NAMES));
    }
    shown.join(", ")
}

/// The last resort of advice.
const MORE: &str = "run the command again with RUST_LOG=debug to see more";

/// The TLS alert of a server that speaks QUIC, but none of the protocols offered (RFC 7301).
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// The addresses that were tried, if they are not what was asked for anyway.
fn tried(driver: &str, addresses: &[SocketAddr]) -> String {
    let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    match addresses.as_slice() {
        [] => String::new(),
        [only] if only == driver => String::new(),
        _ => format!(" ({})", addresses.join(", ")),
    }
}

/// Where visitors connect to. A server that listens on all its addresses says so; the one that this client reaches it by is one.
pub(crate) fn reachable(addresses: Vec<SocketAddr>, server: SocketAddr) -> Vec<SocketAddr> {
    let reachable = |address: SocketAddr| match (address.ip(), server.ip()) {
        (IpAddr::V4(ip), IpAddr::V4(_)) if ip.is_unspecified() => {
            SocketAddr::new(server.ip(), address.port())
        }
        (IpAddr::V6(ip), _) if ip.is_unspecified() => SocketAddr::new(server.ip(), address.port()),
        _ => address,
    };
    addresses.into_iter().map(reachable).collect()
}

/// The event that a port of the server leads to a target.
pub(crate) fn bound(tunnel: &str, addresses: Vec<SocketAddr>, target: &RouteAddress) -> Event {
    let target = Target::try_from(target).map_or_else(|_| target.to_string(), |target| target.to_string());
    Event::Bound { tunnel: tunnel.to_owned(), addresses, target }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt() -> Attempt {
        Attempt {
            driver: "example.org:9090".to_owned(),
            server_name: "example.org".to_owned(),
            authority: false,
            methods: "none".parse().unwrap(),
            name: None,
            port: None,
        }
    }

    #[test]
    fn every_code_has_advice() {
        for (code, name, _) in Code::TABLE {
            for by in [ClosedBy::Peer, ClosedBy::Local] {
                let reason = CloseReason { by, code: *code, text: "because\nof it".to_owned() };
                let error = attempt().closed(&reason);
                assert_eq!(error.code(), 1, "{name}");
                let text = error.to_string();
                assert!(
                    text.contains("; ") && text.contains("example.org:9090") && !text.contains('\n'),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn advice_depends_on_what_was_asked_for() {
        let refused = |attempt: Attempt, code| {
            attempt.bind(&BindError::Refused(Refusal::new(code, "this server accepts: token"))).to_string()
        };
        assert!(
            refused(attempt(), Code::AUTH_NO_METHOD)
                .ends_with("pass one with --token-file, --identity, or --cert and --key")
        );
        let with = |methods: &str| Attempt { methods: methods.parse().unwrap(), ..attempt() };
        assert!(refused(with("ed25519"), Code::AUTH_NO_METHOD).contains("does not take ed25519"));
        assert!(refused(with("ed25519"), Code::AUTH_REFUSED).contains("--authorized-keys"));
        assert!(refused(with("token"), Code::AUTH_REFUSED).contains("--token-file"));
        assert!(refused(with("token,ed25519"), Code::AUTH_REFUSED).contains("RUST_LOG=info"));
        let with_port = Attempt { port: Some(8081), ..attempt() };
        let taken = refused(with_port, Code::PORT_TAKEN);
        assert!(
            taken.starts_with("port 8081 of example.org:9090 is taken;") && taken.contains("--name"),
            "{taken}"
        );
        let with_name = Attempt { name: Some("web".to_owned()), ..attempt() };
        assert!(refused(with_name.clone(), Code::NAME_TAKEN).contains("the name web;"));
        assert!(refused(with_name, Code::NAME_REFUSED).contains("or leave it out"));
        assert!(refused(attempt(), Code::NAME_REFUSED).contains("have one listed on the server"));
        let busy = refused(attempt(), Code::BUSY);
        assert!(busy.contains("cannot give a port now") && busy.contains("limit of open files"), "{busy}");
        let undecided =
            attempt().connect(&ConnectError::Undecided("127.0.0.1:1".parse().unwrap())).to_string();
        assert!(
            undecided.contains("answers, but did not decide over the credentials in time; "),
            "{undecided}"
        );
        assert_eq!(refused(attempt(), Code::TIMEOUT), undecided, "whichever side says so");
        let untrusted = |authority| {
            let reason = CloseReason::local(Refusal::new(Code::PROTOCOL, ""));
            let error = ConnectError::Certificate { problem: CertificateProblem::Untrusted, reason };
            Attempt { authority, ..attempt() }.connect(&error).to_string()
        };
        assert!(untrusted(false).ends_with("with --authority"));
        assert!(untrusted(true).contains("not the one in --authority"));
    }

    #[test]
    fn a_certificate_for_other_names_is_shown_with_them() {
        let wrong = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let problem = CertificateProblem::WrongName { names };
            let reason = CloseReason::local(Refusal::new(Code::PROTOCOL, ""));
            attempt().connect(&ConnectError::Certificate { problem, reason }).to_string()
        };
        assert!(wrong(&["localhost", "192.0.2.1"]).contains("but for localhost, 192.0.2.1; "));
        assert!(wrong(&["a\x1b[2J"]).contains(r"a\u{1b}[2J"));
        assert!(wrong(&["a"; 20]).contains(", a, 12 more; "));
        assert!(wrong(&[]).contains("nor for any other name; let the server"));
    }

    #[test]
    fn addresses_are_shown_where_they_say_more() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(tried("127.0.0.1:1", &[address("127.0.0.1:1")]), "");
        assert_eq!(tried("h:1", &[address("127.0.0.1:1"), address("[::1]:1")]), " (127.0.0.1:1, [::1]:1)");
        let no_answer = |unreachable| {
            let addresses = vec![address("127.0.0.1:1")];
            attempt().connect(&ConnectError::NoAnswer { addresses, unreachable }).to_string()
        };
        assert!(no_answer(true).starts_with("nothing listens at example.org:9090 (127.0.0.1:1);"));
        assert!(no_answer(false).starts_with("nothing answers at example.org:9090 (127.0.0.1:1);"));
    }

    #[test]
    fn a_visitor_gets_an_address_to_connect_to() {
        let server = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (said, by, told) in [
            ("0.0.0.0:8080", "203.0.113.7:9090", "203.0.113.7:8080"),
            ("[::]:8080", "203.0.113.7:9090", "203.0.113.7:8080"),
            ("[::]:8080", "[2001:db8::1]:9090", "[2001:db8::1]:8080"),
            ("0.0.0.0:8080", "[2001:db8::1]:9090", "0.0.0.0:8080"),
            ("198.51.100.1:8080", "203.0.113.7:9090", "198.51.100.1:8080"),
        ] {
            assert_eq!(reachable(vec![server(said)], server(by)), [server(told)]);
        }
    }

    #[test]
    fn targets_in_plain_words() {
        let target = RouteAddress::tcp("::1", 22).unwrap();
        let Event::Bound { target, .. } = bound("web", Vec::new(), &target) else { panic!("another event") };
        assert_eq!(target, "[::1]:22");
    }
}
