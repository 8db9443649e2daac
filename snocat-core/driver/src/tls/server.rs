//! The TLS side of a server. What it shows can be replaced while it runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, KeyLog, PeerIncompatible, SignatureScheme,
};
use snocat_core::ALPN;
use snocat_core::quic::ServerCrypto;
use snocat_core::quic::crypto::rustls::QuicServerConfig;

use super::{MAX_CHAIN, MAX_CHAIN_BYTES, Shown, TlsError, Validity, bytes, certified, provider};

/// The TLS side of a server. A handle: clones are the same, and what is changed holds from the next connection on, in
/// a server that runs, too. Connections that are there are not touched.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) crypto: Arc<dyn ServerCrypto>,
    pub(super) shown: Arc<Shown>,
    clients: Arc<KeyHolders>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("shown", &self.shown)
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

impl ServerTls {
    /// A server that shows this certificate chain, its own certificate first, and asks for none.
    ///
    /// # Errors
    /// [`TlsError::Identity`] if the key does not belong to the certificate or cannot be used.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        key_log: Option<Arc<dyn KeyLog>>,
    ) -> Result<Self, TlsError> {
        let shown = Arc::new(Shown::default());
        shown.replace(certified(chain, key)?);
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let clients = Arc::new(KeyHolders { asked: AtomicBool::new(false), algorithms });
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Provider(error.to_string()))?
            .with_client_cert_verifier(clients.clone())
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        if let Some(key_log) = key_log {
            config.key_log = key_log;
        }
        let crypto =
            QuicServerConfig::try_from(config).map_err(|error| TlsError::Provider(error.to_string()))?;
        Ok(Self { crypto: Arc::new(crypto), shown, clients })
    }

    /// Shows this certificate chain from the next connection on.
    ///
    /// # Errors
    /// [`TlsError::Identity`] as for [`new`](Self::new). Nothing has changed then.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), TlsError> {
        self.shown.replace(certified(chain, key)?);
        Ok(())
    }

    /// Whether clients are asked for a certificate from the next connection on. None has to show one, and TLS lets
    /// everyone in who holds the key to the one it shows: whose it is says the method `tls-client-cert`
    /// ([`ClientCertificates`](snocat_core::auth::ClientCertificates)), where a refusal looks like any other, and a
    /// client may have something else to get in with.
    pub fn ask_for_certificates(&self, ask: bool) {
        self.clients.asked.store(ask, Ordering::Relaxed);
    }

    /// While all certificates of the chain are valid; `None` if one cannot be read.
    pub fn validity(&self) -> Option<Validity> {
        let shown = self.shown.get()?;
        let mut each = shown.cert.iter().map(Validity::of);
        let first = each.next()??;
        each.try_fold(first, |all, one| Some(all.and(one?)))
    }

    /// The length of the certificate chain in bytes. Above about 3,000 the first flight does not fit into what
    /// an address may be sent before it is validated, and each connection takes one more round trip.
    pub fn chain_bytes(&self) -> usize {
        self.shown.get().map_or(0, |shown| bytes(&shown.cert))
    }
}

/// Whoever holds the key to the certificate that it shows, and whoever shows none.
struct KeyHolders {
    asked: AtomicBool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for KeyHolders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHolders").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for KeyHolders {
    fn offer_client_auth(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: a stranger need not learn which authorities are accepted.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let bytes = end_entity.len() + bytes(intermediates);
        if intermediates.len() >= MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
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
