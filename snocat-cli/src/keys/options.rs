//! The options before a key: `names="web,db-*",ports="8080" KEY`, written as in OpenSSH's authorized_keys.
//!
//! An option restricts what its key may do. One that is not understood is therefore an error, never ignored.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use snocat_driver::core::auth::{Grant, NamePattern, Names};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::similar::similar;

/// The most bytes of an identity: it stands in every line of the log about its tunnels.
const MAX_IDENTITY: usize = 128;

const DAY: Duration = Duration::from_secs(86_400);

/// What there is, for whoever used something else.
pub(super) const KNOWN: &str = "there are identity, names, ports, from and expires";

const NAMES: [&str; 5] = ["identity", "names", "ports", "from", "expires"];

/// Options that OpenSSH has, and this file has not.
const OPENSSH: [&str; 19] = [
    "agent-forwarding",
    "cert-authority",
    "command",
    "environment",
    "expiry-time",
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-pty",
    "no-touch-required",
    "no-user-rc",
    "no-X11-forwarding",
    "permitlisten",
    "permitopen",
    "port-forwarding",
    "principals",
    "pty",
    "restrict",
    "user-rc",
    "verify-required",
];

/// What takes the value of an option.
type Setter = fn(&mut Options, &str) -> Result<(), String>;

/// What the options of a line say.
#[derive(Clone, Default, Debug, Eq, PartialEq)]
pub struct Options {
    /// Whose key it is.
    pub identity: Option<String>,
    /// The tunnel names that it allows.
    pub names: Option<Vec<NamePattern>>,
    /// The ports that it allows.
    pub ports: Option<Vec<RangeInclusive<u16>>>,
    /// Where its holder may come from.
    pub sources: Option<Vec<IpNet>>,
    /// From then on it is not valid any more.
    pub expires: Option<SystemTime>,
}

impl Options {
    /// Splits a line into its options, if it begins with some, and what follows them.
    ///
    /// # Errors
    /// What is wrong with the options, without any of their text.
    pub fn split(line: &str) -> Result<(Self, &str), String> {
        let mut options = Self::default();
        if !begins_with_option(line) {
            return Ok((options, line));
        }
        let mut rest = line;
        let mut number = 1;
        loop {
            let (name, behind) = word(rest);
            let (name, put) = Self::setter(name).ok_or_else(|| unknown(number, name))?;
            let (value, behind) = behind
                .strip_prefix("=\"")
                .and_then(unquote)
                .ok_or_else(|| format!("the value of `{name}` is not in quotes, as in names=\"web\""))?;
            put(&mut options, &value).map_err(|what| format!("option `{name}`: {what}"))?;
            if let Some(next) = behind.strip_prefix(',') {
                (rest, number) = (next, number + 1);
                continue;
            }
            let key = behind.trim_start();
            return match (key.is_empty(), key.len() == behind.len()) {
                (true, _) => Err("there are options, and no key behind them".to_owned()),
                (_, true) => Err(format!("behind option `{name}` stands neither a comma nor a blank")),
                _ => Ok((options, key)),
            };
        }
    }

    /// What the credential allows. Only options restrict it: an identity says whose it is, and nothing more.
    pub fn grant(&self) -> Grant {
        Grant {
            names: self.names.clone().map_or(Names::Unreserved, Names::Only),
            ports: self.ports.clone(),
            sources: self.sources.clone(),
        }
    }

    /// The option `name`, and what takes its value. `None`: there is no such option.
    fn setter(name: &str) -> Option<(&'static str, Setter)> {
        let name = NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name))?;
        let setter: Setter = match name {
            "identity" => |options, value| once(&mut options.identity, identity(value)?.to_owned()),
            "names" => |options, value| {
                let names = list(value, |name| name.parse().ok());
                once(&mut options.names, names.ok_or("give tunnel names or the start of some, as web,db-*")?)
            },
            "ports" => |options, value| {
                let ports = list(value, ports);
                once(&mut options.ports, ports.ok_or("give ports and ranges of them, as 8080,9000-9010")?)
            },
            "from" => |options, value| {
                let sources = list(value, source);
                let advice = "give addresses and networks, as 198.51.100.7,192.0.2.0/24,2001:db8::/32, \
                              with no bits behind the prefix";
                once(&mut options.sources, sources.ok_or(advice)?)
            },
            "expires" => |options, value| {
                let advice = "give the last day, as 2027-01-31, or a time, as 2027-01-31T12:00:00Z";
                once(&mut options.expires, expiry(value).ok_or(advice)?)
            },
            _ => return None,
        };
        Some((name, setter))
    }
}

/// What to say of an option that is not known. Its text is shown only if it is one of OpenSSH's: another may be a secret.
fn unknown(number: usize, name: &str) -> String {
    let hint = match (similar(name, &NAMES), OPENSSH.iter().find(|known| known.eq_ignore_ascii_case(name))) {
        (Some(meant), _) => format!(" (did you mean `{meant}`?)"),
        (None, Some(known)) => format!(" (`{known}` is one of OpenSSH's)"),
        (None, None) => String::new(),
    };
    format!("option {number} is not known{hint}: {KNOWN}")
}

/// Whether a text can be an identity, which stands in logs and events.
///
/// # Errors
/// Why it cannot.
pub fn identity(text: &str) -> Result<&str, String> {
    if text.is_empty() || text.len() > MAX_IDENTITY {
        Err(format!("an identity has 1 to {MAX_IDENTITY} bytes"))
    } else if text.contains(char::is_control) {
        Err("an identity has no control characters".to_owned())
    } else {
        Ok(text)
    }
}

/// Whether the line begins as options do, rightly or wrongly written. No key, secret or tunnel name does; a secret
/// with padding, which is wrong, ends in `=`.
fn begins_with_option(line: &str) -> bool {
    let (name, behind) = word(line);
    let value = behind.strip_prefix('=').map(|value| value.trim_start_matches('='));
    !name.is_empty() && (behind.starts_with(',') || value.is_some_and(|value| !value.is_empty()))
}

/// The letters, digits and hyphens at the start.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !(character.is_ascii_alphanumeric() || character == '-'));
    text.split_at_checked(end.unwrap_or(text.len())).unwrap_or((text, ""))
}

/// What stands before the closing quote, and what behind it. As with OpenSSH a quote is written `\"`, and a backslash
/// before anything else is just that. Wiped: without its closing quote a value reaches into the secret behind it.
fn unquote(text: &str) -> Option<(Zeroizing<String>, &str)> {
    let mut value = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text;
    loop {
        let (before, behind) = rest.split_once('"')?;
        match before.strip_suffix('\\') {
            Some(before) => value.extend([before, "\""]),
            None => {
                value.push_str(before);
                return Some((value, behind));
            }
        }
        rest = behind;
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        Some(_) => Err("it is there twice".to_owned()),
        None => Ok(()),
    }
}

/// At least one, with commas between them.
fn list<T>(text: &str, one: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').map(|part| one(part.trim())).collect()
}

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    // `parse` would take a plus sign.
    let port =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = port(first)?..=port(last)?;
    (*range.start() > 0 && !range.is_empty()).then_some(range)
}

fn source(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>()).ok()?;
    // Neither `192.0.2.7/24`, which is one of two mistakes, nor IPv4 in the clothes of IPv6, which is never met.
    let mapped = matches!(network.addr(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    (network == network.trunc() && !mapped).then_some(network)
}

/// The end of a day of UTC, or a moment.
fn expiry(text: &str) -> Option<SystemTime> {
    let moment = |text: &str| {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        // What lies before 1970 has expired all the same.
        let milliseconds = u64::try_from(moment.unix_timestamp_nanos().max(0) / 1_000_000).ok()?;
        UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
    };
    if text.contains(['T', 't']) {
        moment(text)
    } else {
        moment(&format!("{text}T00:00:00Z"))?.checked_add(DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        let line = format!("{text} KEY");
        let (options, rest) = Options::split(&line).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(rest, "KEY", "{text}");
        options
    }

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn all_of_them() {
        let read = options(
            r#"identity="alice, of \"sales\"",names="web, db-*",ports="8080,9000-9010",from="192.0.2.0/24,2001:db8::/32,198.51.100.7,::1",expires="2027-01-31""#,
        );
        assert_eq!(read.identity.as_deref(), Some("alice, of \"sales\""));
        let names = read.names.clone().unwrap();
        assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["web", "db-*"]);
        assert_eq!(read.ports, Some(vec![8080..=8080, 9000..=9010]));
        let sources = read.sources.clone().unwrap();
        assert_eq!(
            sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32", "::1/128"]
        );
        assert_eq!(read.expires, at(1_801_440_000));
        let grant = read.grant();
        assert_eq!((grant.names, grant.ports, grant.sources), (Names::Only(names), read.ports, read.sources));
    }

    #[test]
    fn nothing_but_an_option_restricts() {
        for line in ["KEY", "ssh-ed25519 AAAA a=b,c", "alice:KEY", "# a", "KEY=", "KEY=="] {
            assert_eq!(Options::split(line).unwrap(), (Options::default(), line));
        }
        assert_eq!(Options::default().grant(), Grant::default());
        assert_eq!(options(r#"identity="alice""#).grant(), Grant::default());
        assert_eq!(options(r#"identity="alice",ports="1""#).grant().names, Names::Unreserved);
    }

    #[test]
    fn names_of_options_have_no_case_and_blanks_end_the_options() {
        assert_eq!(options(r#"IDENTITY="Al\ice""#).identity.as_deref(), Some(r"Al\ice"));
        let (read, rest) = Options::split("ports=\"1-65535\"\t \tssh-ed25519 AAAA x").unwrap();
        assert_eq!((read.ports, rest), (Some(vec![1..=65535]), "ssh-ed25519 AAAA x"));
    }

    #[test]
    fn a_day_lasts_to_its_end_and_a_moment_is_one() {
        for (text, moment) in [
            ("1970-01-01", at(86_400)),
            ("2027-01-31T12:00:00Z", at(1_801_396_800)),
            ("2027-01-31T12:00:00+01:00", at(1_801_393_200)),
            ("2027-01-31T12:00:00.5Z", Some(at(1_801_396_800).unwrap() + Duration::from_millis(500))),
            ("1969-12-31T00:00:00Z", at(0)),
            ("9999-12-31", at(253_402_300_800)),
        ] {
            assert_eq!(options(&format!("expires=\"{text}\"")).expires, moment, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_never_ignored() {
        let huge = format!("names=\"{}CANARY/\"", "x,".repeat(1 << 18));
        for (text, hint) in [
            (r#"CANARY="x""#, "option 1 is not known: there are identity, names, ports, from and expires"),
            (r#"ports="1",CANARY"#, "option 2 is not known"),
            (r#"restrict,names="web""#, "option 1 is not known (`restrict` is one of OpenSSH's)"),
            (r#"name="web""#, "option 1 is not known (did you mean `names`?)"),
            (r#"no-pty,names="web""#, "option 1 is not known"),
            (r#"names="web",no-X11-forwarding"#, "option 2 is not known"),
            (r#"command="CANARY""#, "option 1 is not known"),
            (r#"names="web","#, "option 2 is not known"),
            (r#"names="web",,ports="1""#, "option 2 is not known"),
            ("names=CANARY", "is not in quotes"),
            ("names,ports=\"1\"", "is not in quotes"),
            (r#"names="CANARY"#, "is not in quotes"),
            (r#"names="CANARY\""#, "is not in quotes"),
            (r#"names="web"CANARY"#, "neither a comma nor a blank"),
            (r#"names="web",names="web""#, "option `names`: it is there twice"),
            (r#"names="""#, "option `names`: give tunnel names"),
            (r#"names="web,""#, "option `names`: give tunnel names"),
            (r#"names="CANARY/""#, "give tunnel names"),
            (r#"names="*CANARY""#, "give tunnel names"),
            (r#"names="CANARY\"""#, "give tunnel names"),
            (&huge, "give tunnel names"),
            (r#"ports="""#, "give ports"),
            (r#"ports="0""#, "give ports"),
            (r#"ports="+1""#, "give ports"),
            (r#"ports="2-1""#, "give ports"),
            (r#"ports="1-65536""#, "give ports"),
            (r#"ports="1:2""#, "give ports"),
            (r#"ports="-""#, "give ports"),
            (r#"from="""#, "give addresses"),
            (r#"from="CANARY.example.org""#, "give addresses"),
            (r#"from="192.0.2.*""#, "give addresses"),
            (r#"from="!192.0.2.1""#, "give addresses"),
            (r#"from="192.0.2.1/24""#, "no bits behind the prefix"),
            (r#"from="192.0.2.0/33""#, "give addresses"),
            (r#"from="::ffff:192.0.2.0/120""#, "give addresses"),
            (r#"expires="""#, "give the last day"),
            (r#"expires="CANARY""#, "give the last day"),
            (r#"expires="2027-02-30""#, "give the last day"),
            (r#"expires="2027-1-1""#, "give the last day"),
            (r#"expires="20270131""#, "give the last day"),
            (r#"expires="2027-01-31T12:00:00""#, "give the last day"),
            (r#"identity="""#, "1 to 128 bytes"),
            ("identity=\"CANARY\u{9b}\"", "control characters"),
        ] {
            let error = Options::split(&format!("{text} KEY")).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
            assert!(!error.contains("CANARY") && error.len() < 200, "{error}");
        }
        for line in [r#"names="web""#, r#"names="web"  "#] {
            assert!(Options::split(line).unwrap_err().contains("no key behind"), "{line}");
        }
        let long = "x".repeat(MAX_IDENTITY + 1);
        assert!(identity(&long).is_err() && identity(&long[1..]).is_ok());
    }
}
