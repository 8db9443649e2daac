//! Certificates to trust, of either side: authorities, which vouch for others, and certificates that stand for themselves.
//!
//! webpki takes every trust anchor for an authority, whatever its certificate says. Whoever holds the key of a server could
//! then issue certificates for other keys, and for longer. So a certificate without the CA bit is never an anchor: it is
//! trusted exactly as it is, for its own names and dates.

use std::time::UNIX_EPOCH;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use webpki::{CertRevocationList, EndEntityCert};

use super::{TlsError, Validity, is_authority, provider};

/// Certificates, apart by what they may vouch for.
#[derive(Debug)]
pub(super) struct Trusted {
    /// Those that vouch for what they have issued.
    pub(super) authorities: RootCertStore,
    /// Those that are trusted as they are.
    pub(super) exactly: Exactly,
}

/// Certificates that are trusted as they are, and vouch for no other.
#[derive(Clone, Debug, Default)]
pub(super) struct Exactly(Vec<CertificateDer<'static>>);

impl Trusted {
    /// Tells the authorities among `certificates` from the others.
    ///
    /// # Errors
    /// [`TlsError::Authority`] if one cannot be read, [`TlsError::NoAuthority`] if there is none.
    pub(super) fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let mut trusted = Self { authorities: RootCertStore::empty(), exactly: Exactly::default() };
        for certificate in certificates {
            if may_issue(&certificate) {
                trusted.authorities.add(certificate).map_err(TlsError::Authority)?;
            } else {
                trusted.exactly.0.push(certificate);
            }
        }
        if trusted.authorities.is_empty() && trusted.exactly.0.is_empty() {
            return Err(TlsError::NoAuthority);
        }
        Ok(trusted)
    }
}

impl Exactly {
    /// Whether this very certificate is trusted.
    pub(super) fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.0.contains(certificate)
    }

    /// The certificates, as the anchors of a check of their own dates and purposes. Check nothing else with it.
    pub(super) fn as_anchors(&self) -> Result<RootCertStore, TlsError> {
        let mut anchors = RootCertStore::empty();
        for certificate in &self.0 {
            anchors.add(certificate.clone()).map_err(TlsError::Authority)?;
        }
        Ok(anchors)
    }

    /// Those that one of these lists names, and its issuer has made. Whoever trusts the certificates trusts the lists,
    /// whose signatures are not checked here: the issuer need not be known.
    pub(super) fn revoked_by(&self, lists: &[CertRevocationList<'_>]) -> Result<Self, webpki::Error> {
        let mut revoked = Self::default();
        for certificate in &self.0 {
            let parsed = EndEntityCert::try_from(certificate)?;
            for list in lists.iter().filter(|list| list.issuer() == parsed.issuer()) {
                if list.find_serial(parsed.serial())?.is_some() {
                    revoked.0.push(certificate.clone());
                }
            }
        }
        Ok(revoked)
    }

    /// Checks a server's certificate that is [among them](Self::contains): its dates, its purpose and its names.
    pub(super) fn verify_server(
        &self,
        certificate: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let nobody = RootCertStore::empty();
        ignore_the_issuer(verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &nobody,
            &[],
            now,
            algorithms.all,
        ))?;
        verify_server_name(&parsed, server_name)
    }
}

/// The result of a check where it does not matter who has issued the certificate: webpki looks for the issuer last.
pub(super) fn ignore_the_issuer(result: Result<(), rustls::Error>) -> Result<(), rustls::Error> {
    match result {
        Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Ok(()),
        result => result,
    }
}

/// Whether the certificate has the CA bit, or is too old to have one, as a root of version 1.
fn may_issue(certificate: &CertificateDer<'_>) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return true };
    let algorithms = provider().signature_verification_algorithms;
    let nobody = RootCertStore::empty();
    // webpki looks at the dates first, so it is asked for a moment when the certificate is valid.
    let valid =
        Validity::of(certificate).and_then(|validity| validity.not_before.duration_since(UNIX_EPOCH).ok());
    let now = UnixTime::since_unix_epoch(valid.unwrap_or_default());
    let result = verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], now, algorithms.all);
    matches!(result, Err(rustls::Error::InvalidCertificate(error)) if is_authority(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
    use std::time::Duration;

    fn key() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()
    }

    fn server(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_before = date_time_ymd(2020, 1, 1);
        parameters.not_after = date_time_ymd(2040, 1, 1);
        change(&mut parameters);
        parameters
    }

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let parameters =
            server(|parameters| parameters.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        CertifiedIssuer::self_signed(parameters, key()).unwrap()
    }

    fn verify(certificate: &CertificateDer<'static>, name: &str, year: u64) -> Result<(), rustls::Error> {
        let trusted = Trusted::new(vec![certificate.clone()]).unwrap();
        assert!(trusted.authorities.is_empty() && trusted.exactly.contains(certificate));
        let now = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let algorithms = provider().signature_verification_algorithms;
        trusted.exactly.verify_server(certificate, &name, now, &algorithms)
    }

    #[test]
    fn a_certificate_that_may_issue_is_an_authority() {
        for not_after in [date_time_ymd(2021, 1, 1), date_time_ymd(2040, 1, 1)] {
            let mut parameters = server(|parameters| parameters.not_after = not_after);
            parameters.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
            let certificate = parameters.self_signed(&key()).unwrap().der().clone();
            let trusted = Trusted::new(vec![certificate.clone()]).unwrap();
            assert!(!trusted.authorities.is_empty() && !trusted.exactly.contains(&certificate));
        }
        assert!(matches!(Trusted::new(Vec::new()), Err(TlsError::NoAuthority)));
        let damaged = CertificateDer::from(vec![7; 9]);
        assert!(matches!(Trusted::new(vec![damaged]), Err(TlsError::Authority(_))));
    }

    #[test]
    fn any_other_is_trusted_for_its_names_and_dates_whoever_issued_it() {
        let own = server(|_| {}).self_signed(&key()).unwrap().der().clone();
        let issued = server(|_| {}).signed_by(&key(), &authority()).unwrap().der().clone();
        for certificate in [own, issued] {
            verify(&certificate, "localhost", 2026).unwrap();
            for (name, year) in [("localhost", 2019), ("localhost", 2041), ("example.org", 2026)] {
                verify(&certificate, name, year).unwrap_err();
            }
        }
        let for_clients = server(|parameters| {
            parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        });
        let for_clients = for_clients.self_signed(&key()).unwrap().der().clone();
        verify(&for_clients, "localhost", 2026).unwrap_err();
    }
}
