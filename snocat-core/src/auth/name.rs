//! Names of tunnels.

use std::fmt;
use std::str::FromStr;

/// The name of a tunnel: 1 to 64 bytes of `A-Z a-z 0-9 . _ -` (Protocol.md, "Tunnel names").
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct TunnelName(String);

/// A text that is not a [`TunnelName`].
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[error("a name has 1 to {} letters, digits, `.`, `_` and `-`", TunnelName::MAX_LEN)]
pub struct NameError;

impl TunnelName {
    /// The most bytes of a name.
    pub const MAX_LEN: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TunnelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError)
        }
    }
}

impl AsRef<str> for TunnelName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
