//! The two levels of a run: plain TLS, with which the same seed gives the same bytes, and real TLS, with which
//! it gives the same schedule.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use snocat_core::ALPN;
use snocat_core::quic::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use snocat_core::quic::{ClientCrypto, ServerCrypto};
use snocat_core::sim::plain::{NAME, PlainClient, PlainServer};

/// How the nodes of a run encrypt.
#[derive(Clone)]
pub enum Crypto {
    /// Not at all.
    Plain,
    /// As in production.
    Tls {
        /// The server's certificate.
        certificate: CertificateDer<'static>,
        /// Its key, in PKCS #8.
        key: Vec<u8>,
    },
}

impl Crypto {
    /// Real TLS with a new certificate. Its key is Ed25519: signatures of one length.
    pub fn tls() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        parameters.serial_number = Some(rcgen::SerialNumber::from(vec![1; 16]));
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        Self::Tls { certificate, key: key.serialize_der() }
    }

    /// The server's part. A long chain is longer than what may be sent to an address before it is validated.
    pub(super) fn server(&self, long_chain: bool) -> Arc<dyn ServerCrypto> {
        match self {
            Self::Plain => {
                let certificate = if long_chain { 5000 } else { 700 };
                Arc::new(PlainServer { certificate, ..PlainServer::default() })
            }
            Self::Tls { certificate, key } => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.clone()));
                let chain = vec![certificate.clone(); if long_chain { 16 } else { 1 }];
                let builder = rustls::ServerConfig::builder_with_details(provider(), Arc::new(Noon));
                let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
                let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
                config.alpn_protocols = vec![ALPN.to_vec()];
                config.send_tls13_tickets = 0;
                Arc::new(QuicServerConfig::try_from(config).unwrap())
            }
        }
    }

    /// The clients' part.
    pub(super) fn client(&self) -> Arc<dyn ClientCrypto> {
        match self {
            Self::Plain => Arc::new(PlainClient::default()),
            Self::Tls { certificate, .. } => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(certificate.clone()).unwrap();
                let builder = rustls::ClientConfig::builder_with_details(provider(), Arc::new(Noon));
                let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
                let mut config = builder.with_root_certificates(roots).with_no_client_auth();
                config.alpn_protocols = vec![ALPN.to_vec()];
                config.resumption = rustls::client::Resumption::disabled();
                Arc::new(QuicClientConfig::try_from(config).unwrap())
            }
        }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// It is always noon of one day.
#[derive(Debug)]
struct Noon;

impl TimeProvider for Noon {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000)))
    }
}
