//! The payloads of OFFER, SELECT and OUTCOME (Protocol.md, "Authentication frames").

use super::{Attributes, TunnelName};
use crate::code::{Code, Refusal};
use crate::wire::{DecodeError, Frame, Reader, put_bytes, put_varint};

/// The most methods in one offer.
pub(super) const MAX_METHODS: usize = 16;
/// The most bytes of a method's name.
pub(super) const MAX_METHOD_NAME: usize = 64;
/// The most attributes of a tunnel.
const MAX_ATTRIBUTES: usize = 32;
/// The most bytes of an attribute's key.
const MAX_KEY: usize = 64;
/// What this version announces beyond the base protocol: nothing yet.
const FEATURES: &[u64] = &[];

/// OFFER, as far as this version understands it.
pub(super) struct Offer {
    pub(super) name: Option<TunnelName>,
    pub(super) methods: Vec<String>,
}

impl Offer {
    pub(super) fn encode<'a>(
        name: Option<&TunnelName>,
        methods: impl ExactSizeIterator<Item = &'a str>,
    ) -> Vec<u8> {
        let mut payload = Vec::new();
        put_features(&mut payload);
        put_bytes(&mut payload, name.map_or("", TunnelName::as_str).as_bytes());
        put_varint(&mut payload, methods.len() as u64);
        for method in methods {
            put_bytes(&mut payload, method.as_bytes());
        }
        payload
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(payload);
        skip_features(&mut reader)?;
        let name = match reader.text(Frame::MAX_PAYLOAD)? {
            "" => None,
            text => Some(text.parse().map_err(|error| Refusal::new(Code::NAME_INVALID, format!("{error}")))?),
        };
        let count = reader.varint()?;
        if !(1..=MAX_METHODS as u64).contains(&count) {
            return Err(DecodeError::Invalid("an offer has 1 to 16 methods").into());
        }
        let mut methods = Vec::new();
        for _ in 0..count {
            let method = read_method(&mut reader)?.to_owned();
            if methods.contains(&method) {
                return Err(DecodeError::Invalid("an offer with the same method twice").into());
            }
            methods.push(method);
        }
        Ok(Self { name, methods })
    }
}

pub(super) fn encode_select(method: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    put_features(&mut payload);
    put_bytes(&mut payload, method.as_bytes());
    payload
}

pub(super) fn decode_select(payload: &[u8]) -> Result<&str, DecodeError> {
    let mut reader = Reader::new(payload);
    skip_features(&mut reader)?;
    read_method(&mut reader)
}

/// The payload of OUTCOME before the proof.
///
/// # Errors
/// `internal`, if the application gave attributes that do not travel.
pub(super) fn encode_outcome(name: &TunnelName, attributes: &Attributes) -> Result<Vec<u8>, Refusal> {
    /// Left for the longest proof of any method to come.
    const ROOM_FOR_PROOF: usize = 256;
    let keys =
        attributes.len() <= MAX_ATTRIBUTES && attributes.keys().all(|key| (1..=MAX_KEY).contains(&key.len()));
    let mut payload = Vec::new();
    put_bytes(&mut payload, name.as_str().as_bytes());
    put_varint(&mut payload, attributes.len() as u64);
    for (key, value) in attributes {
        put_bytes(&mut payload, key.as_bytes());
        put_bytes(&mut payload, value.as_bytes());
    }
    if !keys || payload.len() > Frame::MAX_PAYLOAD - ROOM_FOR_PROOF {
        return Err(Refusal::new(Code::INTERNAL, "the attributes of the tunnel do not fit into the outcome"));
    }
    Ok(payload)
}

/// OUTCOME, cut where the proof begins.
pub(super) struct OutcomePayload<'a> {
    pub(super) name: TunnelName,
    pub(super) attributes: Attributes,
    pub(super) before_proof: &'a [u8],
    pub(super) proof: &'a [u8],
}

pub(super) fn decode_outcome(payload: &[u8]) -> Result<OutcomePayload<'_>, DecodeError> {
    let mut reader = Reader::new(payload);
    let name = reader.text(TunnelName::MAX_LEN)?;
    let name = name.parse().map_err(|_| DecodeError::Invalid("an outcome without a valid tunnel name"))?;
    let count = reader.varint()?;
    if count > MAX_ATTRIBUTES as u64 {
        return Err(DecodeError::Invalid("an outcome with more than 32 attributes"));
    }
    let mut attributes = Attributes::new();
    for _ in 0..count {
        let key = reader.text(MAX_KEY)?;
        let value = reader.text(Frame::MAX_PAYLOAD)?;
        if key.is_empty() || attributes.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(DecodeError::Invalid("an attribute without a key, or a key that stands twice"));
        }
    }
    let proof = reader.rest();
    let before_proof = payload.strip_suffix(proof).ok_or(DecodeError::Truncated)?;
    Ok(OutcomePayload { name, attributes, before_proof, proof })
}

fn put_features(out: &mut Vec<u8>) {
    put_varint(out, FEATURES.len() as u64);
    for feature in FEATURES {
        put_varint(out, *feature);
    }
}

/// Features of the peer that this version does not know mean nothing to it. The payload's end bounds them.
fn skip_features(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let count = reader.varint()?;
    (0..count).try_for_each(|_| reader.varint().map(drop))
}

fn read_method<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    match reader.text(MAX_METHOD_NAME)? {
        "" => Err(DecodeError::Invalid("a method without a name")),
        name => Ok(name),
    }
}
