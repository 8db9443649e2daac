//! TLS as the protocol wants it: version 1.3, ALPN `snocat/1` alone, no resumption, no early data.
//!
//! A resumed session would skip the certificate check, and a withdrawn credential would not bite; the defaults of
//! rustls and quinn-proto are the opposite.
//!
//! The two sides stand in `server` and `client`; `trusted` has what either trusts; `authorities` says whose a client's
//! certificate is.

mod authorities;
mod client;
mod server;
#[cfg(test)]
mod tests;
mod trusted;
mod validity;
mod verdicts;

use std::fmt;
use std::sync::{Arc, Mutex};

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, CipherSuite};

pub use authorities::ClientAuthorities;
pub(crate) use client::TlsAttempt;
pub use client::{CertificateProblem, ClientTls, Trust};
pub use server::ServerTls;
pub use validity::Validity;

use crate::sync::lock;

/// The most certificates that a server takes from a client.
const MAX_CHAIN: usize = 10;
/// The most bytes that they may have together. In whatever order the datagrams with them arrive, quinn-proto keeps
/// 16 KiB of a handshake.
const MAX_CHAIN_BYTES: usize = 12 * 1024;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate or the key is not usable, or they do not belong together.
    #[error("the certificate and its key are not usable: {0}")]
    Identity(#[source] rustls::Error),
    /// No server would take so long a chain of certificates from a client.
    #[error(
        "the certificate chain is too long: a server takes {MAX_CHAIN} certificates of {MAX_CHAIN_BYTES} bytes \
         in all, these are {certificates} of {bytes} bytes"
    )]
    LongChain {
        /// How many there are.
        certificates: usize,
        /// How many bytes they have together.
        bytes: usize,
    },
    /// A certificate to trust is not usable.
    #[error("a certificate to trust is not usable: {0}")]
    Authority(#[source] rustls::Error),
    /// There is no certificate to trust.
    #[error("there is no certificate to trust")]
    NoAuthority,
    /// A list of revoked certificates is not usable.
    #[error("a revocation list is not usable: {0}")]
    RevocationList(#[source] rustls::Error),
    /// Two revocation lists speak of the same certificates.
    #[error("there are two revocation lists of one issuer")]
    TwoLists,
    /// The cryptography provider lacks what QUIC needs.
    #[error("the cryptography provider lacks what QUIC needs: {0}")]
    Provider(String),
}

/// ring's, with AES of 128 bits before that of 256: all bytes go through it, and ten rounds take less time than fourteen.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// The certificates and the key that a side shows. A handshake takes what is there when it comes to it.
#[derive(Default)]
struct Shown(Mutex<Option<Arc<CertifiedKey>>>);

impl Shown {
    fn replace(&self, key: CertifiedKey) {
        let before = lock(&self.0).replace(Arc::new(key));
        drop(before);
    }

    fn get(&self) -> Option<Arc<CertifiedKey>> {
        lock(&self.0).clone()
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificates = self.get().map_or(0, |shown| shown.cert.len());
        f.debug_struct("Shown").field("certificates", &certificates).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.get()
    }

    fn has_certs(&self) -> bool {
        self.get().is_some()
    }
}

/// A chain, its own certificate first, and the key to it.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Identity)
}

fn bytes<'a, 'b: 'a>(chain: impl IntoIterator<Item = &'a CertificateDer<'b>>) -> usize {
    chain.into_iter().map(|certificate| certificate.len()).sum()
}

/// Whether a certificate that was to be a client's or a server's has the CA bit. webpki has a name for it that rustls
/// does not pass on as a type.
fn is_authority(error: &CertificateError) -> bool {
    let CertificateError::Other(error) = error else { return false };
    matches!(error.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}
