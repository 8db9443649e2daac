//! What a credential allows its holder: tunnel names, ports, and where it may come from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

use super::TunnelName;

/// What a credential allows. The default allows the names that are nobody's, every port that the listening side
/// gives away, and every source.
#[derive(Clone, Default, Eq, PartialEq, Debug)]
pub struct Grant {
    /// The names that its tunnels may have.
    pub names: Names,
    /// The ports that it may ask for. `None`: all that the listening side gives away.
    pub ports: Option<Vec<RangeInclusive<u16>>>,
    /// Where its holder may connect from. `None`: from anywhere. Looked at when the tunnel authenticates.
    pub sources: Option<Vec<IpNet>>,
}

/// The names that the tunnels of an identity may have.
#[derive(Clone, Default, Eq, PartialEq, Debug)]
pub enum Names {
    /// Any that no credential reserves.
    #[default]
    Unreserved,
    /// These, which are thereby reserved.
    Only(Vec<NamePattern>),
}

/// A tunnel name, or the start of some: `web`, `db-*`, `*`.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct NamePattern {
    start: String,
    open: bool,
}

/// A text that is no [`NamePattern`].
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[error("a pattern is a tunnel name, the start of one with `*` behind it, or `*`")]
pub struct PatternError;

impl Grant {
    /// What is allowed to an identity of which nothing else is said: the tunnel name that is the same as it. If it
    /// is none, the names that are nobody's.
    pub fn to(identity: &str) -> Self {
        let names = match identity.parse::<TunnelName>() {
            Ok(name) => Names::Only(vec![NamePattern { start: name.to_string(), open: false }]),
            Err(_) => Names::Unreserved,
        };
        Self { names, ..Self::default() }
    }

    /// Whether the holder may connect from there. An IPv4 address that is written as IPv6 is one of IPv4.
    pub fn allows_source(&self, remote: SocketAddr) -> bool {
        let address: IpAddr = remote.ip().to_canonical();
        self.sources.as_ref().is_none_or(|sources| sources.iter().any(|source| source.contains(&address)))
    }

    /// Whether the holder may have this port.
    pub fn allows_port(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.iter().any(|range| range.contains(&port)))
    }

    /// What two credentials allow that are shown together: what each of them does.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self {
            names: self.names.and(&other.names),
            ports: both(self.ports.as_deref(), other.ports.as_deref(), |a, b| {
                let common = *a.start().max(b.start())..=*a.end().min(b.end());
                (!common.is_empty()).then_some(common)
            }),
            sources: both(self.sources.as_deref(), other.sources.as_deref(), |a, b| {
                if a.contains(b) { Some(*b) } else { b.contains(a).then_some(*a) }
            }),
        }
    }
}

/// The intersection of two unions, of which none is everything.
fn both<T: Clone>(a: Option<&[T]>, b: Option<&[T]>, common: impl Fn(&T, &T) -> Option<T>) -> Option<Vec<T>> {
    match (a, b) {
        (Some(a), Some(b)) => {
            Some(a.iter().flat_map(|a| b.iter().filter_map(|b| common(a, b)).collect::<Vec<_>>()).collect())
        }
        (one, other) => one.or(other).map(<[T]>::to_vec),
    }
}

impl Names {
    /// Whether the name is among those that are listed.
    pub fn list(&self, name: &TunnelName) -> bool {
        match self {
            Self::Unreserved => false,
            Self::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
        }
    }

    /// Whether nobody else may have the name: it is listed, and not only by `*`.
    pub fn reserve(&self, name: &TunnelName) -> bool {
        match self {
            Self::Unreserved => false,
            Self::Only(patterns) => {
                patterns.iter().any(|pattern| !pattern.start.is_empty() && pattern.matches(name))
            }
        }
    }

    /// A name for who asks for none: the first that is listed in full; else the start of one that may be made up.
    /// `None` if nothing is listed.
    pub fn suggest(&self) -> Option<Suggestion> {
        let Self::Only(patterns) = self else { return None };
        let full =
            patterns.iter().find(|pattern| !pattern.open).and_then(|pattern| pattern.start.parse().ok());
        full.map(Suggestion::Name).or_else(|| Some(Suggestion::Start(patterns.first()?.start.clone())))
    }

    fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Only(a), Self::Only(b)) => {
                Self::Only(both(Some(a), Some(b), NamePattern::and).unwrap_or_default())
            }
            (Self::Unreserved, names) | (names, Self::Unreserved) => names.clone(),
        }
    }
}

/// What to call a tunnel whose holder asks for no name.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Suggestion {
    /// This.
    Name(TunnelName),
    /// Something that begins so.
    Start(String),
}

impl NamePattern {
    /// Whether the name is this one, or begins so.
    pub fn matches(&self, name: &TunnelName) -> bool {
        if self.open { name.as_str().starts_with(&self.start) } else { name.as_str() == self.start }
    }

    fn and(&self, other: &Self) -> Option<Self> {
        let (wide, narrow) = if other.start.len() < self.start.len() || other.open && !self.open {
            (other, self)
        } else {
            (self, other)
        };
        let covers = if wide.open { narrow.start.starts_with(&wide.start) } else { wide == narrow };
        covers.then(|| narrow.clone())
    }
}

impl From<TunnelName> for NamePattern {
    fn from(name: TunnelName) -> Self {
        Self { start: name.to_string(), open: false }
    }
}

impl FromStr for NamePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (start, open) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
        let valid = (open && start.is_empty()) || start.parse::<TunnelName>().is_ok();
        valid.then(|| Self { start: start.to_owned(), open }).ok_or(PatternError)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.start, if self.open { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> NamePattern {
        text.parse().unwrap()
    }

    fn name(text: &str) -> TunnelName {
        text.parse().unwrap()
    }

    fn names(patterns: &[&str]) -> Names {
        Names::Only(patterns.iter().map(|text| pattern(text)).collect())
    }

    #[test]
    fn a_pattern_is_a_name_or_the_start_of_some() {
        for text in ["web", "db-*", "*"] {
            assert_eq!(pattern(text).to_string(), text);
        }
        for text in ["", "**", "a*b", "*a", "a/b", "a b"] {
            assert_eq!(text.parse::<NamePattern>(), Err(PatternError), "{text}");
        }
        assert!(pattern("db-*").matches(&name("db-1")) && !pattern("db-*").matches(&name("db1")));
        assert!(pattern("web").matches(&name("web")) && !pattern("web").matches(&name("web2")));
        assert!(pattern("*").matches(&name("anything")));
    }

    #[test]
    fn what_is_listed_is_reserved_but_not_by_a_star_alone() {
        assert!(names(&["web"]).reserve(&name("web")) && names(&["w*"]).reserve(&name("web")));
        assert!(names(&["*"]).list(&name("web")) && !names(&["*"]).reserve(&name("web")));
        assert!(!Names::Unreserved.list(&name("web")) && !Names::Unreserved.reserve(&name("web")));
    }

    #[test]
    fn an_identity_that_is_a_name_may_have_it_and_another_takes_what_is_nobodys() {
        assert_eq!(Grant::to("alice").names, names(&["alice"]));
        assert_eq!(Grant::to("alice@laptop").names, Names::Unreserved);
    }

    #[test]
    fn who_asks_for_no_name_gets_the_first_that_is_listed() {
        assert_eq!(names(&["db-*", "web"]).suggest(), Some(Suggestion::Name(name("web"))));
        assert_eq!(names(&["db-*", "*"]).suggest(), Some(Suggestion::Start("db-".into())));
        assert_eq!((Names::Unreserved.suggest(), names(&[]).suggest()), (None, None));
    }

    #[test]
    fn two_credentials_together_allow_what_both_do() {
        let a = Grant {
            names: names(&["web", "db-*", "x*"]),
            ports: Some(vec![80..=90, 100..=200]),
            sources: Some(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/64".parse().unwrap()]),
        };
        let b = Grant {
            names: names(&["w*", "db-1", "y*", "xa*"]),
            ports: Some(vec![85..=100]),
            sources: Some(vec!["10.1.0.0/16".parse().unwrap()]),
        };
        for both in [a.and(&b), b.and(&a)] {
            let Names::Only(mut patterns) = both.names else { panic!("it is a list") };
            patterns.sort_by_key(ToString::to_string);
            assert_eq!(patterns, [pattern("db-1"), pattern("web"), pattern("xa*")]);
            assert_eq!(both.ports, Some(vec![85..=90, 100..=100]));
            assert_eq!(both.sources, b.sources);
        }
        assert_eq!((a.and(&Grant::default()), Grant::default().and(&a)), (a.clone(), a));
    }

    #[test]
    fn sources_and_ports_are_open_unless_said() {
        let open = Grant::default();
        assert!(open.allows_port(1) && open.allows_source("[2001:db8::1]:1".parse().unwrap()));
        let narrow = Grant {
            ports: Some(vec![8080..=8080]),
            sources: Some(vec!["192.0.2.0/24".parse().unwrap()]),
            ..Grant::default()
        };
        assert!(narrow.allows_port(8080) && !narrow.allows_port(8081));
        assert!(narrow.allows_source("192.0.2.9:1".parse().unwrap()));
        assert!(narrow.allows_source("[::ffff:192.0.2.9]:1".parse().unwrap()));
        assert!(!narrow.allows_source("192.0.3.9:1".parse().unwrap()));
    }
}
