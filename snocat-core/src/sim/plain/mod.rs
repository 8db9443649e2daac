//! TLS without its cryptography: the same flights of about the same lengths, and nothing protected.
//!
//! With it the same seed gives the same bytes, and a simulation runs several times faster. It checks what can
//! be checked without secrets: flipped bits (by a checksum in place of the tag), the name of the listening side
//! (as a certificate would), and the protocol. **It protects nothing**: it exists with the feature `sim` alone,
//! and belongs into tests.

mod keys;
mod session;

use std::sync::Arc;

use ring::{hkdf, hmac};

use self::session::{Own, Plain, initial_keys, retry_tag};
use super::network::Clock;
use super::rng::Rng;
use crate::auth::{ConnectingConfig, ListeningConfig};
use crate::quic::crypto::{ClientConfig, Keys, ServerConfig, Session, UnsupportedVersion};
use crate::{ALPN, CongestionControl, ConnectConfig, EndpointConfig, Limits, ListenConfig};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId};

/// The name of a listening side that [`listening`] makes.
pub const NAME: &str = "server";

/// The connecting side's part.
#[derive(Clone, Debug)]
pub struct PlainClient {
    /// The protocols it offers.
    pub protocols: Vec<Vec<u8>>,
}

/// The listening side's part.
#[derive(Clone, Debug)]
pub struct PlainServer {
    /// The protocols it speaks, the preferred ones first.
    pub protocols: Vec<Vec<u8>>,
    /// What stands in its certificate.
    pub name: String,
    /// How many bytes its certificates have.
    pub certificate: usize,
}

impl Default for PlainClient {
    fn default() -> Self {
        Self { protocols: vec![ALPN.to_vec()] }
    }
}

impl Default for PlainServer {
    fn default() -> Self {
        Self { protocols: vec![ALPN.to_vec()], name: NAME.to_owned(), certificate: 700 }
    }
}

impl ClientConfig for PlainClient {
    fn start_session(
        self: Arc<Self>,
        _: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let (protocols, name) = (self.protocols.clone(), server_name.to_owned());
        let own = Own { connecting: true, protocols, name, certificate: 0, parameters: written(params) };
        Ok(Box::new(Plain::new(own)))
    }
}

impl ServerConfig for PlainServer {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        match version {
            1 | 0xff00_001d..=0xff00_0022 => Ok(initial_keys(dst_cid, false)),
            _ => Err(UnsupportedVersion),
        }
    }

    fn retry_tag(&self, _: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        retry_tag(orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, _: u32, params: &TransportParameters) -> Box<dyn Session> {
        Box::new(Plain::new(Own {
            connecting: false,
            protocols: self.protocols.clone(),
            name: self.name.clone(),
            certificate: self.certificate,
            parameters: written(params),
        }))
    }
}

fn written(params: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    params.write(&mut bytes);
    bytes
}

/// A node that only connects.
pub fn connecting(seed: u64) -> EndpointConfig {
    let mut rng = Rng::new(seed);
    EndpointConfig {
        seed: rng.bytes(),
        reset_key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &rng.bytes())),
        limits: Limits::default(),
        congestion: CongestionControl::default(),
        allow_mtud: true,
        datagram_limit: Arc::new(|_| None),
        listen: None,
    }
}

/// A node that listens, too, under the name [`NAME`].
pub fn listening(seed: u64, authentication: ListeningConfig, clock: &Clock) -> EndpointConfig {
    let config = connecting(seed);
    let key = Rng::new(!seed).bytes();
    let listen = ListenConfig {
        crypto: Arc::new(PlainServer::default()),
        token_key: Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&key)),
        time_source: Arc::new(clock.clone()),
        authentication,
    };
    EndpointConfig { listen: Some(listen), ..config }
}

/// What a node connects with.
pub fn connect(authentication: ConnectingConfig) -> ConnectConfig {
    ConnectConfig { crypto: Arc::new(PlainClient::default()), authentication, hold: false }
}
