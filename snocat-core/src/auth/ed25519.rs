//! Method `ed25519`: the connecting side signs with a private key whose public key the listening side knows
//! (Protocol.md, "Method ed25519").
//!
//! The listening side is known by its certificate alone; what it adds is that it has seen the same exchange.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ed25519_dalek::{PUBLIC_KEY_LENGTH, SECRET_KEY_LENGTH, Signature, Signer, SigningKey, VerifyingKey};

use super::method::{Authenticator, Context, Credential, Exchange, Failure, Proven, Turn};
use super::{Grant, TunnelName};
use crate::code::{Code, Refusal};
use crate::wire::DecodeError;

const METHOD: &str = "ed25519";
const LABEL: &[u8] = b"snocat/1 ed25519 connecting";

/// A private key of the method `ed25519`. Wiped when dropped.
pub struct Ed25519Key(SigningKey);

impl Ed25519Key {
    /// The key with this seed (RFC 8032, section 5.1.5: "the private key").
    pub fn from_seed(seed: &[u8; SECRET_KEY_LENGTH]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public key, which the listening side has to know.
    pub fn public_key(&self) -> [u8; PUBLIC_KEY_LENGTH] {
        self.0.verifying_key().to_bytes()
    }
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ed25519Key(…)")
    }
}

impl Credential for Ed25519Key {
    fn method(&self) -> &str {
        METHOD
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Prover(self))
    }
}

/// A public key that the listening side accepts, and whose it is.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct AuthorizedKey {
    /// The public key.
    pub key: [u8; PUBLIC_KEY_LENGTH],
    /// Who has the private one.
    pub identity: String,
    /// What it allows.
    pub grant: Grant,
}

impl AuthorizedKey {
    fn proven(&self) -> Proven {
        Proven { evidence: self.key.to_vec(), ..Proven::new(self.identity.clone(), self.grant.clone()) }
    }
}

/// All public keys that the listening side accepts.
#[derive(Clone, Default, Debug)]
pub struct AuthorizedKeys(BTreeMap<[u8; PUBLIC_KEY_LENGTH], AuthorizedKey>);

impl AuthorizedKeys {
    /// The keys. Of two that are the same the first counts.
    pub fn new(keys: Vec<AuthorizedKey>) -> Self {
        Self(keys.into_iter().rev().map(|key| (key.key, key)).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none, so that nobody is accepted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Authenticator for AuthorizedKeys {
    fn method(&self) -> &str {
        METHOD
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Verifier { keys: self, accepted: None })
    }

    fn stands(&self, proven: &Proven) -> bool {
        let key = proven.evidence.first_chunk().and_then(|key| self.0.get(key));
        key.is_some_and(|key| key.proven() == *proven)
    }

    fn reserves(&self, name: &TunnelName) -> bool {
        self.0.values().any(|key| key.grant.names.reserve(name))
    }
}

/// The connecting side.
struct Prover(Arc<Ed25519Key>);

impl Exchange for Prover {
    fn receive(&mut self, _: &[u8], _: &Context<'_>) -> Result<(), Failure> {
        Err(DecodeError::Invalid("the method `ed25519` has only one message").into())
    }

    fn turn(&mut self, context: &Context<'_>) -> Result<Turn, Failure> {
        let key = self.0.public_key();
        let signature = self.0.0.sign(&signed(&context.binding(&key)?));
        Ok(Turn::Say([&key[..], &signature.to_bytes()].concat()))
    }
}

/// The listening side.
struct Verifier {
    keys: Arc<AuthorizedKeys>,
    accepted: Option<Proven>,
}

impl Exchange for Verifier {
    fn receive(&mut self, message: &[u8], context: &Context<'_>) -> Result<(), Failure> {
        let (key, signature) =
            message.split_first_chunk().ok_or(DecodeError::Invalid("an ed25519 message without a key"))?;
        let signature =
            signature.try_into().map_err(|_| DecodeError::Invalid("an ed25519 signature has 64 bytes"))?;
        let binding = context.binding(key)?;
        // One binding and one verification, whether the key is known or not: what is computed depends on nothing but
        // what was shown.
        let valid = VerifyingKey::from_bytes(key)
            .and_then(|key| key.verify_strict(&signed(&binding), &Signature::from_bytes(signature)))
            .is_ok();
        match self.keys.0.get(key) {
            Some(key) if valid => self.accepted = Some(key.proven()),
            Some(_) => return Err(Failure::denied("the signature of a known key is wrong")),
            None => return Err(Failure::denied("the key is not authorized")),
        }
        Ok(())
    }

    fn turn(&mut self, _: &Context<'_>) -> Result<Turn, Failure> {
        let proven =
            self.accepted.clone().ok_or_else(|| Refusal::new(Code::INTERNAL, "no key was proven"))?;
        Ok(Turn::Satisfied(proven))
    }
}

fn signed(binding: &[u8; 32]) -> Vec<u8> {
    [LABEL, binding].concat()
}
