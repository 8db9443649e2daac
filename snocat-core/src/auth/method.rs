//! What a method is to the negotiation, and the table of all of them.
//!
//! A method is a machine per side that makes and reads messages in turns, the connecting side first, until
//! the listening side is satisfied; then the listening side proves itself within OUTCOME. A new method is a file
//! beside `token.rs`, a variant of [`Credential`] and a line in [`METHODS`].

use super::transcript::Binding;
use super::{Credential, ListeningConfig, none, token};
use crate::code::Refusal;

/// The connecting side of a method. Errors end the tunnel with the code and text they carry.
pub(super) trait ConnectingMethod: Send + Sync {
    /// The next message. The first call makes the first message, each later one follows a [`Self::receive`].
    fn message(&mut self, binding: &Binding<'_>) -> Result<Vec<u8>, Refusal>;

    /// Takes in the listening side's answer to the last message.
    fn receive(&mut self, message: &[u8], binding: &Binding<'_>) -> Result<(), Refusal>;

    /// Checks the listening side's proof, which covers OUTCOME up to it (`before_proof`).
    fn confirm(&mut self, before_proof: &[u8], proof: &[u8], binding: &Binding<'_>) -> Result<(), Refusal>;
}

/// The listening side of a method. Errors end the tunnel with the code and text they carry.
pub(super) trait ListeningMethod: Send + Sync {
    /// Takes in the next message.
    fn receive(&mut self, message: &[u8], binding: &Binding<'_>) -> Result<(), Refusal>;

    /// What follows the message that was just received.
    fn turn(&mut self, binding: &Binding<'_>) -> Result<Turn, Refusal>;

    /// The proof at the end of OUTCOME, whose payload up to there is `before_proof`.
    fn prove(&mut self, before_proof: &[u8], binding: &Binding<'_>) -> Result<Vec<u8>, Refusal>;
}

/// What the listening side of a method does when it is its turn.
pub(super) enum Turn {
    /// It answers with this message and waits for the next one.
    #[cfg_attr(not(test), expect(dead_code, reason = "both of today's methods are satisfied by one message"))]
    Reply(Vec<u8>),
    /// It is satisfied: this is the identity, as far as it is known.
    Satisfied(Option<String>),
}

/// One method, on both sides.
pub(super) struct Method {
    pub(super) name: &'static str,
    /// Whether it proves anything. One that does goes before one that does not.
    pub(super) keyed: bool,
    /// The connecting side, if the credential is one for this method.
    pub(super) connecting: fn(&Credential) -> Option<Box<dyn ConnectingMethod>>,
    /// The listening side, if it is configured.
    pub(super) listening: fn(&ListeningConfig) -> Option<Box<dyn ListeningMethod>>,
}

/// All methods, the preferred ones first.
pub(super) const METHODS: &[Method] = &[
    Method { name: "token", keyed: true, connecting: token::connecting, listening: token::listening },
    Method { name: "none", keyed: false, connecting: none::connecting, listening: none::listening },
];
