//! The handshake: the flights of TLS 1.3 and what QUIC needs of them, in the clear.
//!
//! | from | in | message |
//! | --- | --- | --- |
//! | connecting | Initial | HELLO: the names of its protocols, the server's name, transport parameters |
//! | listening | Initial | KEYS: 90 bytes, as long as a ServerHello |
//! | listening | Handshake | PROOF: the protocol, its name, transport parameters, a certificate's length of zeros |
//! | connecting | Handshake | FINISHED: a hash of all that was said |

use std::any::Any;

use ring::digest::{Context, SHA256};

use super::keys::{keys, packet_keys};
use crate::quic::crypto::rustls::HandshakeData;
use crate::quic::crypto::{ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode};

const HELLO: u8 = 1;
const KEYS: u8 = 2;
const PROOF: u8 = 8;
const FINISHED: u8 = 20;

const BAD_CERTIFICATE: u8 = 42;
const DECODE_ERROR: u8 = 50;
const DECRYPT_ERROR: u8 = 51;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// What a side brings along.
pub(super) struct Own {
    pub(super) connecting: bool,
    /// The protocols it speaks, in order.
    pub(super) protocols: Vec<Vec<u8>>,
    /// The listening side's name; to the connecting side the one it expects.
    pub(super) name: String,
    /// Length of the listening side's certificates.
    pub(super) certificate: usize,
    pub(super) parameters: Vec<u8>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    /// The connecting side has said nothing yet.
    Start,
    /// For a message of the peer.
    Waiting(u8),
    /// The listening side has got HELLO.
    Greeted,
    /// The listening side has sent KEYS.
    Proving,
    /// The connecting side has got KEYS.
    Keyed,
    /// The connecting side has got PROOF.
    Proven,
    Done,
}

pub(super) struct Plain {
    own: Own,
    state: State,
    incoming: Vec<u8>,
    transcript: Context,
    /// From the transcript up to PROOF; of the connection from then on.
    secret: [u8; 32],
    generation: u64,
    protocol: Option<Vec<u8>>,
    server_name: Option<String>,
    peer: Option<TransportParameters>,
    announced: bool,
}

impl Plain {
    pub(super) fn new(own: Own) -> Self {
        let state = if own.connecting { State::Start } else { State::Waiting(HELLO) };
        Self {
            own,
            state,
            incoming: Vec::new(),
            transcript: Context::new(&SHA256),
            secret: [0; 32],
            generation: 0,
            protocol: None,
            server_name: None,
            peer: None,
            announced: false,
        }
    }

    fn said(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        let message = [&[kind][..], length.get(1..).unwrap_or_default(), body].concat();
        self.transcript.update(&message);
        message
    }

    fn digest(&self) -> [u8; 32] {
        self.transcript.clone().finish().as_ref().first_chunk().copied().unwrap_or_default()
    }

    fn number(secret: &[u8; 32]) -> u64 {
        u64::from_le_bytes(secret.first_chunk().copied().unwrap_or_default())
    }

    fn peer_said(&mut self, kind: u8, body: &[u8]) -> Result<(), TransportError> {
        if self.state != State::Waiting(kind) {
            return Err(alert(DECODE_ERROR, "a message out of turn"));
        }
        let before = self.digest();
        let _again = self.said(kind, body);
        self.state = match kind {
            HELLO => self.greeted(body)?,
            KEYS => State::Keyed,
            PROOF => self.proven(body)?,
            _ if body == before => State::Done,
            _ => return Err(alert(DECRYPT_ERROR, "another transcript")),
        };
        Ok(())
    }

    fn greeted(&mut self, body: &[u8]) -> Result<State, TransportError> {
        let mut fields = Fields(body);
        let offered = fields.list()?;
        self.server_name = String::from_utf8(fields.field()?.to_vec()).ok();
        self.peer = Some(fields.parameters(Side::Server)?);
        self.protocol = self.own.protocols.iter().find(|own| offered.contains(own)).cloned();
        if self.protocol.is_none() && !offered.is_empty() && !self.own.protocols.is_empty() {
            return Err(alert(NO_APPLICATION_PROTOCOL, "no protocol in common"));
        }
        Ok(State::Greeted)
    }

    fn proven(&mut self, body: &[u8]) -> Result<State, TransportError> {
        let mut fields = Fields(body);
        self.protocol = fields.list()?.into_iter().next();
        if fields.field()? != self.own.name.as_bytes() {
            return Err(alert(BAD_CERTIFICATE, "the certificate is for another name"));
        }
        self.peer = Some(fields.parameters(Side::Client)?);
        self.secret = self.digest();
        Ok(State::Proven)
    }
}

impl Session for Plain {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        initial_keys(dst_cid, side == Side::Client)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let data = HandshakeData { protocol: self.protocol.clone(), server_name: self.server_name.clone() };
        self.announced.then(|| Box::new(data) as Box<dyn Any>)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        Some(false)
    }

    fn is_handshaking(&self) -> bool {
        !matches!(self.state, State::Done | State::Proven)
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.incoming.extend_from_slice(buf);
        while let Some((&[kind, a, b, c], rest)) = self.incoming.split_first_chunk() {
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            let Some((body, rest)) = rest.split_at_checked(length) else { break };
            let (body, rest) = (body.to_vec(), rest.to_vec());
            self.incoming = rest;
            self.peer_said(kind, &body)?;
        }
        let known = self.protocol.is_some() || self.server_name.is_some() || !self.is_handshaking();
        Ok(known && !std::mem::replace(&mut self.announced, known))
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        Ok(self.peer)
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let connecting = self.own.connecting;
        match self.state {
            State::Start => {
                let mut body = Vec::new();
                put_list(&mut body, &self.own.protocols);
                put(&mut body, self.own.name.as_bytes());
                put(&mut body, &self.own.parameters);
                buf.extend(self.said(HELLO, &body));
                self.state = State::Waiting(KEYS);
                None
            }
            State::Greeted => {
                buf.extend(self.said(KEYS, &[0; 86]));
                self.state = State::Proving;
                Some(keys(connecting, Self::number(&self.digest())))
            }
            State::Proving => {
                let mut body = Vec::new();
                put_list(&mut body, self.protocol.as_slice());
                put(&mut body, self.own.name.as_bytes());
                put(&mut body, &self.own.parameters);
                body.resize(body.len() + self.own.certificate, 0);
                buf.extend(self.said(PROOF, &body));
                self.secret = self.digest();
                self.state = State::Waiting(FINISHED);
                Some(keys(connecting, Self::number(&self.secret)))
            }
            State::Keyed => {
                self.state = State::Waiting(PROOF);
                Some(keys(connecting, Self::number(&self.digest())))
            }
            State::Proven => {
                let hash = self.digest();
                buf.extend(self.said(FINISHED, &hash));
                self.state = State::Done;
                Some(keys(connecting, Self::number(&self.secret)))
            }
            State::Waiting(_) | State::Done => None,
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.generation += 1;
        Some(packet_keys(self.own.connecting, Self::number(&self.secret).wrapping_add(self.generation << 1)))
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some((token, tag)) = payload.split_last_chunk() else { return false };
        *tag == retry_tag(orig_dst_cid, &[header, token].concat())
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        for (number, piece) in output.chunks_mut(32).enumerate() {
            let mut hash = Context::new(&SHA256);
            hash.update(&self.secret);
            for part in [label, context, &number.to_le_bytes()] {
                hash.update(&part.len().to_le_bytes());
                hash.update(part);
            }
            piece.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }
}

/// The keys of a connection's first packets, of the side that this is.
pub(super) fn initial_keys(dst_cid: &ConnectionId, connecting: bool) -> Keys {
    let hash = ring::digest::digest(&SHA256, dst_cid);
    keys(connecting, Plain::number(&hash.as_ref().first_chunk().copied().unwrap_or_default()))
}

/// What shows that a Retry answers this very Initial.
pub(super) fn retry_tag(orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
    let mut hash = Context::new(&SHA256);
    hash.update(orig_dst_cid);
    hash.update(packet);
    hash.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

fn alert(alert: u8, reason: &str) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(alert), frame: None, reason: reason.to_owned() }
}

fn put(out: &mut Vec<u8>, field: &[u8]) {
    out.extend(u16::try_from(field.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(field);
}

fn put_list(out: &mut Vec<u8>, fields: &[Vec<u8>]) {
    let mut list = Vec::new();
    fields.iter().for_each(|field| put(&mut list, field));
    put(out, &list);
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<&'a [u8], TransportError> {
        let (length, rest) = self.0.split_first_chunk().ok_or_else(truncated)?;
        let (field, rest) =
            rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or_else(truncated)?;
        self.0 = rest;
        Ok(field)
    }

    fn list(&mut self) -> Result<Vec<Vec<u8>>, TransportError> {
        let mut fields = Self(self.field()?);
        let mut list = Vec::new();
        while !fields.0.is_empty() {
            list.push(fields.field()?.to_vec());
        }
        Ok(list)
    }

    fn parameters(&mut self, side: Side) -> Result<TransportParameters, TransportError> {
        TransportParameters::read(side, &mut self.field()?).map_err(TransportError::from)
    }
}

fn truncated() -> TransportError {
    alert(DECODE_ERROR, "a field is cut off")
}
