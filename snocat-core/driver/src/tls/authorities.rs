//! Whose a client's certificate is: the method `tls-client-cert` asks, not TLS.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, DnsName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{CertRevocationListError, CertificateError, RootCertStore};
use snocat_core::Escaped;
use snocat_core::auth::{CertificateJudge, Grant, Proven};
use webpki::{BorrowedCertRevocationList, CertRevocationList, EndEntityCert};

use super::trusted::{Exactly, Trusted, ignore_the_issuer};
use super::verdicts::Verdicts;
use super::{TlsError, is_authority, provider};

/// The most bytes of a URI that is an identity. DNS names are never longer.
const MAX_URI: usize = 255;

/// Accepts the certificates for clients that these authorities have issued, as long as they are valid. A certificate without
/// the CA bit is no authority: given as one, it is accepted itself, and vouches for no other.
///
/// The identity is the first DNS name among the alternative names of the certificate, in lower case; without one, the
/// first URI. What stands in the subject is none, nor is a wildcard. It is granted what [`Grant::to`] says.
///
/// Accepted is what webpki accepts (RFC 5280): no CA bit in the client's own certificate, name constraints, and, if
/// there are extended key usages, that for clients among them. What was accepted once is not verified again until one of
/// its certificates expires: a newer revocation list is for new `ClientAuthorities`.
pub struct ClientAuthorities {
    issued: Option<Arc<dyn ClientCertVerifier>>,
    exactly: Exactly,
    /// Those among them that a revocation list names.
    revoked: Exactly,
    /// Checks the dates and purposes of those that are accepted exactly.
    listed: Option<Arc<dyn ClientCertVerifier>>,
    clock: Arc<dyn TimeProvider>,
    verdicts: Verdicts,
}

impl fmt::Debug for ClientAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuthorities").finish_non_exhaustive()
    }
}

impl ClientAuthorities {
    /// What these authorities have issued and not revoked.
    ///
    /// If there are revocation lists at all, there must be one of each issuer, up to the authority: a certificate that
    /// no list speaks of is not accepted. Two of one issuer (and for the same of its certificates) are an error: only the
    /// first would count, and a newer one behind it would revoke nothing. A list counts for as long as it is given,
    /// whatever it says about its next update: a list that nobody renews must not end every tunnel at once.
    ///
    /// # Errors
    /// [`TlsError::Authority`], [`TlsError::NoAuthority`], [`TlsError::RevocationList`], [`TlsError::TwoLists`].
    pub fn new(
        authorities: Vec<CertificateDer<'static>>,
        revocation_lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, TlsError> {
        let Trusted { authorities, exactly } = Trusted::new(authorities)?;
        let mut scopes = BTreeSet::new();
        let mut lists = Vec::new();
        for der in &revocation_lists {
            let list = BorrowedCertRevocationList::from_der(der).map_err(|_| damaged_list())?;
            let list = CertRevocationList::from(list);
            let scope = (list.issuer().to_vec(), list.issuing_distribution_point().map(<[u8]>::to_vec));
            if !scopes.insert(scope) {
                return Err(TlsError::TwoLists);
            }
            lists.push(list);
        }
        let revoked = exactly.revoked_by(&lists).map_err(|_| damaged_list())?;
        let listed = verifier(exactly.as_anchors()?, Vec::new())?;
        let issued = verifier(authorities, revocation_lists)?;
        Ok(Self {
            issued,
            exactly,
            revoked,
            listed,
            clock: Arc::new(DefaultTimeProvider),
            verdicts: Verdicts::default(),
        })
    }

    /// With a clock that is not the system's.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn TimeProvider>) -> Self {
        Self { clock, ..self }
    }
}

impl ClientAuthorities {
    fn verify(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let check = |verifier: &Option<Arc<dyn ClientCertVerifier>>, intermediates| match verifier {
            Some(verifier) => verifier.verify_client_cert(own, intermediates, now).map(drop),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        // What a client sends besides its own certificate must not decide whether that is held against the lists.
        if self.revoked.contains(own) {
            Err(CertificateError::Revoked.into())
        } else if self.exactly.contains(own) {
            ignore_the_issuer(check(&self.listed, &[]))
        } else {
            check(&self.issued, intermediates)
        }
    }
}

fn damaged_list() -> TlsError {
    TlsError::RevocationList(CertRevocationListError::ParseError.into())
}

/// Accepts what these authorities have issued and not revoked. `None` without authorities.
fn verifier(
    authorities: RootCertStore,
    revocation_lists: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    if authorities.is_empty() {
        return Ok(None);
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider())
        .with_crls(revocation_lists)
        .build()
        .map_err(|error| match error {
            VerifierBuilderError::NoRootAnchors => TlsError::NoAuthority,
            VerifierBuilderError::InvalidCrl(error) => TlsError::RevocationList(error.into()),
            other => TlsError::Provider(other.to_string()),
        })?;
    Ok(Some(verifier))
}

impl CertificateJudge for ClientAuthorities {
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<Proven, String> {
        let Some((own, intermediates)) = chain.split_first() else {
            return Err("there is no certificate".to_owned());
        };
        let now = self.clock.current_time().ok_or("what time it is, is not known")?;
        if let Some(proven) = self.verdicts.get(chain, now.as_secs()) {
            return Ok(proven);
        }
        let parsed = EndEntityCert::try_from(own).map_err(|_| "the certificate cannot be read")?;
        let name = name(&parsed);
        self.verify(own, intermediates, now).map_err(|error| {
            let name = name.as_deref().unwrap_or("without a name");
            // That is what it calls itself. For the log, no more.
            format!("{} ({})", reason(&error), Escaped(name))
        })?;
        let identity = name.ok_or("the certificate carries no name")?;
        let grant = Grant::to(&identity);
        let proven = Proven::new(identity, grant);
        self.verdicts.put(chain, now.as_secs(), &proven);
        Ok(proven)
    }
}

/// The name that is the identity.
fn name(certificate: &webpki::Cert<'_>) -> Option<String> {
    // Wildcards are among those that webpki finds, but no names to rustls. A dot at the end makes no other name.
    let hosts = certificate.valid_dns_names().filter(|name| DnsName::try_from(*name).is_ok());
    let hosts = hosts.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    let uris = certificate.valid_uri_names().filter(|uri| is_uri(uri)).map(str::to_owned);
    hosts.chain(uris).next()
}

/// Whether it begins with a scheme, as each URI in a certificate must (RFC 5280, 4.2.1.6): without one it could pass
/// for a DNS name, about which an authority may have less to say.
fn is_uri(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && text.len() <= MAX_URI
}

fn reason(error: &rustls::Error) -> String {
    known(error).map_or_else(
        || format!("the certificate is not acceptable: {}", Escaped(&error.to_string())),
        str::to_owned,
    )
}

fn known(error: &rustls::Error) -> Option<&'static str> {
    use CertificateError as Error;
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    Some(match error {
        Error::UnknownIssuer | Error::BadSignature => {
            "no authority that is accepted here has issued the certificate"
        }
        Error::Expired | Error::ExpiredContext { .. } => "the certificate has expired",
        Error::NotValidYet | Error::NotValidYetContext { .. } => "the certificate is not valid yet",
        Error::Revoked => "the certificate was revoked",
        Error::UnknownRevocationStatus => {
            "no revocation list speaks of the certificate or of an issuer of it"
        }
        Error::InvalidPurpose | Error::InvalidPurposeContext { .. } => {
            "the certificate is not one for clients"
        }
        other if is_authority(other) => "the certificate is that of an authority, not of a client",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use rustls::client::danger::HandshakeSignatureValid;
    use rustls::pki_types::UnixTime;
    use rustls::server::danger::ClientCertVerified;
    use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts how often a chain is verified.
    #[derive(Debug)]
    struct Counting(Arc<dyn ClientCertVerifier>, Arc<AtomicUsize>);

    impl ClientCertVerifier for Counting {
        fn root_hint_subjects(&self) -> &[DistinguishedName] {
            self.0.root_hint_subjects()
        }

        fn verify_client_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            now: UnixTime,
        ) -> Result<ClientCertVerified, Error> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.verify_client_cert(end_entity, intermediates, now)
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }

    #[test]
    fn the_signatures_of_a_chain_are_not_checked_again_at_each_review() {
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = authority.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(authority, key);
        let mut client = CertificateParams::new(["alice".to_owned()]).unwrap();
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let alice = client.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone();

        let mut authorities = ClientAuthorities::new(vec![root], Vec::new()).unwrap();
        let verified = Arc::new(AtomicUsize::new(0));
        let inner = authorities.issued.clone().unwrap();
        authorities.issued = Some(Arc::new(Counting(inner, verified.clone())));
        let first = authorities.judge(std::slice::from_ref(&alice)).unwrap();
        for _ in 0..3 {
            assert_eq!(authorities.judge(std::slice::from_ref(&alice)).unwrap(), first);
        }
        assert_eq!(verified.load(Ordering::Relaxed), 1);
        // What was refused is asked anew: it may become valid.
        for _ in 0..2 {
            authorities.judge(&[CertificateDer::from(alice[..alice.len() - 1].to_vec())]).unwrap_err();
        }
        assert_eq!(verified.load(Ordering::Relaxed), 1, "what cannot be read is not verified");
    }
}
