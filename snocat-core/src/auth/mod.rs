//! Authentication: a method is negotiated by name, then both sides prove what it asks for, bound to this very
//! connection. Protocol.md, "Authentication".
//!
//! The connecting side's first flight is OFFER and the first message (PROOF) of the method it prefers. The
//! listening side answers with SELECT, possibly more PROOFs, and in the end OUTCOME. The sides take turns, so at
//! each proof both know what was sent before it: that is the transcript (`transcript.rs`) that the proof
//! covers. [`Connecting`] and [`Listening`] are the two machines; a method is one file, and one line in the table
//! of `method.rs`.

mod connecting;
mod listening;
mod messages;
mod method;
mod name;
mod none;
#[cfg(test)]
mod tests;
mod token;
mod transcript;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::connecting::Connecting;
pub use self::listening::Listening;
pub use self::name::{NameError, TunnelName};
pub use self::token::{SecretTooShort, TokenKey, TokenKeys, TokenSecret};

/// The label of the TLS exporter that binds proofs to the connection.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-snocat/1 auth";

/// The TLS exporter of the connection with [`EXPORTER_LABEL`]: from a context to 32 bytes.
///
/// `None` says that it failed, which ends authentication with the code `internal`.
pub type Exporter<'a> = &'a dyn Fn(&[u8; 32]) -> Option<[u8; 32]>;

/// What the listening side tells about a tunnel, by key. At most 32 entries with keys of 1 to 64 bytes, which
/// must fit into one frame together with the name.
pub type Attributes = BTreeMap<String, String>;

/// What the connecting side authenticates with, and asks for.
#[derive(Clone, Default, Debug)]
pub struct ConnectingConfig {
    /// The credentials in order of preference, 1 to 16 of them. Of two for the same method the first counts.
    pub methods: Vec<Credential>,
    /// The tunnel name to ask for. `None` leaves it to the listening side.
    pub name: Option<TunnelName>,
}

/// What one method needs on the connecting side.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Credential {
    /// Method `none`: proves nothing, neither of this side nor of the other.
    None,
    /// Method `token`: a secret that both sides know.
    Token(TokenSecret),
}

/// What the listening side accepts. The default accepts nothing.
#[derive(Clone, Default, Debug)]
pub struct ListeningConfig {
    /// Whether the method `none`, which proves nothing, is good enough.
    pub none: bool,
    /// The secrets of the method `token`; `None` turns the method off.
    pub tokens: Option<Arc<TokenKeys>>,
}

impl ListeningConfig {
    /// The names of the methods that are configured, the preferred ones first.
    pub fn methods(&self) -> Vec<&'static str> {
        method::METHODS.iter().filter(|method| (method.listening)(self).is_some()).map(|m| m.name).collect()
    }
}

/// What to do after a frame on the connecting side.
#[derive(Debug)]
pub enum ConnectingStep {
    /// Send this on stream 0 (nothing, if it is empty) and wait for more.
    Send(Vec<u8>),
    /// The tunnel is there.
    Done(Outcome),
}

/// What to do after a frame on the listening side.
#[derive(Debug)]
pub enum ListeningStep {
    /// Send this on stream 0 (nothing, if it is empty) and wait for more.
    Send(Vec<u8>),
    /// The method is satisfied. Send `send`, decide over `claim`, then call [`Listening::accept`] or close.
    Decide {
        /// What to send on stream 0 now.
        send: Vec<u8>,
        /// What was proven and asked for.
        claim: Claim,
    },
}

/// Whom the listening side has before it, once the method is satisfied.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Claim {
    /// The name of the method.
    pub method: String,
    /// Who it is, as far as the method and its configuration tell.
    pub identity: Option<String>,
    /// The tunnel name that is asked for, if any. Nothing proves a right to it: that is for the decision.
    pub name: Option<TunnelName>,
}

/// How authentication ended, if it did well.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Outcome {
    /// The name of the tunnel, as the listening side decided.
    pub name: TunnelName,
    /// What the listening side tells about the tunnel.
    pub attributes: Attributes,
    /// The name of the method.
    pub method: String,
    /// Who is connecting. Known to the listening side only, and there not with every method.
    pub identity: Option<String>,
}
