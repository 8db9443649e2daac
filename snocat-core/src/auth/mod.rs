//! Authentication: a method is negotiated by name, then both sides prove what it asks for, bound to this very
//! connection. Protocol.md, "Authentication".
//!
//! The connecting side's first flight is OFFER and the first message (PROOF) of the method it prefers. The
//! listening side answers with SELECT, possibly more PROOFs, and in the end OUTCOME. The sides take turns, so at
//! each proof both know what was sent before it: that is the transcript (`transcript.rs`) that the proof
//! covers. [`Connecting`] and [`Listening`] are the two machines; what a method is stands in `method.rs`, and each has a
//! file of its own. What a credential allows its holder is its [`Grant`].

mod certificate;
mod chain;
mod connecting;
mod ed25519;
mod external;
mod grant;
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
use std::fmt;
use std::sync::Arc;

pub use self::certificate::{CertificateJudge, ClientCertificate, ClientCertificates};
pub use self::chain::Chain;
pub use self::connecting::Connecting;
pub use self::ed25519::{AuthorizedKey, AuthorizedKeys, Ed25519Key};
pub use self::external::External;
pub use self::grant::{Grant, NamePattern, Names, PatternError, Suggestion};
pub use self::listening::Listening;
use self::method::Length;
pub use self::method::{
    Answer, Authenticator, Context, Credential, Exchange, Failure, Proven, Question, Received, Session, Side,
    Turn,
};
pub use self::name::{NameError, TunnelName};
pub use self::none::NoProof;
pub use self::token::{SecretError, SecretTooShort, TokenKey, TokenKeys, TokenSecret};

/// The label of the TLS exporter that binds proofs to the connection.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-snocat/1 auth";

/// What the listening side tells about a tunnel, by key. At most 32 entries with keys of 1 to 64 bytes, which
/// must fit into one frame together with the name.
pub type Attributes = BTreeMap<String, String>;

/// What the connecting side authenticates with, and asks for.
#[derive(Clone, Default, Debug)]
pub struct ConnectingConfig {
    /// The credentials in order of preference, 1 to 16 of them. Of two for the same method the first counts.
    pub methods: Vec<Arc<dyn Credential>>,
    /// The tunnel name to ask for. `None` leaves it to the listening side.
    pub name: Option<TunnelName>,
}

impl ConnectingConfig {
    /// This credential alone, and no name asked for.
    pub fn only(credential: impl Credential + 'static) -> Self {
        Self { methods: vec![Arc::new(credential)], name: None }
    }
}

/// What the listening side accepts. The default accepts nothing.
#[derive(Clone, Default, Debug)]
pub struct ListeningConfig {
    /// The methods, the preferred ones first. One that proves nothing is picked only when no other is in common.
    pub methods: Vec<Arc<dyn Authenticator>>,
}

impl ListeningConfig {
    /// This method alone.
    pub fn only(authenticator: impl Authenticator + 'static) -> Self {
        Self { methods: vec![Arc::new(authenticator)] }
    }

    /// Whether what was claimed earlier still holds: the method is there, the credential is, and it grants the same.
    pub fn stands(&self, method: &str, proven: &Proven) -> bool {
        let authenticator = self.methods.iter().find(|authenticator| authenticator.method() == method);
        authenticator.is_some_and(|authenticator| authenticator.stands(proven))
    }

    /// Whether who was granted this may call a tunnel so: the name is listed for it, or is nobody's.
    pub fn allows_name(&self, grant: &Grant, name: &TunnelName) -> bool {
        match &grant.names {
            Names::Unreserved => !self.methods.iter().any(|authenticator| authenticator.reserves(name)),
            names => names.list(name),
        }
    }
}

/// What to do after a frame on the connecting side. `Debug` shows of what is to be sent only how long it is.
pub enum ConnectingStep {
    /// Send this on stream 0 (nothing, if it is empty) and wait for more.
    Send(Vec<u8>),
    /// Send `send`, find out what is asked, then call [`Connecting::answer`] or close.
    Ask {
        /// What to send on stream 0 now.
        send: Vec<u8>,
        /// What is asked.
        question: Question,
    },
    /// The tunnel is there.
    Done(Outcome),
}

/// What to do after a frame on the listening side. `Debug` shows of what is to be sent only how long it is.
pub enum ListeningStep {
    /// Send this on stream 0 (nothing, if it is empty) and wait for more.
    Send(Vec<u8>),
    /// Send `send`, find out what is asked, then call [`Listening::answer`] or close.
    Ask {
        /// What to send on stream 0 now.
        send: Vec<u8>,
        /// What is asked.
        question: Question,
    },
    /// The method is satisfied. Send `send`, decide over `claim`, then call [`Listening::accept`] or close.
    Decide {
        /// What to send on stream 0 now.
        send: Vec<u8>,
        /// What was proven and asked for.
        claim: Claim,
    },
}

impl fmt::Debug for ConnectingStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => f.debug_tuple("Send").field(&Length(bytes)).finish(),
            Self::Ask { send, question } => {
                f.debug_struct("Ask").field("send", &Length(send)).field("question", question).finish()
            }
            Self::Done(outcome) => f.debug_tuple("Done").field(outcome).finish(),
        }
    }
}

impl fmt::Debug for ListeningStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => f.debug_tuple("Send").field(&Length(bytes)).finish(),
            Self::Ask { send, question } => {
                f.debug_struct("Ask").field("send", &Length(send)).field("question", question).finish()
            }
            Self::Decide { send, claim } => {
                f.debug_struct("Decide").field("send", &Length(send)).field("claim", claim).finish()
            }
        }
    }
}

/// Whom the listening side has before it, once the method is satisfied.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Claim {
    /// The name of the method.
    pub method: String,
    /// Who it is, and what it may do.
    pub proven: Proven,
    /// The tunnel name that is asked for, if any. Whether it may have it is for the decision:
    /// [`ListeningConfig::allows_name`].
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
    /// Who is connecting, and what it may do. Known to the listening side only.
    pub proven: Option<Proven>,
}

impl Outcome {
    /// Who is connecting. Known to the listening side only, and there not with every method.
    pub fn identity(&self) -> Option<&str> {
        self.proven.as_ref()?.identity.as_deref()
    }
}
