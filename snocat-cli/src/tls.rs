//! Certificates and keys from PEM files, and TLS set up with them, with errors that say what to do.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{KeyLog, KeyLogFile};
use snocat_driver::{ClientTls, ServerTls, TlsError, Trust};

use crate::error::Error;
use crate::files;
use crate::output;

/// From about here on a handshake no longer fits what a server may send before it knows the client's address
/// (RFC 9000 §8.1), and takes one more round trip.
const LONG_CHAIN: usize = 3000;

/// What the server shows: the certificate chain and key in two files.
///
/// # Errors
/// A file cannot be read or does not hold what it should, or the two do not belong together.
pub fn server(certificate: &Path, key: &Path) -> Result<ServerTls, Error> {
    let chain = certificates(certificate, "make one with `snocat cert PATH`")?;
    let key_der = private_key(key)?;
    let tls = ServerTls::new(chain, key_der, key_log()).map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        const ADVICE: &str = "give a certificate and the key that was made with it";
        match error {
            TlsError::Identity(rustls::Error::InconsistentKeys(_)) => {
                Error::failed(format_args!("{key} is not the key of {certificate}"), ADVICE)
            }
            TlsError::Identity(error) => {
                Error::failed(format_args!("cannot serve with {certificate} and {key}: {error}"), ADVICE)
            }
            other => Error::failed(format_args!("cannot serve with {certificate}: {other}"), ADVICE),
        }
    })?;
    let bytes = tls.chain_bytes();
    if bytes > LONG_CHAIN {
        output::warning(format_args!(
            "the certificate chain has {bytes} bytes; above {LONG_CHAIN} every connection takes one more round \
             trip; an Ed25519 or ECDSA certificate is shorter"
        ));
    }
    Ok(tls)
}

/// Whom the client trusts: the certificates in a file, or the platform's roots.
///
/// # Errors
/// The file cannot be read or holds no certificate, or the platform has no roots.
pub fn client(authority: Option<&Path>) -> Result<ClientTls, Error> {
    let (trust, what) = match authority {
        Some(path) => {
            let trusted = certificates(path, "give the server's .pub.pem file, or its CA's certificate")?;
            (Trust::Authorities(trusted), path.display().to_string())
        }
        None => (Trust::Platform, "the platform's roots".to_owned()),
    };
    ClientTls::new(trust, key_log()).map_err(|error| {
        let advice = "give the server's certificate, or its CA's, with --authority";
        match error {
            TlsError::NoAuthority => Error::failed(format_args!("{what} hold no certificate"), advice),
            TlsError::Authority(error) => Error::failed(format_args!("cannot trust {what}: {error}"), advice),
            other => Error::failed(format_args!("cannot trust {what}: {other}"), advice),
        }
    })
}

/// Where to write TLS secrets to for Wireshark: only if `SSLKEYLOGFILE` says so.
pub fn key_log() -> Option<Arc<dyn KeyLog>> {
    std::env::var_os("SSLKEYLOGFILE").filter(|path| !path.is_empty())?;
    Some(Arc::new(KeyLogFile::new()))
}

/// All certificates of a PEM file; at least one.
fn certificates(path: &Path, advice: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let contents = files::read(path, advice)?;
    let certificates = CertificateDer::pem_slice_iter(&contents)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| no_pem(path, "certificate", &error, advice))?;
    if certificates.is_empty() {
        return Err(no_pem(path, "certificate", &pem::Error::NoItemsFound, advice));
    }
    Ok(certificates)
}

/// The private key of a PEM file.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    const ADVICE: &str = "give the .priv.pem file of `snocat cert`, or another unencrypted PEM key";
    let contents = files::read_secret(path, ADVICE)?;
    PrivateKeyDer::from_pem_slice(&contents).map_err(|error| no_pem(path, "private key", &error, ADVICE))
}

fn no_pem(path: &Path, what: &str, error: &pem::Error, advice: &str) -> Error {
    let path = path.display();
    match error {
        pem::Error::NoItemsFound => Error::failed(format_args!("{path} holds no {what}"), advice),
        // Not the parser's words: they can show bytes of the file, which may be a key.
        _ => Error::failed(format_args!("{path} is damaged: its PEM text does not parse"), advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert;
    use std::fs;

    #[test]
    fn made_files_load_and_others_say_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let made = cert::make(&["localhost".parse().unwrap()], 1).unwrap();
        fs::write(at("pub"), &made.certificate).unwrap();
        files::create(&at("priv"), made.key.as_bytes(), files::Existing::Keep).unwrap();
        fs::write(at("broken"), "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").unwrap();
        fs::write(at("empty"), "").unwrap();

        assert_eq!(certificates(&at("pub"), "").unwrap().len(), 1);
        private_key(&at("priv")).unwrap();
        let tls = server(&at("pub"), &at("priv")).unwrap();
        assert!(tls.chain_bytes() < LONG_CHAIN);
        client(Some(&at("pub"))).unwrap();

        let error = |result: Result<(), Error>| result.unwrap_err().to_string();
        assert!(error(certificates(&at("priv"), "a").map(drop)).contains("holds no certificate; a"));
        assert!(error(certificates(&at("empty"), "a").map(drop)).contains("holds no certificate"));
        assert!(error(certificates(&at("broken"), "a").map(drop)).contains("is damaged"));
        assert!(error(certificates(&at("none"), "a").map(drop)).contains("cannot read"));
        assert!(error(private_key(&at("pub")).map(drop)).contains("holds no private key"));
    }

    #[test]
    fn a_foreign_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let names = ["localhost".parse().unwrap()];
        fs::write(at("pub"), cert::make(&names, 1).unwrap().certificate).unwrap();
        fs::write(at("priv"), cert::make(&names, 1).unwrap().key.as_bytes()).unwrap();
        let error = server(&at("pub"), &at("priv")).map(drop).unwrap_err();
        assert!(error.to_string().ends_with("the key that was made with it"), "{error}");
    }
}
