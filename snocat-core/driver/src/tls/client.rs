//! The TLS side of a client: whom it trusts, and what it shows to who asks.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, KeyLog, PeerIncompatible, RootCertStore, SignatureScheme,
};
use snocat_core::ALPN;
use snocat_core::quic::ClientCrypto;
use snocat_core::quic::crypto::rustls::QuicClientConfig;

use super::trusted::{Exactly, Trusted};
use super::{MAX_CHAIN, MAX_CHAIN_BYTES, Shown, TlsError, bytes, certified, is_authority, provider};
use crate::sync::lock;

/// Whom a client trusts to speak for a server.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The authorities that this machine trusts.
    Platform,
    /// These alone: authorities, and certificates of servers. A certificate without the CA bit is trusted exactly as it is, for
    /// its names and dates, and vouches for no other.
    Authorities(Vec<CertificateDer<'static>>),
    /// The holder of the certificate with this SHA-256 of its DER, whatever name, time and issuer it has.
    Pinned([u8; 32]),
}

/// What is wrong with a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// No trusted authority has signed it.
    Untrusted,
    /// It is for other names.
    WrongName {
        /// The DNS names and IP addresses that it is for. The server chose them: escape them before you show them.
        names: Vec<String>,
    },
    /// Its time is over.
    Expired,
    /// Its time has not begun.
    NotYetValid,
    /// It is that of an authority, not of a server: it has the CA bit.
    IsAuthority,
    /// It is not the one of [`Trust::Pinned`].
    NotPinned {
        /// The SHA-256 of the one that was shown.
        fingerprint: [u8; 32],
    },
    /// Something else.
    Other(String),
}

/// The TLS side of a client.
#[derive(Clone)]
pub struct ClientTls {
    /// Each connection takes a copy, with a verifier of its own.
    config: rustls::ClientConfig,
    accepted: Arc<Accepted>,
    pub(super) shown: Arc<Shown>,
}

/// TLS for one connection, and why its server's certificate was turned down.
#[derive(Clone)]
pub(crate) struct TlsAttempt {
    pub(crate) crypto: Arc<dyn ClientCrypto>,
    problem: Arc<Mutex<Option<CertificateProblem>>>,
}

impl TlsAttempt {
    /// What was wrong with the server's certificate, if that was turned down.
    pub(crate) fn problem(&self) -> Option<CertificateProblem> {
        lock(&self.problem).clone()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// A client with this trust, and no certificate of its own.
    ///
    /// # Errors
    /// If there is nothing to trust, or it is not usable.
    pub fn new(trust: Trust, key_log: Option<Arc<dyn KeyLog>>) -> Result<Self, TlsError> {
        let accepted = Arc::new(Accepted::new(trust)?);
        let shown = Arc::new(Shown::default());
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Provider(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(accepted.clone())))
            .with_client_cert_resolver(shown.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_early_data = false;
        if let Some(key_log) = key_log {
            config.key_log = key_log;
        }
        let tls = Self { config, accepted, shown };
        // What no connection could begin with is better found now.
        tls.attempt()?;
        Ok(tls)
    }

    /// TLS for one connection. Its verifier is its own, so that what that finds wrong is this connection's problem, however
    /// many are under way.
    pub(crate) fn attempt(&self) -> Result<TlsAttempt, TlsError> {
        let verifier = Arc::new(Verifier::new(self.accepted.clone()));
        let problem = verifier.problem.clone();
        let mut config = self.config.clone();
        config.dangerous().set_certificate_verifier(verifier);
        let crypto =
            QuicClientConfig::try_from(config).map_err(|error| TlsError::Provider(error.to_string()))?;
        Ok(TlsAttempt { crypto: Arc::new(crypto), problem })
    }

    /// Shows this certificate chain, its own certificate first, to servers that ask for one, from the next connection
    /// on, in clones, too. It gets nobody in without the method `tls-client-cert`
    /// ([`ClientCertificate`](snocat_core::auth::ClientCertificate)).
    ///
    /// # Errors
    /// [`TlsError::Identity`] if the key does not belong to the certificate or cannot be used, and
    /// [`TlsError::LongChain`] if no server would take it. Nothing has changed then.
    pub fn show(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), TlsError> {
        let (certificates, bytes) = (chain.len(), bytes(&chain));
        if certificates > MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
            return Err(TlsError::LongChain { certificates, bytes });
        }
        self.shown.replace(certified(chain, key)?);
        Ok(())
    }
}

/// Which certificates are taken.
#[derive(Debug)]
enum Accepted {
    /// Those that an authority has issued, and those that are listed.
    Trusted {
        issued: Option<Arc<WebPkiServerVerifier>>,
        exactly: Exactly,
    },
    Pinned([u8; 32]),
}

impl Accepted {
    fn new(trust: Trust) -> Result<Self, TlsError> {
        let (authorities, exactly) = match trust {
            Trust::Platform => {
                let mut certificates = rustls_native_certs::load_native_certs().certs;
                // Some may be of kinds that are not understood.
                certificates.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
                let trusted = Trusted::new(certificates)?;
                (trusted.authorities, trusted.exactly)
            }
            Trust::Authorities(certificates) => {
                let trusted = Trusted::new(certificates)?;
                (trusted.authorities, trusted.exactly)
            }
            Trust::Pinned(fingerprint) => return Ok(Self::Pinned(fingerprint)),
        };
        let issued = (!authorities.is_empty())
            .then(|| WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider()).build())
            .transpose()
            .map_err(|error| TlsError::Provider(error.to_string()))?;
        Ok(Self::Trusted { issued, exactly })
    }
}

/// Takes a note of why it says no: TLS itself passes on an alert only.
#[derive(Debug)]
struct Verifier {
    accepted: Arc<Accepted>,
    algorithms: WebPkiSupportedAlgorithms,
    problem: Arc<Mutex<Option<CertificateProblem>>>,
}

impl Verifier {
    fn new(accepted: Arc<Accepted>) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { accepted, algorithms, problem: Arc::default() }
    }
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
        let verified = match self.accepted.as_ref() {
            Accepted::Trusted { exactly, .. } if exactly.contains(end_entity) => exactly
                .verify_server(end_entity, server_name, now, &self.algorithms)
                .map(|()| ServerCertVerified::assertion())
                .map_err(|error| (problem(&error), error)),
            Accepted::Trusted { issued: Some(issued), .. } => issued
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map_err(|error| (problem(&error), error)),
            Accepted::Trusted { issued: None, .. } => {
                Err((CertificateProblem::Untrusted, CertificateError::UnknownIssuer.into()))
            }
            Accepted::Pinned(pin) => pinned(pin, end_entity),
        };
        verified.map_err(|(problem, error)| {
            *lock(&self.problem) = Some(problem);
            error
        })
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// That the server holds the key to the certificate is verified apart from this, as of any other.
fn pinned(
    pin: &[u8; 32],
    certificate: &CertificateDer<'_>,
) -> Result<ServerCertVerified, (CertificateProblem, rustls::Error)> {
    let shown = digest(&SHA256, certificate);
    if shown.as_ref() == pin {
        return Ok(ServerCertVerified::assertion());
    }
    let mut fingerprint = [0; 32];
    fingerprint.iter_mut().zip(shown.as_ref()).for_each(|(to, from)| *to = *from);
    let error = CertificateError::ApplicationVerificationFailure;
    Err((CertificateProblem::NotPinned { fingerprint }, error.into()))
}

/// The DNS name or IP address in what webpki shows of a certificate's names: `DnsName("example.org")`,
/// `IpAddress(192.0.2.1)`.
fn presented_name(shown: &str) -> Option<String> {
    let inside = |kind: &str| shown.strip_prefix(kind)?.strip_suffix(')');
    // webpki writes addresses in a form of its own: `0::1`.
    let address =
        |shown: &str| shown.parse::<IpAddr>().map_or_else(|_| shown.to_owned(), |ip| ip.to_string());
    let dns = inside("DnsName(").map(|name| name.trim_matches('"').to_owned());
    dns.or_else(|| inside("IpAddress(").map(address))
}

fn problem(error: &rustls::Error) -> CertificateProblem {
    use CertificateError as Error;
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            Error::UnknownIssuer | Error::BadSignature => CertificateProblem::Untrusted,
            Error::NotValidForName => CertificateProblem::WrongName { names: Vec::new() },
            Error::NotValidForNameContext { presented, .. } => CertificateProblem::WrongName {
                names: presented.iter().filter_map(|name| presented_name(name)).collect(),
            },
            Error::Expired | Error::ExpiredContext { .. } => CertificateProblem::Expired,
            Error::NotValidYet | Error::NotValidYetContext { .. } => CertificateProblem::NotYetValid,
            other if is_authority(other) => CertificateProblem::IsAuthority,
            other => CertificateProblem::Other(other.to_string()),
        },
        other => CertificateProblem::Other(other.to_string()),
    }
}
