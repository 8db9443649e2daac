//! Method `token`: both sides know a secret and prove it with one HMAC each (Protocol.md, "Method token").
//!
//! The secret never travels, and no proof is worth anything on another connection, at another point of the
//! exchange or in the other direction.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use super::method::{Authenticator, Context, Credential, Exchange, Failure, Proven, Turn};
use super::{Grant, TunnelName};
use crate::code::{Code, Refusal};
use crate::wire::DecodeError;

const METHOD: &str = "token";

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

/// A text that is not a secret. Nothing of the text is shown: it may be one with a slip.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Not base64url, or with padding.
    #[error("the secret is not base64url without padding")]
    Encoding,
    /// Too few bytes.
    #[error(transparent)]
    TooShort(#[from] SecretTooShort),
}

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

    /// The secret as text: base64url without padding, as [`FromStr`] reads it.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64URL_NOPAD.encode(&self.0))
    }

    /// The id by which the listening side finds the secret; it identifies the secret without giving it away.
    pub fn key_id(&self) -> [u8; 8] {
        let input = Zeroizing::new([KEY_ID_LABEL, &self.0].concat());
        digest(&SHA256, &input).as_ref().first_chunk().copied().unwrap_or_default()
    }

    fn mac(&self, label: &[u8], binding: &[u8; 32]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(HMAC_SHA256, &self.0), &[label, binding].concat())
    }

    /// In constant time.
    fn verify(&self, label: &[u8], binding: &[u8; 32], tag: &[u8]) -> bool {
        hmac::verify(&hmac::Key::new(HMAC_SHA256, &self.0), &[label, binding].concat(), tag).is_ok()
    }
}

/// Reads the text form of Protocol.md, "Method token": base64url without padding, of 32 bytes as a rule.
impl FromStr for TokenSecret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let len = BASE64URL_NOPAD.decode_len(text.len()).map_err(|_| SecretError::Encoding)?;
        // What is decoded before a slip is wiped.
        let mut secret = Zeroizing::new(vec![0; len]);
        BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut secret).map_err(|_| SecretError::Encoding)?;
        Ok(Self::new(std::mem::take(&mut *secret))?)
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

impl Credential for TokenSecret {
    fn method(&self) -> &str {
        METHOD
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Prover(self))
    }
}

/// A secret that the listening side accepts, and whose it is.
#[derive(Clone, Debug)]
pub struct TokenKey {
    /// Who has the secret. `None` if that is not known: then it is whoever has it, `token:` and the start of the key
    /// id.
    pub identity: Option<String>,
    /// What it allows.
    pub grant: Grant,
    /// The secret.
    pub secret: TokenSecret,
}

impl TokenKey {
    /// The key of whoever has the secret, who may use the names that are nobody's.
    pub fn nameless(secret: TokenSecret) -> Self {
        Self { identity: None, grant: Grant::default(), secret }
    }

    /// The key of this identity, with what is [allowed to it](Grant::to) if nothing else is said.
    pub fn of(identity: &str, secret: TokenSecret) -> Self {
        Self { identity: Some(identity.to_owned()), grant: Grant::to(identity), secret }
    }

    fn proven(&self) -> Proven {
        let key_id = self.secret.key_id();
        let nameless = || format!("token:{:08x}", u64::from_be_bytes(key_id) >> 32);
        let identity = self.identity.clone().unwrap_or_else(nameless);
        Proven { evidence: key_id.to_vec(), ..Proven::new(identity, self.grant.clone()) }
    }
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

impl Authenticator for TokenKeys {
    fn method(&self) -> &str {
        METHOD
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Verifier { keys: self, accepted: None })
    }

    fn stands(&self, proven: &Proven) -> bool {
        let key = proven.evidence.first_chunk().and_then(|key_id| self.by_id.get(key_id));
        key.is_some_and(|key| key.proven() == *proven)
    }

    fn reserves(&self, name: &TunnelName) -> bool {
        self.by_id.values().any(|key| key.grant.names.reserve(name))
    }
}

/// The connecting side.
struct Prover(Arc<TokenSecret>);

impl Exchange for Prover {
    fn receive(&mut self, _: &[u8], _: &Context<'_>) -> Result<(), Failure> {
        Err(DecodeError::Invalid("the method `token` has only one message").into())
    }

    fn turn(&mut self, context: &Context<'_>) -> Result<Turn, Failure> {
        let key_id = self.0.key_id();
        let proof = self.0.mac(CONNECTING_LABEL, &context.binding(&key_id)?);
        Ok(Turn::Say([&key_id, proof.as_ref()].concat()))
    }

    fn confirm(&mut self, before_proof: &[u8], proof: &[u8], context: &Context<'_>) -> Result<(), Failure> {
        if self.0.verify(LISTENING_LABEL, &context.binding(before_proof)?, proof) {
            Ok(())
        } else {
            Err(Refusal::new(Code::UNPROVEN, "the server did not prove that it knows the token").into())
        }
    }
}

/// The listening side.
struct Verifier {
    keys: Arc<TokenKeys>,
    /// The key whose secret was proven.
    accepted: Option<TokenKey>,
}

impl Exchange for Verifier {
    fn receive(&mut self, message: &[u8], context: &Context<'_>) -> Result<(), Failure> {
        let (key_id, proof) =
            message.split_first_chunk().ok_or(DecodeError::Invalid("a token's message without a key id"))?;
        // One binding and one HMAC, whether the id is known or not. (What the map tells by its time is the start of
        // ids, which nobody can make use of without the secret behind one.)
        let binding = context.binding(key_id)?;
        let key = self.keys.by_id.get(key_id);
        let secret = key.map_or(&self.keys.dummy, |key| &key.secret);
        let valid = secret.verify(CONNECTING_LABEL, &binding, proof);
        match key {
            Some(key) if valid => self.accepted = Some(key.clone()),
            Some(_) => return Err(Failure::denied("the proof for a known token is wrong")),
            None => return Err(Failure::denied("nobody has this token")),
        }
        Ok(())
    }

    fn turn(&mut self, _: &Context<'_>) -> Result<Turn, Failure> {
        Ok(Turn::Satisfied(self.accepted()?.proven()))
    }

    fn prove(&mut self, before_proof: &[u8], context: &Context<'_>) -> Result<Vec<u8>, Failure> {
        Ok(self.accepted()?.secret.mac(LISTENING_LABEL, &context.binding(before_proof)?).as_ref().to_vec())
    }
}

impl Verifier {
    fn accepted(&self) -> Result<&TokenKey, Failure> {
        self.accepted.as_ref().ok_or_else(|| Refusal::new(Code::INTERNAL, "no token was proven").into())
    }
}
