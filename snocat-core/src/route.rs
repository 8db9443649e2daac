//! Where a stream wants to go, and whether it may: route addresses, targets and policies.
//!
//! Pure: nothing is resolved or dialled here. Protocol.md, "Route addresses".

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::code::{Code, Refusal, cut};
use crate::open::{Header, Kind};

/// A list of one or more segments, as in `/dns/web.internal/tcp/80` (Protocol.md, "Route addresses").
///
/// As text each segment follows a `/`; `/` and `\` in a segment are escaped by `\`, nothing else is, and no
/// segment is empty. So each list has one text and each text one list. At most [`Self::MAX_TEXT`] bytes.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct RouteAddress {
    /// The text form, checked.
    text: String,
}

/// A text that is not a route address, or a route address that is not a [`Target`].
#[derive(Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// More than [`RouteAddress::MAX_TEXT`] bytes of text.
    #[error("a route address has at most {} bytes", RouteAddress::MAX_TEXT)]
    TooLong,
    /// It does not start with `/`.
    #[error("a route address starts with `/`")]
    NoSlash,
    /// Nothing between two `/`, or after the last one.
    #[error("a route address has no empty segments")]
    EmptySegment,
    /// `\` before something other than `/` and `\`.
    #[error("in a route address `\\` stands only before `/` or `\\`")]
    Escape,
    /// Its segments are none of the known forms.
    #[error("the form of this route address is not known")]
    UnknownForm,
    /// Not a port between 1 and 65535.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// Not an IP address of the family that the segment before it says.
    #[error("not an IP address of the announced family")]
    Ip,
    /// Not a host name.
    #[error("a host name has 1 to 253 letters, digits, `-`, `_` and `.`")]
    Name,
}

impl RouteAddress {
    /// The most bytes of its text.
    pub const MAX_TEXT: usize = 2048;

    /// An address of these segments.
    ///
    /// # Errors
    /// [`AddressError`] if there are none, one is empty or the text gets too long.
    pub fn new<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> Result<Self, AddressError> {
        let mut text = String::new();
        for segment in segments {
            text.push('/');
            for character in segment.as_ref().chars() {
                if matches!(character, '/' | '\\') {
                    text.push('\\');
                }
                text.push(character);
            }
            if text.len() > Self::MAX_TEXT {
                return Err(AddressError::TooLong);
            }
        }
        text.parse()
    }

    /// TCP port `port` of `host`: an IP literal (in brackets or not) gives `/ip4` or `/ip6`, all else `/dns`.
    ///
    /// # Errors
    /// [`AddressError::Name`] or [`AddressError::Port`] if no peer could make a target of it.
    pub fn tcp(host: &str, port: u16) -> Result<Self, AddressError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let (form, host) = match bare.parse() {
            Ok(IpAddr::V4(ip)) => ("ip4", ip.to_string()),
            Ok(IpAddr::V6(ip)) => ("ip6", ip.to_string()),
            Err(_) => ("dns", host.to_owned()),
        };
        let address = Self::new([form, &host, "tcp", &port.to_string()])?;
        Target::try_from(&address).map(|_| address)
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The segments in their order, without escapes.
    pub fn segments(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let mut rest = self.text.as_str();
        std::iter::from_fn(move || {
            let body = rest.strip_prefix('/')?;
            let (segment, tail) = split_segment(body);
            rest = tail;
            Some(unescape(segment))
        })
    }
}

/// `body` up to its first unescaped `/`, and the rest from there.
fn split_segment(body: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = body.find(|character| {
        let ends = character == '/' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    });
    body.split_at_checked(end.unwrap_or(body.len())).unwrap_or((body, ""))
}

fn unescape(segment: &str) -> Cow<'_, str> {
    if !segment.contains('\\') {
        return Cow::Borrowed(segment);
    }
    let mut escaped = false;
    let plain = segment.chars().filter(|character| {
        escaped = *character == '\\' && !escaped;
        !escaped
    });
    Cow::Owned(plain.collect())
}

impl FromStr for RouteAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > Self::MAX_TEXT {
            return Err(AddressError::TooLong);
        }
        let body = text.strip_prefix('/').ok_or(AddressError::NoSlash)?;
        let mut empty = true;
        let mut characters = body.chars();
        while let Some(character) = characters.next() {
            match character {
                '/' if empty => return Err(AddressError::EmptySegment),
                '\\' if !matches!(characters.next(), Some('/' | '\\')) => return Err(AddressError::Escape),
                _ => empty = character == '/',
            }
        }
        if empty { Err(AddressError::EmptySegment) } else { Ok(Self { text: text.to_owned() }) }
    }
}

impl fmt::Display for RouteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RouteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// What a route address means to the side that dials.
#[derive(Clone, Eq, PartialEq, Hash, Debug)]
pub enum Target {
    /// A TCP connection.
    Tcp {
        /// To which host.
        host: Host,
        /// To which port of it, 1 to 65535.
        port: u16,
    },
}

/// The host of a [`Target`].
#[derive(Clone, Eq, PartialEq, Hash, Debug)]
pub enum Host {
    /// The dialling side itself.
    Loopback,
    /// An address.
    Ip(IpAddr),
    /// A name that the dialling side resolves.
    Name {
        /// 1 to 253 letters, digits, `-`, `_` and `.`, as the peer wrote them.
        name: String,
        /// Which of its addresses count.
        family: Family,
    },
}

/// Which addresses of a name count.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub enum Family {
    /// All of them.
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Reads the segments after the first one.
type Parser = fn(&[&str]) -> Result<Target, AddressError>;

/// The known forms by their first segment.
const FORMS: &[(&str, Parser)] = &[
    ("tcp", |rest| tcp(Ok(Host::Loopback), rest)),
    ("ip4", |rest| with_host(rest, |host| Ok(Host::Ip(host.parse::<Ipv4Addr>().map_err(no_ip)?.into())))),
    ("ip6", |rest| with_host(rest, |host| Ok(Host::Ip(host.parse::<Ipv6Addr>().map_err(no_ip)?.into())))),
    ("dns", |rest| with_host(rest, |host| name(host, Family::Any))),
    ("dns4", |rest| with_host(rest, |host| name(host, Family::V4))),
    ("dns6", |rest| with_host(rest, |host| name(host, Family::V6))),
];

fn with_host(rest: &[&str], parse: fn(&str) -> Result<Host, AddressError>) -> Result<Target, AddressError> {
    let [host, "tcp", rest @ ..] = rest else { return Err(AddressError::UnknownForm) };
    tcp(parse(host), rest)
}

/// The form is checked before the host: `/dns/a!/tcp` is an unknown form, whatever its name.
fn tcp(host: Result<Host, AddressError>, rest: &[&str]) -> Result<Target, AddressError> {
    let [port] = rest else { return Err(AddressError::UnknownForm) };
    Ok(Target::Tcp { host: host?, port: parse_port(port)? })
}

/// Digits only, without leading zeros: one number, one text.
fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = text.starts_with(|first: char| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| digits).ok_or(AddressError::Port)
}

fn name(name: &str, family: Family) -> Result<Host, AddressError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=253).contains(&name.len()) && name.bytes().all(plain) {
        Ok(Host::Name { name: name.to_owned(), family })
    } else {
        Err(AddressError::Name)
    }
}

fn no_ip(_: std::net::AddrParseError) -> AddressError {
    AddressError::Ip
}

impl TryFrom<&RouteAddress> for Target {
    type Error = AddressError;

    fn try_from(address: &RouteAddress) -> Result<Self, AddressError> {
        let segments: Vec<_> = address.segments().collect();
        let segments: Vec<_> = segments.iter().map(AsRef::as_ref).collect();
        let (first, rest) = segments.split_first().ok_or(AddressError::UnknownForm)?;
        let (_, parser) = FORMS.iter().find(|(form, _)| form == first).ok_or(AddressError::UnknownForm)?;
        parser(rest)
    }
}

/// In plain words: `127.0.0.1:3000`, `[::1]:22`, `web.internal:80`, `localhost:8080`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Tcp { host, port } = self;
        match host {
            Host::Loopback => write!(f, "localhost:{port}"),
            Host::Ip(ip) => write!(f, "{}", std::net::SocketAddr::new(*ip, *port)),
            Host::Name { name, .. } => write!(f, "{name}:{port}"),
        }
    }
}

/// Which targets the peer's streams may reach. The default allows none.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Policy(Allowed);

#[derive(Clone, Eq, PartialEq, Debug)]
enum Allowed {
    Any,
    Only(BTreeSet<RouteAddress>),
}

impl Default for Policy {
    fn default() -> Self {
        Self::only([])
    }
}

impl Policy {
    /// Allows exactly these route addresses, compared as text: another spelling of a host is another host.
    pub fn only(addresses: impl IntoIterator<Item = RouteAddress>) -> Self {
        Self(Allowed::Only(addresses.into_iter().collect()))
    }

    /// Allows every target that this side can reach. Whoever may open a stream then sees this whole network.
    pub const fn any() -> Self {
        Self(Allowed::Any)
    }

    /// Where the stream with this header goes.
    ///
    /// # Errors
    /// What to answer: `kind-unknown`, `address-invalid` or `not-allowed`.
    pub fn decide(&self, header: &Header) -> Result<Target, Refusal> {
        if header.kind != Kind::FORWARD {
            let text = format!("streams of kind {:#x} are not known here", header.kind.value());
            return Err(Refusal::new(Code::KIND_UNKNOWN, text));
        }
        let target = Target::try_from(&header.address).map_err(|error| {
            Refusal::new(Code::ADDRESS_INVALID, format!("`{}`: {error}", shorten(&header.address)))
        })?;
        let allowed = match &self.0 {
            Allowed::Any => true,
            Allowed::Only(addresses) => addresses.contains(&header.address),
        };
        if !allowed {
            let text = format!("`{}` is not a target of this side", shorten(&header.address));
            return Err(Refusal::new(Code::NOT_ALLOWED, text));
        }
        Ok(target)
    }
}

/// So much of an address that what is said about it still fits into a refusal.
fn shorten(address: &RouteAddress) -> Cow<'_, str> {
    match cut(address.as_str(), 160) {
        whole if whole.len() == address.as_str().len() => Cow::Borrowed(whole),
        start => Cow::Owned(format!("{start}…")),
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn address(text: &str) -> RouteAddress {
        text.parse().unwrap()
    }

    fn target(text: &str) -> Result<Target, AddressError> {
        Target::try_from(&address(text))
    }

    #[test]
    fn texts_that_are_no_address() {
        for (text, error) in [
            ("", AddressError::NoSlash),
            ("tcp/80", AddressError::NoSlash),
            ("/", AddressError::EmptySegment),
            ("/tcp/", AddressError::EmptySegment),
            ("/tcp//80", AddressError::EmptySegment),
            ("//tcp", AddressError::EmptySegment),
            ("/a\\b", AddressError::Escape),
            ("/a\\", AddressError::Escape),
        ] {
            assert_eq!(text.parse::<RouteAddress>(), Err(error), "{text}");
        }
        let longest = format!("/{}", "x".repeat(2047));
        assert_eq!(address(&longest).as_str(), longest);
        assert_eq!(format!("{longest}x").parse::<RouteAddress>(), Err(AddressError::TooLong));
        assert_eq!(RouteAddress::new(["x".repeat(2048)]), Err(AddressError::TooLong));
        assert_eq!(RouteAddress::new::<&str>([]), Err(AddressError::NoSlash));
        assert_eq!(RouteAddress::new(["a", ""]), Err(AddressError::EmptySegment));
    }

    #[test]
    fn escapes() {
        let escaped = RouteAddress::new(["unix", "/run/a\\b", "\\"]).unwrap();
        assert_eq!(escaped.as_str(), r"/unix/\/run\/a\\b/\\");
        assert!(escaped.segments().eq(["unix", "/run/a\\b", "\\"]));
    }

    #[test]
    fn targets_in_plain_words() {
        for (text, words) in [
            ("/tcp/8080", "localhost:8080"),
            ("/ip4/127.0.0.1/tcp/3000", "127.0.0.1:3000"),
            ("/ip6/::1/tcp/22", "[::1]:22"),
            ("/dns/web.internal/tcp/80", "web.internal:80"),
            ("/dns4/web_1/tcp/1", "web_1:1"),
            ("/dns6/WEB-1/tcp/65535", "WEB-1:65535"),
        ] {
            assert_eq!(target(text).unwrap().to_string(), words);
        }
        let name = Host::Name { name: "a".into(), family: Family::V6 };
        assert_eq!(target("/dns6/a/tcp/1"), Ok(Target::Tcp { host: name, port: 1 }));
    }

    #[test]
    fn addresses_that_are_no_target() {
        for (text, error) in [
            ("/udp/80", AddressError::UnknownForm),
            ("/tcp", AddressError::UnknownForm),
            ("/tcp/80/tls", AddressError::UnknownForm),
            ("/dns/a", AddressError::UnknownForm),
            ("/dns/a/udp/80", AddressError::UnknownForm),
            ("/dns/a/tcp/80/x", AddressError::UnknownForm),
            ("/TCP/80", AddressError::UnknownForm),
            ("/tcp/0", AddressError::Port),
            ("/tcp/080", AddressError::Port),
            ("/tcp/+80", AddressError::Port),
            ("/tcp/65536", AddressError::Port),
            ("/ip4/::1/tcp/80", AddressError::Ip),
            ("/ip4/127.0.0.01/tcp/80", AddressError::Ip),
            ("/ip6/127.0.0.1/tcp/80", AddressError::Ip),
            ("/ip6/fe80::1%2/tcp/80", AddressError::Ip),
            ("/dns/a b/tcp/80", AddressError::Name),
            (r"/dns/a\/b/tcp/80", AddressError::Name),
            ("/dns/ä/tcp/80", AddressError::Name),
        ] {
            assert_eq!(target(text), Err(error), "{text}");
        }
        assert!(target(&format!("/dns/{}/tcp/80", "a".repeat(253))).is_ok());
        assert_eq!(target(&format!("/dns/{}/tcp/80", "a".repeat(254))), Err(AddressError::Name));
    }

    #[test]
    fn tcp_picks_the_form_by_the_host() {
        for (host, text) in [
            ("10.0.0.1", "/ip4/10.0.0.1/tcp/80"),
            ("0::1", "/ip6/::1/tcp/80"),
            ("[::1]", "/ip6/::1/tcp/80"),
            ("localhost", "/dns/localhost/tcp/80"),
            ("web.internal", "/dns/web.internal/tcp/80"),
        ] {
            assert_eq!(RouteAddress::tcp(host, 80).unwrap().as_str(), text);
        }
        assert_eq!(RouteAddress::tcp("web", 0), Err(AddressError::Port));
        for host in ["", "a/b", "[web]", "web internal"] {
            assert!(RouteAddress::tcp(host, 80).is_err(), "{host}");
        }
    }

    #[test]
    fn policies() {
        let header = |text| Header::forward(address(text));
        let code = |policy: &Policy, text| policy.decide(&header(text)).map_err(|refusal| refusal.code);
        let only = Policy::only([address("/tcp/80"), address("/ip6/::1/tcp/22")]);

        assert_eq!(code(&Policy::default(), "/tcp/80"), Err(Code::NOT_ALLOWED));
        assert!(code(&only, "/tcp/80").is_ok() && code(&Policy::any(), "/tcp/81").is_ok());
        assert_eq!(code(&only, "/tcp/81"), Err(Code::NOT_ALLOWED));
        assert_eq!(code(&only, "/ip6/0::1/tcp/22"), Err(Code::NOT_ALLOWED));
        assert_eq!(code(&Policy::any(), "/udp/80"), Err(Code::ADDRESS_INVALID));

        let unknown = Header { kind: Kind::new(0x33), ..header("/tcp/80") };
        assert_eq!(Policy::any().decide(&unknown).unwrap_err().code, Code::KIND_UNKNOWN);
        let refusal = only.decide(&header("/tcp/81")).unwrap_err();
        assert_eq!(refusal.text, "`/tcp/81` is not a target of this side");
    }

    #[test]
    fn a_refusal_of_a_long_address_keeps_its_words() {
        let host = ["ä"; 1000].concat();
        let long = Header::forward(RouteAddress::new(["dns", &host, "tcp", "80"]).unwrap());
        let text = Policy::any().decide(&long).unwrap_err().text;
        assert!(text.contains("…`: a host name has") && text.len() < Refusal::MAX_TEXT, "{text}");
    }

    quickcheck! {
        fn segments_round_trip(segments: Vec<String>) -> bool {
            let segments: Vec<_> = segments.into_iter().filter(|segment| !segment.is_empty()).collect();
            match RouteAddress::new(&segments) {
                Ok(address) => address.segments().eq(segments.iter().map(String::as_str)),
                Err(AddressError::TooLong) => true,
                Err(_) => segments.is_empty(),
            }
        }

        fn texts_round_trip(address: RouteAddress) -> bool {
            address.to_string().parse() == Ok(address.clone())
                && RouteAddress::new(address.segments()) == Ok(address)
        }

        fn any_text_is_one_address_or_none(noise: Vec<(u8, char)>) -> bool {
            let pick = |(kind, other): &(u8, char)| match kind % 4 {
                0 => '/',
                1 => '\\',
                2 => 'a',
                _ => *other,
            };
            let text: String = std::iter::once('/').chain(noise.iter().map(pick)).collect();
            text.parse::<RouteAddress>().map_or(true, |address| {
                address.as_str() == text && RouteAddress::new(address.segments()) == Ok(address)
            })
        }

        /// Whatever the address: an answer, and a target only if the policy names it.
        fn decisions_are_total(address: RouteAddress, other: RouteAddress) -> bool {
            let header = Header::forward(address.clone());
            let any = Policy::any().decide(&header);
            let only = Policy::only([other.clone()]).decide(&header);
            any.is_ok() == Target::try_from(&address).is_ok() && (only.is_err() || address == other)
        }
    }
}
