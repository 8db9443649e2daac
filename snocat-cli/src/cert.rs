//! `snocat cert`: a certificate that a server shows and its clients trust by a copy of it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::PrivatePkcs8KeyDer;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::args::CertArgs;
use crate::error::Error;
use crate::files::{self, Existing};
use crate::keys;
use crate::output;
use crate::values::{CertifiedName, Pin};

/// A self-signed certificate and its key.
pub struct Made {
    /// The certificate, as PEM.
    pub certificate: String,
    /// The private key, PKCS#8 version 1 as PEM.
    pub key: Zeroizing<String>,
    /// The fingerprint of the certificate.
    pub pin: Pin,
}

/// Runs `snocat cert`.
///
/// # Errors
/// The files are there already, or cannot be made.
pub fn run(arguments: &CertArgs) -> Result<(), Error> {
    let (public, private) = paths(&arguments.path)?;
    let existing = if arguments.force { Existing::Replace } else { Existing::Keep };
    let names = if arguments.san.is_empty() { default_names() } else { arguments.san.clone() };
    let made = make(&names, arguments.days)?;
    files::create_both((&private, made.key.as_bytes()), (&public, made.certificate.as_bytes()), existing)?;
    output::result(&made.pin.to_string())?;
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    output::note(format_args!("wrote {} for {names}, and its key {}", public.display(), private.display()));
    Ok(())
}

/// Makes an Ed25519 key and a certificate for it that is valid for `names`, from a day ago until in `days`.
///
/// # Errors
/// A name cannot stand in a certificate, or the system gives no randomness.
pub fn make(names: &[CertifiedName], days: u32) -> Result<Made, Error> {
    let failed = |error: rcgen::Error| {
        Error::failed(format_args!("cannot make a certificate: {error}"), "check the names given with --san")
    };
    let seed = keys::keygen::seed()?;
    let key = pkcs8(&seed);
    let key = PrivatePkcs8KeyDer::from(key.as_slice());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519).map_err(failed)?;
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).map_err(failed)?;
    // A name of its own for each: a client that trusts last year's certificate then hears that this one is not
    // trusted, rather than that a signature is wrong.
    let id = digest(&SHA256, key.public_key_raw());
    let id = HEXLOWER.encode(id.as_ref().get(..8).unwrap_or_default());
    params.distinguished_name.push(DnType::CommonName, format!("snocat {id}"));
    // It vouches for itself and for nothing else, so that its key is worth no more than the server it is on.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = now()?;
    // The two machines' clocks need not agree.
    params.not_before = now.saturating_sub(Duration::DAY);
    params.not_after = now.saturating_add(Duration::days(days.into()));
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Made {
        certificate: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
        pin: Pin::of(certificate.der()),
    })
}

/// The key as PKCS#8, version 1 (RFC 8410, 7): version 2 has the public key besides, and neither OpenSSL 3 nor Python's
/// cryptography reads what ring makes of it.
fn pkcs8(seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    // A sequence of the version 0, the algorithm 1.3.101.112, and the 32 bytes, an octet string within one.
    const BEFORE: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    Zeroizing::new([&BEFORE[..], seed].concat())
}

/// Loopback under all its names, and this machine's own if it is one that a certificate can hold.
fn default_names() -> Vec<CertifiedName> {
    let host = hostname::get().ok().and_then(|name| name.into_string().ok());
    let mut names = Vec::new();
    for name in ["localhost", "127.0.0.1", "::1"].into_iter().map(str::to_owned).chain(host) {
        if let Ok(name) = name.parse()
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// `PATH.pub.pem` and `PATH.priv.pem`.
fn paths(path: &Path) -> Result<(PathBuf, PathBuf), Error> {
    Ok((files::with_ending(path, ".pub.pem")?, files::with_ending(path, ".priv.pem")?))
}

fn now() -> Result<OffsetDateTime, Error> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since_1970)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or_else(|| Error::failed("this machine's clock is far in the future", "set it right"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    #[test]
    fn made_certificates_parse_and_differ() {
        let names = default_names();
        assert!(names.len() >= 3, "{names:?}");
        let made = make(&names, 365).unwrap();
        let certificate = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
        PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
        assert!(certificate.len() < 600, "small enough for one datagram: {}", certificate.len());
        assert_eq!(made.pin, Pin::of(&certificate));
        assert_ne!(make(&names, 365).unwrap().pin, made.pin);
    }

    #[test]
    fn a_server_and_a_client_agree_on_it() {
        // rustls accepts it as the trust anchor of itself, for its names and for no other.
        let made = make(&["example.org".parse().unwrap(), "192.0.2.1".parse().unwrap()], 1).unwrap();
        let certificate = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(std::sync::Arc::new(roots), provider)
                .build()
                .unwrap();
        let verify = |name: &str, at: SystemTime| {
            let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
            let since = at.duration_since(UNIX_EPOCH).unwrap();
            let at = rustls::pki_types::UnixTime::since_unix_epoch(since);
            use rustls::client::danger::ServerCertVerifier;
            verifier.verify_server_cert(&certificate, &[], &name, &[], at).map(|_| ())
        };
        let now = SystemTime::now();
        let day = std::time::Duration::from_secs(86_400);
        verify("example.org", now).unwrap();
        verify("192.0.2.1", now).unwrap();
        verify("example.org", now - day / 2).unwrap();
        assert!(verify("example.com", now).is_err());
        assert!(verify("example.org", now + 2 * day).is_err());
    }

    #[test]
    fn two_files_from_one_path() {
        let (public, private) = paths(Path::new("keys/a.b")).unwrap();
        assert_eq!(
            (public.as_path(), private.as_path()),
            (Path::new("keys/a.b.pub.pem"), Path::new("keys/a.b.priv.pem"))
        );
        for path in ["", "/", "keys/", ".."] {
            assert_eq!(paths(Path::new(path)).unwrap_err().code(), 2, "{path:?}");
        }
    }
}
