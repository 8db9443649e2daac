//! What stands behind the options: addresses, names and ranges, each parsed once and valid from then on.
//!
//! A parse error is the sentence that `snocat` shows behind the option's name.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use rustls::pki_types;

/// A host, by name or by address, and a port: `HOST:PORT`, an IPv6 address in brackets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort {
    /// The name or the address, without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(hint) = without_brackets(text) {
            return Err(hint);
        }
        if let Some(port) = text.strip_prefix(':') {
            return Err(format!("there is no host before the port: give one, such as localhost:{port}"));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return Err(format!("leave out `{scheme}://`: give a host and a port alone{}", such_as(rest)));
        }
        let (host, port) = text
            .rsplit_once(':')
            .filter(|(host, port)| !host.is_empty() && !port.ends_with(']'))
            .ok_or("give a host and a port, such as example.org:9090 or [::1]:9090")?;
        let port = port_number(port)?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(address)) if address.contains('%') => return Err(zone(address)),
            Some(address) => {
                let address = address
                    .and_then(|address| address.parse::<Ipv6Addr>().ok())
                    .ok_or_else(|| format!("`{host}` is not an IPv6 address in brackets"))?;
                if address.is_unicast_link_local() {
                    return Err(format!(
                        "`{address}` is a link-local address, which needs an interface, and that is not supported: give \
                         another address, or a name"
                    ));
                }
                address.to_string()
            }
            None if is_host(host) => host.to_owned(),
            None if host.contains('%') => return Err(zone(host)),
            None if !host.is_ascii() => {
                return Err(format!(
                    "`{host}` is not ASCII: give the name in its xn-- form, as `idn2 {host}` prints it"
                ));
            }
            None => return Err(format!("`{host}` is neither a host name nor an address")),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

/// What to say of an IPv6 address that is not in brackets, perhaps with a port behind it.
fn without_brackets(text: &str) -> Option<String> {
    let address = text.split('%').next().unwrap_or_default();
    address.parse::<Ipv6Addr>().ok()?;
    if text.contains('%') {
        return Some(zone(text));
    }
    let with_port = text.rsplit_once(':').filter(|(address, port)| {
        address.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    Some(match with_port {
        Some((address, port)) => format!(
            "put an IPv6 address in brackets: [{address}]:{port}, or [{text}]:9090 if {port} is part of the address"
        ),
        None => format!("put an IPv6 address in brackets and add a port, such as [{text}]:9090"),
    })
}

/// What to say of a link-local address with its interface.
fn zone(text: &str) -> String {
    format!(
        "`{text}` names an interface behind `%`, which is not supported: give an address that is not link-local, or a name"
    )
}

/// The host and port of a URL, as an example, if that has both.
fn such_as(url: &str) -> String {
    let authority = url.split('/').next().unwrap_or_default();
    match authority.parse::<HostPort>() {
        Ok(host) => format!(", such as {host}"),
        Err(_) => String::new(),
    }
}

/// A port that can be connected to.
fn port_number(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("`{text}` is not a port: give a number from 1 to 65535")),
    }
}

/// A UDP or TCP address of this machine: `IP:PORT`.
///
/// # Errors
/// It is none.
pub fn local_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(hint) = without_brackets(text) {
        return Err(hint);
    }
    let all = |port: &str| format!("0.0.0.0:{port} for all IPv4 addresses, [::]:{port} for all");
    match text.rsplit_once(':') {
        Some(("" | "*", port)) => {
            Err(format!("there is no address before the port: give one, {}", all(port)))
        }
        None if text.parse::<u16>().is_ok() => Err(format!("give an address, too: {}", all(text))),
        Some((_, port)) if port.parse::<u16>().is_err() => {
            Err(format!("`{port}` is not a port: give a number from 0 to 65535"))
        }
        _ => Err(format!("give an IP address of this machine and a port: {}", all("9090"))),
    }
}

/// An IP address of this machine.
///
/// # Errors
/// It is none.
pub fn local_ip(text: &str) -> Result<IpAddr, String> {
    if let Ok(ip) = text.parse() {
        return Ok(ip);
    }
    if text.parse::<SocketAddr>().is_ok() {
        return Err("give the IP address without a port: --ports says which".to_owned());
    }
    if let Some(ip) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Err(format!("give the IP address without brackets: {ip}"));
    }
    Err("give an IP address of this machine, or 0.0.0.0 for all IPv4 addresses, :: for all".to_owned())
}

/// Letters, digits, `-` and `_` in labels of 1 to 63 bytes: what resolvers take, a little more than DNS has.
fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label)
}

/// A name or an address that a certificate is valid for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertifiedName(String);

impl CertifiedName {
    /// The name as TLS clients check it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Like [`FromStr`], and a `*` may stand for the first label.
    ///
    /// # Errors
    /// It is neither a DNS name nor an address.
    pub fn with_wildcard(text: &str) -> Result<Self, String> {
        match text.strip_prefix("*.") {
            Some(rest) if rest.parse::<IpAddr>().is_err() => {
                rest.parse::<Self>().map(|rest| Self(format!("*.{rest}")))
            }
            _ => text.parse(),
        }
    }
}

impl FromStr for CertifiedName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match pki_types::ServerName::try_from(text) {
            Ok(pki_types::ServerName::IpAddress(address)) => Ok(Self(IpAddr::from(address).to_string())),
            Ok(pki_types::ServerName::DnsName(name)) => Ok(Self(name.as_ref().to_owned())),
            _ => Err("give a DNS name (in its xn-- form) or an IP address, without a port".to_owned()),
        }
    }
}

impl From<IpAddr> for CertifiedName {
    fn from(address: IpAddr) -> Self {
        Self(address.to_string())
    }
}

impl fmt::Display for CertifiedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A range of TCP ports, `FIRST:LAST`, that includes both.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ports(pub RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "give the first and the last port, such as 8080:8090, or 8080:8080 for one";
        let (first, last) = match (text.split_once(':'), text.split_once('-')) {
            (Some(range), _) => range,
            (None, Some((first, last))) if port_number(first).and(port_number(last)).is_ok() => {
                return Err(format!("put a colon between the ports: {first}:{last}"));
            }
            (None, _) if port_number(text).is_ok() => return Err(format!("for one port give {text}:{text}")),
            _ => return Err(form.to_owned()),
        };
        if first.is_empty() || last.is_empty() || last.contains(':') {
            return Err(form.to_owned());
        }
        let (first, last) = (port_number(first)?, port_number(last)?);
        if first > last {
            return Err(format!("the first port comes first: {last}:{first}"));
        }
        Ok(Self(first..=last))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.0.start(), self.0.end())
    }
}

/// The fingerprint of a certificate: `sha256:` and 64 hex digits, as `snocat cert` prints it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The fingerprint of this certificate, DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(digest(&SHA256, certificate).as_ref().try_into().unwrap_or_default())
    }

    /// The SHA-256 of the certificate.
    pub fn digest(self) -> [u8; 32] {
        self.0
    }
}

impl From<[u8; 32]> for Pin {
    fn from(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "give sha256: and the 64 hex digits of the server's certificate, as `snocat cert` prints them";
        let (kind, hex) = text.split_once(':').ok_or(FORM)?;
        if !kind.eq_ignore_ascii_case("sha256") {
            return Err(FORM.to_owned());
        }
        // As openssl prints them, or in one piece.
        let pairs = hex.split(':').all(|pair| pair.len() == 2);
        let hex = if pairs { hex.replace(':', "") } else { hex.to_owned() };
        let bytes = HEXLOWER.decode(hex.to_ascii_lowercase().as_bytes()).map_err(|_| FORM)?;
        bytes.try_into().map(Self).map_err(|_| FORM.to_owned())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", HEXLOWER.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (text, host, port) in [
            ("127.0.0.1:3000", "127.0.0.1", 3000),
            ("[::1]:22", "::1", 22),
            ("[2001:DB8::1]:65535", "2001:db8::1", 65535),
            ("localhost:1", "localhost", 1),
            ("a_b.internal.:80", "a_b.internal.", 80),
        ] {
            assert_eq!(text.parse(), Ok(HostPort { host: host.to_owned(), port }), "{text}");
        }
        assert_eq!("[::1]:22".parse::<HostPort>().unwrap().to_string(), "[::1]:22");
        assert_eq!("host:22".parse::<HostPort>().unwrap().to_string(), "host:22");
        for (text, hint) in [
            ("", "host and a port"),
            ("example.org", "host and a port"),
            (":3000", "such as localhost:3000"),
            ("::1:9090", "[::1]:9090, or [::1:9090]:9090"),
            ("2001:db8::1:22", "[2001:db8::1]:22, or "),
            ("2001:db8::1", "such as [2001:db8::1]:9090"),
            ("fe80::1%eth0", "names an interface"),
            ("[fe80::1%eth0]:22", "names an interface"),
            ("fe80::1%eth0:22", "names an interface"),
            ("bücher.example:80", "xn-- form"),
            ("[::1]", "host and a port"),
            ("::1", "[::1]:9090"),
            ("host:0", "1 to 65535"),
            ("host:65536", "1 to 65535"),
            ("host:http", "1 to 65535"),
            ("http://host:80", "leave out `http://`: give a host and a port alone, such as host:80"),
            ("https://host:80/path", "such as host:80"),
            ("http://host", "give a host and a port alone"),
            ("[fe80::1]:22", "link-local"),
            ("a..b:80", "neither"),
            ("user@host:80", "neither"),
            ("[host]:80", "brackets"),
            ("[::1:80", "brackets"),
        ] {
            let error = text.parse::<HostPort>().unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn certified_names() {
        for (text, name) in [("localhost", "localhost"), ("::0:1", "::1"), ("10.0.0.1", "10.0.0.1")] {
            assert_eq!(text.parse::<CertifiedName>().unwrap().as_str(), name);
        }
        for text in ["", "a b", "host:80", "[::1]", "bücher.example", "*.example.org"] {
            assert!(text.parse::<CertifiedName>().is_err(), "{text}");
        }
        assert_eq!(CertifiedName::with_wildcard("*.example.org").unwrap().as_str(), "*.example.org");
        assert_eq!(CertifiedName::with_wildcard("example.org").unwrap().as_str(), "example.org");
        for text in ["*", "*.", "*.*.org", "*.10.0.0.1"] {
            assert!(CertifiedName::with_wildcard(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_of_ports() {
        assert_eq!("8080:8090".parse(), Ok(Ports(8080..=8090)));
        assert_eq!("1:65535".parse(), Ok(Ports(1..=65535)));
        assert_eq!("7:7".parse::<Ports>().unwrap().to_string(), "7:7");
        assert!("8090:8080".parse::<Ports>().unwrap_err().contains("8080:8090"));
        for (text, hint) in [
            ("", "such as 8080:8090"),
            (":", "such as 8080:8090"),
            ("8080:", "such as 8080:8090"),
            ("1:2:3", "such as 8080:8090"),
            ("8080", "8080:8080"),
            ("1-2", "a colon between the ports: 1:2"),
            ("0:10", "`0` is not a port"),
            ("8080:99999", "`99999` is not a port: give a number from 1 to 65535"),
            ("a:b", "`a` is not a port"),
            ("-1:2", "`-1` is not a port"),
        ] {
            let error = text.parse::<Ports>().unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_of_this_machine() {
        assert_eq!(local_address("[::1]:0").unwrap().to_string(), "[::1]:0");
        for (text, hint) in [
            (":9090", "0.0.0.0:9090 for all IPv4 addresses, [::]:9090 for all"),
            ("*:9090", "0.0.0.0:9090"),
            ("9090", "give an address, too: 0.0.0.0:9090"),
            ("::1:9090", "[::1]:9090"),
            ("localhost:9090", "an IP address of this machine"),
            ("127.0.0.1", "an IP address of this machine and a port"),
            ("127.0.0.1:99999", "`99999` is not a port"),
            ("fe80::1%eth0", "names an interface"),
        ] {
            let error = local_address(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
        assert_eq!(local_ip("::").unwrap().to_string(), "::");
        for (text, hint) in [
            ("0.0.0.0:8080", "without a port"),
            ("[::1]", "without brackets: ::1"),
            ("localhost", "0.0.0.0 for all"),
            ("*", "0.0.0.0 for all"),
        ] {
            let error = local_ip(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn pins() {
        let pin = Pin::of(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(pin.to_string(), format!("sha256:{hex}"));
        let bytes: [u8; 32] = HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap();
        assert_eq!((pin.digest(), Pin::from(bytes)), (bytes, pin));
        let pairs: Vec<_> = (0..32).map(|at| hex[2 * at..2 * at + 2].to_uppercase()).collect();
        for text in [
            format!("sha256:{hex}"),
            format!("SHA256:{}", hex.to_uppercase()),
            format!("sha256:{}", pairs.join(":")),
        ] {
            assert_eq!(text.parse(), Ok(pin), "{text}");
        }
        for text in [
            "",
            "sha256:",
            hex,
            &format!("sha1:{hex}"),
            &format!("sha256:{}", &hex[2..]),
            &format!("sha256:{}", &hex[1..]),
            &format!("sha256:{hex}00"),
            &format!("sha256:{hex}:"),
            &format!("sha256::{hex}"),
            &format!("sha256:{}:{}", &hex[..32], &hex[32..]),
            &format!("sha256:{}", pairs.join("-")),
            &format!("sha256:{}", hex.replace('b', "g")),
            &format!("sha256:{}", "ä".repeat(32)),
            "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ",
        ] {
            assert!(text.parse::<Pin>().unwrap_err().contains("64 hex digits"), "{text}");
        }
    }
}
