//! Method `token`: both sides know a secret and prove it with one HMAC each (Protocol.md, "Method token").
//!
//! The secret never travels, and no proof is worth anything on another connection, at another point of the
//! exchange or in the other direction.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use ring::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use super::method::{ConnectingMethod, ListeningMethod, Turn};
use super::transcript::{Binding, Bound};
use super::{Credential, ListeningConfig};
use crate::code::{Code, Refusal};
use crate::wire::DecodeError;

const KEY_ID_LABEL: &[u8] = b"snocat/1 token id";
const CONNECTING_LABEL: &[u8] = b"snocat/1 token connecting";
const LISTENING_LABEL: &[u8] = b"snocat/1 token listening";

/// The start of a hash of the secret. It travels, so that the listening side knows which key to try.
type KeyId = [u8; 8];

/// A secret of the method `token`: at least [`Self::MIN_LEN`] bytes, not guessable. Wiped when dropped.
#[derive(Clone)]
pub struct TokenSecret(Zeroizing<Vec<u8>>);

/// A secret that could be guessed.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[error("a token's secret has at least {} bytes", TokenSecret::MIN_LEN)]
pub struct SecretTooShort;

impl TokenSecret {
    /// The fewest bytes of a secret.
    ///
    /// The length is all that can be checked: they must be random, since the key id allows guessing offline.
    pub const MIN_LEN: usize = 16;

    /// A secret of these bytes.
    ///
    /// # Errors
    /// [`SecretTooShort`].
    pub fn new(secret: impl Into<Vec<u8>>) -> Result<Self, SecretTooShort> {
        let secret = Zeroizing::new(secret.into());
        if secret.len() < Self::MIN_LEN { Err(SecretTooShort) } else { Ok(Self(secret)) }
    }

    /// The id by which the listening side finds the secret; it identifies the secret without giving it away.
    pub fn key_id(&self) -> [u8; 8] {
        let mut context = Context::new(&SHA256);
        context.update(KEY_ID_LABEL);
        context.update(&self.0);
        context.finish().as_ref().first_chunk().copied().unwrap_or_default()
    }

    fn mac(&self, label: &[u8], bound: &Bound) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(HMAC_SHA256, &self.0), &[label, bound].concat())
    }

    /// In constant time.
    fn verify(&self, label: &[u8], bound: &Bound, tag: &[u8]) -> bool {
        hmac::verify(&hmac::Key::new(HMAC_SHA256, &self.0), &[label, bound].concat(), tag).is_ok()
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

/// A secret that the listening side accepts, and whose it is.
#[derive(Clone, Debug)]
pub struct TokenKey {
    /// Who has the secret, if that is known.
    pub identity: Option<String>,
    /// The secret.
    pub secret: TokenSecret,
}

/// All secrets that the listening side accepts.
#[derive(Clone, Debug)]
pub struct TokenKeys {
    by_id: BTreeMap<KeyId, TokenKey>,
    /// What a proof for an unknown id is checked against, so that it takes as long as for a known one.
    dummy: TokenSecret,
}

impl Default for TokenKeys {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl TokenKeys {
    /// The keys. Of two with the same secret the first counts.
    pub fn new(keys: Vec<TokenKey>) -> Self {
        let by_id = keys.into_iter().rev().map(|key| (key.secret.key_id(), key)).collect();
        Self { by_id, dummy: TokenSecret(Zeroizing::new(vec![0; 32])) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none, so that nobody is accepted.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

pub(super) fn connecting(credential: &Credential) -> Option<Box<dyn ConnectingMethod>> {
    let Credential::Token(secret) = credential else { return None };
    Some(Box::new(Prover(secret.clone())))
}

pub(super) fn listening(config: &ListeningConfig) -> Option<Box<dyn ListeningMethod>> {
    let keys = config.tokens.clone()?;
    Some(Box::new(Verifier { keys, accepted: None }))
}

/// The connecting side.
struct Prover(TokenSecret);

impl ConnectingMethod for Prover {
    fn message(&mut self, binding: &Binding<'_>) -> Result<Vec<u8>, Refusal> {
        let key_id = self.0.key_id();
        let proof = self.0.mac(CONNECTING_LABEL, &binding.over(&key_id)?);
        Ok([&key_id, proof.as_ref()].concat())
    }

    fn receive(&mut self, _: &[u8], _: &Binding<'_>) -> Result<(), Refusal> {
        Err(DecodeError::Invalid("the method `token` has only one message").into())
    }

    fn confirm(&mut self, before_proof: &[u8], proof: &[u8], binding: &Binding<'_>) -> Result<(), Refusal> {
        if self.0.verify(LISTENING_LABEL, &binding.over(before_proof)?, proof) {
            Ok(())
        } else {
            Err(Refusal::new(Code::UNPROVEN, "the server did not prove that it knows the token"))
        }
    }
}

/// The listening side.
struct Verifier {
    keys: Arc<TokenKeys>,
    /// The key whose secret was proven.
    accepted: Option<TokenKey>,
}

impl ListeningMethod for Verifier {
    fn receive(&mut self, message: &[u8], binding: &Binding<'_>) -> Result<(), Refusal> {
        let (key_id, proof) =
            message.split_first_chunk().ok_or(DecodeError::Invalid("a token's message without a key id"))?;
        let bound = binding.over(key_id)?;
        let key = self.keys.by_id.get(key_id);
        let secret = key.map_or(&self.keys.dummy, |key| &key.secret);
        let valid = secret.verify(CONNECTING_LABEL, &bound, proof);
        self.accepted = key.filter(|_| valid).cloned();
        Ok(())
    }

    fn turn(&mut self, _: &Binding<'_>) -> Result<Turn, Refusal> {
        match &self.accepted {
            Some(key) => Ok(Turn::Satisfied(key.identity.clone())),
            None => Err(Refusal::new(Code::AUTH_REFUSED, "credentials were not accepted")),
        }
    }

    fn prove(&mut self, before_proof: &[u8], binding: &Binding<'_>) -> Result<Vec<u8>, Refusal> {
        let key = self.accepted.as_ref().ok_or_else(|| Refusal::new(Code::INTERNAL, "no key was proven"))?;
        Ok(key.secret.mac(LISTENING_LABEL, &binding.over(before_proof)?).as_ref().to_vec())
    }
}
