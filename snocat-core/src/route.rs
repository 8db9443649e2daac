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

    /// The TCP port `port` of `host`: of `/ip4` or `/ip6` for an IP literal (in brackets or not), else of `/dns`.
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
    /// Allows exactly these route addresses, compared as text: another spelling of the same host is another one.
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
