//! The one table of codes, and [`Refusal`]: a code with a short text for people.
//!
//! The same numbers stand in answer frames, in RESET_STREAM and STOP_SENDING and in CONNECTION_CLOSE, so that
//! whatever ends says why in the same words. Protocol.md, "Codes", holds the same table, and a test compares.

use std::fmt;

use crate::wire::MAX_VARINT;

/// Why a stream, a binding or a tunnel ended or was refused: a QUIC varint (Protocol.md, "Codes").
///
/// Numbers that are not in the table are carried as they are: a newer peer may know more of them.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Code(u64);

macro_rules! codes {
    ($($constant:ident = $value:literal, $name:literal, $meaning:literal;)*) => {
        impl Code {
            $(#[doc = concat!("`", $name, "`: ", $meaning, ".")]
            pub const $constant: Self = Self($value);)*

            /// Every code this version knows with its name and its meaning, in ascending order.
            pub const TABLE: &'static [(Self, &'static str, &'static str)] =
                &[$((Self::$constant, $name, $meaning)),*];
        }
    };
}

codes! {
    NONE = 0x00, "none", "accepted, or a clean end";
    INTERNAL = 0x01, "internal", "something failed on the side that says so";
    PROTOCOL = 0x02, "protocol", "the peer violated the protocol";
    STOPPING = 0x03, "stopping", "this side is shutting down";
    TIMEOUT = 0x04, "timeout", "a deadline passed";
    LIMIT = 0x05, "limit", "a limit was reached";
    UNKNOWN_FRAME = 0x06, "unknown-frame", "a frame that must be understood is unknown";
    CLOSED = 0x07, "closed", "the application is done with the tunnel";
    UNPROVEN = 0x08, "unproven", "the listening side did not prove that it knows the key";
    LOST_RACE = 0x09, "lost-race", "another attempt of the same client won";
    SUPERSEDED = 0x0a, "superseded", "a newer tunnel of the same identity has taken the name over";
    WITHDRAWN = 0x0b, "withdrawn", "the credentials are no longer accepted";
    AUTH_REFUSED = 0x10, "auth-refused", "the credentials were not accepted";
    AUTH_NO_METHOD = 0x11, "auth-no-method", "no authentication method in common";
    NAME_TAKEN = 0x12, "name-taken", "the requested tunnel name is in use";
    NAME_INVALID = 0x13, "name-invalid", "the requested tunnel name is not a name";
    NAME_REFUSED = 0x14, "name-refused", "the identity may not use the requested tunnel name";
    KIND_UNKNOWN = 0x20, "kind-unknown", "the kind of the stream is unknown";
    ADDRESS_INVALID = 0x21, "address-invalid", "the route address cannot be understood";
    NOT_ALLOWED = 0x22, "not-allowed", "the policy does not allow this target";
    TARGET_REFUSED = 0x23, "target-refused", "the target refused the connection";
    TARGET_UNREACHABLE = 0x24, "target-unreachable", "the target cannot be reached, or not be resolved";
    TARGET_TIMEOUT = 0x25, "target-timeout", "the target did not answer in time";
    METADATA_UNKNOWN = 0x26, "metadata-unknown", "metadata that must be understood is unknown";
    BUSY = 0x27, "busy", "out of a system resource, such as descriptors";
    NOT_SERVED = 0x28, "not-served", "this side serves no streams";
    RESET = 0x30, "reset", "the TCP connection behind the stream was reset";
    CANCELLED = 0x31, "cancelled", "nobody wants this stream any more";
    STALLED = 0x32, "stalled", "the stream was not read for too long";
    PORT_TAKEN = 0x40, "port-taken", "the port is in use";
    PORT_OUTSIDE = 0x41, "port-outside", "the port is outside the permitted range";
    PORTS_EXHAUSTED = 0x42, "ports-exhausted", "no port is left";
    BIND_FAILED = 0x43, "bind-failed", "the address could not be bound";
    BIND_NOT_OFFERED = 0x44, "bind-not-offered", "this side binds nothing for its peer";
}

impl Code {
    /// The code with this number. Bits above the 62 of a varint are dropped.
    pub const fn new(value: u64) -> Self {
        Self(value & MAX_VARINT)
    }

    /// The number on the wire, below 2^62.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The name in the table, if this version knows the code.
    pub fn name(self) -> Option<&'static str> {
        Self::TABLE.iter().find(|(code, ..)| *code == self).map(|(_, name, _)| *name)
    }

    /// What the table says the code means, if this version knows it.
    pub fn meaning(self) -> Option<&'static str> {
        Self::TABLE.iter().find(|(code, ..)| *code == self).map(|(.., meaning)| *meaning)
    }
}

/// The name, or `code 0x…` when it has none.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({self})")
    }
}

/// A refusal as it travels: a code for programs, a text for people (Protocol.md, "Codes").
///
/// The text may come from the peer. Its `Display` escapes what could forge a log line or drive a terminal.
#[derive(Clone, Eq, PartialEq, Hash, Debug)]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// The same for a person, in at most [`Refusal::MAX_TEXT`] bytes. May be empty.
    pub text: String,
}

impl Refusal {
    /// The most bytes of text that travel.
    pub const MAX_TEXT: usize = 256;

    /// A refusal with this code and text, which is cut at [`Self::MAX_TEXT`] bytes, between two characters.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(cut(&text, Self::MAX_TEXT).len());
        Self { code, text }
    }

    /// What is sent for it. Zero means "accepted", so a refusal without a reason becomes `internal`.
    pub(crate) fn to_wire(&self) -> (Code, &str) {
        let code = if self.code == Code::NONE { Code::INTERNAL } else { self.code };
        (code, cut(&self.text, Self::MAX_TEXT))
    }
}

/// `text (name of the code)`, the text with its control characters escaped.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_str() {
            "" => write!(f, "{}", self.code),
            text => write!(f, "{} ({})", Escaped(text), self.code),
        }
    }
}

impl std::error::Error for Refusal {}

/// Shows text of a peer with everything unprintable in it (control characters, direction marks) escaped.
#[derive(Copy, Clone, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            // Harmless, and only noise if escaped.
            '\'' | '"' | '\\' => write!(f, "{character}"),
            _ => write!(f, "{}", character.escape_debug()),
        })
    }
}

/// The longest start of `text` that has at most `max` bytes and ends between two characters.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[test]
    fn the_table_has_an_order_and_no_two_of_a_name() {
        assert!(Code::TABLE.is_sorted_by(|a, b| a.0 < b.0));
        let names: std::collections::BTreeSet<_> = Code::TABLE.iter().map(|(_, name, _)| name).collect();
        assert_eq!(names.len(), Code::TABLE.len());
    }

    /// Rows of the form `| 0x00 | none | accepted, or a clean end |`.
    #[test]
    fn the_table_is_the_one_of_the_text() {
        let text = include_str!("../../docs/Protocol.md");
        let rows: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| 0x")?.strip_suffix(" |")?.split_once(" | `"))
            .filter_map(|(value, rest)| Some((value, rest.split_once("` | ")?)))
            .map(|(value, (name, meaning))| {
                (Code::new(u64::from_str_radix(value, 16).unwrap()), name, meaning)
            })
            .filter(|(_, name, _)| name.chars().all(|character| character.is_lowercase() || character == '-'))
            .collect();
        assert_eq!(rows, Code::TABLE);
    }

    #[test]
    fn display() {
        assert_eq!(Code::LOST_RACE.to_string(), "lost-race");
        assert_eq!(Code::new(0x7777).to_string(), "code 0x7777");
        assert_eq!(Code::new(u64::MAX).value(), (1 << 62) - 1);
        assert_eq!(Code::BUSY.meaning(), Some("out of a system resource, such as descriptors"));
        assert_eq!(Refusal::new(Code::BUSY, "").to_string(), "busy");
        let refusal = Refusal::new(Code::BUSY, "it's \"full\"\r\n\u{1b}[2J\u{202e}");
        assert_eq!(refusal.to_string(), "it's \"full\"\\r\\n\\u{1b}[2J\\u{202e} (busy)");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(Refusal::new(Code::BUSY, "ä".repeat(200)).text, "ä".repeat(128));
        assert_eq!(Refusal::new(Code::BUSY, format!("a{}", "ä".repeat(200))).text.len(), 255);
        let long = Refusal { code: Code::NONE, text: "a".repeat(300) };
        assert_eq!(long.to_wire(), (Code::INTERNAL, "a".repeat(256).as_str()));
    }

    quickcheck! {
        fn a_text_is_kept_as_far_as_it_fits(text: String) -> bool {
            let kept = Refusal::new(Code::BUSY, text.as_str()).text;
            text.starts_with(&kept) && kept.len() <= 256 && (kept == text || kept.len() > 252)
        }

        fn nothing_shown_controls_a_terminal(text: String) -> bool {
            !Refusal::new(Code::BUSY, text).to_string().chars().any(char::is_control)
        }
    }
}
