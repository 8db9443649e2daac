//! The TLS side of a client: whom it trusts, and what it shows to who asks.

use std::fmt;
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
    WrongName,
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
    pub(crate) crypto: Arc<dyn ClientCrypto>,
    pub(super) shown: Arc<Shown>,
    problem: Arc<Mutex<Option<CertificateProblem>>>,
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
        let problem = Arc::new(Mutex::new(None));
        let verifier = Arc::new(Verifier {
            accepted: Accepted::new(trust)?,
            algorithms: provider().signature_verification_algorithms,
            problem: problem.clone(),
        });
        let shown = Arc::new(Shown::default());
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Provider(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(shown.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_early_data = false;
        if let Some(key_log) = key_log {
            config.key_log = key_log;
        }
        let crypto =
            QuicClientConfig::try_from(config).map_err(|error| TlsError::Provider(error.to_string()))?;
        Ok(Self { crypto: Arc::new(crypto), shown, problem })
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

    /// What was wrong with the last certificate that was turned down.
    pub(crate) fn take_problem(&self) -> Option<CertificateProblem> {
        lock(&self.problem).take()
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
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(TlsError::NoAuthority);
                }
                (roots, Exactly::default())
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
    accepted: Accepted,
    algorithms: WebPkiSupportedAlgorithms,
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
        let verified = match &self.accepted {
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

fn problem(error: &rustls::Error) -> CertificateProblem {
    use CertificateError as Error;
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            Error::UnknownIssuer | Error::BadSignature => CertificateProblem::Untrusted,
            Error::NotValidForName | Error::NotValidForNameContext { .. } => CertificateProblem::WrongName,
            Error::Expired | Error::ExpiredContext { .. } => CertificateProblem::Expired,
            Error::NotValidYet | Error::NotValidYetContext { .. } => CertificateProblem::NotYetValid,
            other if is_authority(other) => CertificateProblem::IsAuthority,
            other => CertificateProblem::Other(other.to_string()),
        },
        other => CertificateProblem::Other(other.to_string()),
    }
}
