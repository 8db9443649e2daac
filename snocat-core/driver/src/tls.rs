//! TLS as the protocol wants it: version 1.3, ALPN `snocat/1` alone, no resumption, no early data.
//!
//! A resumed session would skip the certificate check, and a withdrawn credential would not bite; the defaults of
//! rustls and quinn-proto are the opposite.

use std::fmt;
use std::sync::{Arc, Mutex};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, KeyLog, RootCertStore, SignatureScheme};
use snocat_core::ALPN;
use snocat_core::quic::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use snocat_core::quic::{ClientCrypto, ServerCrypto};

use crate::sync::lock;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate or the key is not usable, or they do not belong together.
    #[error("the certificate and its key are not usable: {0}")]
    Identity(#[source] rustls::Error),
    /// A certificate to trust is not usable.
    #[error("a certificate to trust is not usable: {0}")]
    Authority(#[source] rustls::Error),
    /// There is no certificate to trust.
    #[error("there is no certificate to trust")]
    NoAuthority,
    /// The cryptography provider lacks what QUIC needs.
    #[error("the cryptography provider lacks what QUIC needs: {0}")]
    Provider(String),
}

/// The TLS side of a server.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) crypto: Arc<dyn ServerCrypto>,
    chain: usize,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// A server that shows this certificate chain, its own certificate first.
    ///
    /// # Errors
    /// [`TlsError::Identity`] if the key does not belong to the certificate or cannot be used.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        key_log: Option<Arc<dyn KeyLog>>,
    ) -> Result<Self, TlsError> {
        let size = chain.iter().map(|certificate| certificate.len()).sum();
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Provider(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(TlsError::Identity)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        if let Some(key_log) = key_log {
            config.key_log = key_log;
        }
        let crypto =
            QuicServerConfig::try_from(config).map_err(|error| TlsError::Provider(error.to_string()))?;
        Ok(Self { crypto: Arc::new(crypto), chain: size })
    }

    /// The length of the certificate chain in bytes. Above about 3,000 the first flight does not fit into what
    /// an address may be sent before it is validated, and each connection takes one more round trip.
    pub fn chain_bytes(&self) -> usize {
        self.chain
    }
}

/// Whom a client trusts to speak for a server.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The authorities that this machine trusts.
    Platform,
    /// These alone: authorities, or the server's own certificate.
    Authorities(Vec<CertificateDer<'static>>),
}

/// What is wrong with a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// No trusted authority has signed it.
    Untrusted,
    /// It is for other names.
    WrongName,
    /// Its time is over.
    Expired,
    /// Its time has not begun.
    NotYetValid,
    /// It is that of an authority, not of a server: it has the CA bit.
    IsAuthority,
    /// Something else.
    Other(String),
}

/// The TLS side of a client.
#[derive(Clone)]
pub struct ClientTls {
    pub(crate) crypto: Arc<dyn ClientCrypto>,
    problem: Arc<Mutex<Option<CertificateProblem>>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTls {
    /// A client with this trust.
    ///
    /// # Errors
    /// If there is nothing to trust, or it is not usable.
    pub fn new(trust: Trust, key_log: Option<Arc<dyn KeyLog>>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        match trust {
            Trust::Platform => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
            Trust::Authorities(certificates) => {
                for certificate in certificates {
                    roots.add(certificate).map_err(TlsError::Authority)?;
                }
            }
        }
        if roots.is_empty() {
            return Err(TlsError::NoAuthority);
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| TlsError::Provider(error.to_string()))?;
        let problem = Arc::new(Mutex::new(None));
        let verifier = Arc::new(Verifier { inner, problem: problem.clone() });
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Provider(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_early_data = false;
        if let Some(key_log) = key_log {
            config.key_log = key_log;
        }
        let crypto =
            QuicClientConfig::try_from(config).map_err(|error| TlsError::Provider(error.to_string()))?;
        Ok(Self { crypto: Arc::new(crypto), problem })
    }

    /// What was wrong with the last certificate that was turned down.
    pub(crate) fn take_problem(&self) -> Option<CertificateProblem> {
        lock(&self.problem).take()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// webpki's verifier, unchanged but for the note of why it said no: TLS itself passes on an alert only.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    problem: Arc<Mutex<Option<CertificateProblem>>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .inspect_err(|error| *lock(&self.problem) = Some(problem(error)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn problem(error: &rustls::Error) -> CertificateProblem {
    use CertificateError as Error;
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            Error::UnknownIssuer | Error::BadSignature => CertificateProblem::Untrusted,
            Error::NotValidForName | Error::NotValidForNameContext { .. } => CertificateProblem::WrongName,
            Error::Expired | Error::ExpiredContext { .. } => CertificateProblem::Expired,
            Error::NotValidYet | Error::NotValidYetContext { .. } => CertificateProblem::NotYetValid,
            // webpki has a name for it that rustls does not pass on as a type.
            Error::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                CertificateProblem::IsAuthority
            }
            other => CertificateProblem::Other(other.to_string()),
        },
        other => CertificateProblem::Other(other.to_string()),
    }
}
