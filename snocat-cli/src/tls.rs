//! Certificates and keys from PEM files, and TLS set up with them, with errors that say what to do.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use snocat_driver::{ClientAuthorities, ClientTls, ServerTls, TlsError, Trust};

use crate::args::ClientArgs;
use crate::error::Error;
use crate::keylog::key_log;
use crate::keys::mistaken;
use crate::{expiry, files, output};

/// From about here on a handshake no longer fits what a server may send before it knows the client's address
/// (RFC 9000 §8.1), and takes one more round trip.
const LONG_CHAIN: usize = 3000;

/// What to do when the server's certificate cannot be used.
const SERVER_CERTIFICATE: &str = "give the .pub.pem file that `snocat cert PATH` makes, or a chain in PEM";

/// What the server shows: the certificate chain and key in two files.
///
/// # Errors
/// A file cannot be read or does not hold what it should, or the two do not belong together.
pub fn server(certificate: &Path, key: &Path) -> Result<ServerTls, Error> {
    let (chain, key_der) = identity(certificate, key, SERVER_CERTIFICATE)?;
    let tls =
        ServerTls::new(chain, key_der, key_log()).map_err(|error| unusable(certificate, key, &error))?;
    warn_of_length(&tls);
    expiry::warn(&tls);
    if let Some(path) = std::env::var_os("SSLKEYLOGFILE").filter(|path| !path.is_empty()) {
        output::warning(format_args!(
            "SSLKEYLOGFILE is set: whoever can read {} can decrypt every tunnel of this server; unset it unless you \
             debug",
            path.display()
        ));
    }
    Ok(tls)
}

/// Shows what the two files hold now.
///
/// # Errors
/// As [`server`]. Then what was shown before stays.
pub fn replace(tls: &ServerTls, certificate: &Path, key: &Path) -> Result<(), Error> {
    let (chain, key_der) = identity(certificate, key, SERVER_CERTIFICATE)?;
    let before = tls.chain_bytes();
    tls.replace(chain, key_der).map_err(|error| unusable(certificate, key, &error))?;
    if tls.chain_bytes() != before {
        warn_of_length(tls);
    }
    expiry::warn(tls);
    Ok(())
}

fn warn_of_length(tls: &ServerTls) {
    let bytes = tls.chain_bytes();
    if bytes > LONG_CHAIN {
        output::warning(format_args!(
            "the certificate chain has {bytes} bytes; above {LONG_CHAIN} every connection takes one more round \
             trip; an Ed25519 or ECDSA certificate is shorter"
        ));
    }
}

/// A certificate chain and its key.
fn identity(
    certificate: &Path,
    key: &Path,
    advice: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    Ok((certificates(certificate, advice)?, private_key(key)?))
}

fn unusable(certificate: &Path, key: &Path, error: &TlsError) -> Error {
    const ADVICE: &str = "give a certificate and the key that was made with it";
    let (certificate, key) = (certificate.display(), key.display());
    match error {
        TlsError::Identity(rustls::Error::InconsistentKeys(_)) => {
            Error::failed(format_args!("{key} is not the key of {certificate}"), ADVICE)
        }
        TlsError::Identity(error) => {
            Error::failed(format_args!("{certificate} and {key} are not usable: {error}"), ADVICE)
        }
        other => Error::failed(format_args!("{certificate} is not usable: {other}"), ADVICE),
    }
}

/// Whom a client trusts, and the certificate that it shows, if it has one.
///
/// # Errors
/// A file cannot be read or does not hold what it should, or the platform has no roots.
pub fn client(arguments: &ClientArgs) -> Result<ClientTls, Error> {
    let tls = match (&arguments.pin, &arguments.authority) {
        (Some(pin), _) => trusting(Trust::Pinned(pin.digest()), "--pin")?,
        (None, Some(path)) => {
            let trusted = authorities(path, "give the server's .pub.pem file, or its CA's certificate")?;
            trusting(Trust::Authorities(trusted), &path.display().to_string())?
        }
        (None, None) => trusting(Trust::Platform, "the platform's roots")?,
    };
    if let (Some(certificate), Some(key)) = (&arguments.cert, &arguments.key) {
        let (chain, key_der) =
            identity(certificate, key, "give the certificate that was issued to this client")?;
        tls.show(chain, key_der).map_err(|error| unusable(certificate, key, &error))?;
    }
    Ok(tls)
}

/// A client that trusts `what`.
fn trusting(trust: Trust, what: &str) -> Result<ClientTls, Error> {
    ClientTls::new(trust, key_log()).map_err(|error| {
        let advice = "give the server's certificate, or its CA's, with --authority";
        match error {
            TlsError::NoAuthority => Error::failed(format_args!("{what} hold no certificate"), advice),
            TlsError::Authority(error) => Error::failed(format_args!("cannot trust {what}: {error}"), advice),
            other => Error::failed(format_args!("cannot trust {what}: {other}"), advice),
        }
    })
}

/// Who may issue certificates for clients, and what of that is revoked. `None` if the file holds no certificate.
///
/// # Errors
/// The file cannot be read or others may change it, or it holds something that is not usable.
pub fn client_authorities(path: &Path) -> Result<Option<Arc<ClientAuthorities>>, Error> {
    const ADVICE: &str = "give the certificates of those who issue certificates for clients, PEM";
    let contents = files::read_trusted(path, ADVICE)?;
    let damaged = |error: pem::Error| no_pem(path, &contents, "certificate", &error, ADVICE);
    let issuers: Vec<_> =
        CertificateDer::pem_slice_iter(&contents).collect::<Result<_, _>>().map_err(damaged)?;
    let revoked: Vec<_> =
        CertificateRevocationListDer::pem_slice_iter(&contents).collect::<Result<_, _>>().map_err(damaged)?;
    if issuers.is_empty() {
        return Ok(None);
    }
    let authorities = ClientAuthorities::new(issuers, revoked).map_err(|error| {
        let advice = match error {
            TlsError::TwoLists => "keep the newer one",
            _ => ADVICE,
        };
        Error::failed(format_args!("{} is not usable: {error}", path.display()), advice)
    })?;
    Ok(Some(Arc::new(authorities)))
}

/// All certificates of a PEM file; at least one.
fn certificates(path: &Path, advice: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    from_pem(path, &files::read(path, advice)?, advice)
}

/// The same, where others could have put in somebody to trust if they may change the file.
fn authorities(path: &Path, advice: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    from_pem(path, &files::read_trusted(path, advice)?, advice)
}

fn from_pem(path: &Path, contents: &[u8], advice: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(contents)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| no_pem(path, contents, "certificate", &error, advice))?;
    if certificates.is_empty() {
        return Err(no_pem(path, contents, "certificate", &pem::Error::NoItemsFound, advice));
    }
    Ok(certificates)
}

/// The private key of a PEM file.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    const ADVICE: &str = "give the .priv.pem file of `snocat cert`, or another unencrypted PEM key";
    let contents = files::read_key(path, ADVICE)?;
    PrivateKeyDer::from_pem_slice(&contents)
        .map_err(|error| no_pem(path, &contents, "private key", &error, ADVICE))
}

fn no_pem(path: &Path, contents: &[u8], what: &str, error: &pem::Error, advice: &str) -> Error {
    let path = path.display();
    match (error, mistaken(contents)) {
        (pem::Error::NoItemsFound, Some(found)) => {
            Error::failed(format_args!("{path} holds no {what}, but {found}"), advice)
        }
        (pem::Error::NoItemsFound, None) => Error::failed(format_args!("{path} holds no {what}"), advice),
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
        files::create(&at("pub"), made.certificate.as_bytes(), files::Existing::Keep).unwrap();
        files::create(&at("priv"), made.key.as_bytes(), files::Existing::Keep).unwrap();
        fs::write(at("broken"), "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").unwrap();
        fs::write(at("empty"), "").unwrap();

        assert_eq!(certificates(&at("pub"), "").unwrap().len(), 1);
        private_key(&at("priv")).unwrap();
        let tls = server(&at("pub"), &at("priv")).unwrap();
        assert!(tls.chain_bytes() < LONG_CHAIN);
        trusting(Trust::Authorities(authorities(&at("pub"), "").unwrap()), "it").unwrap();
        assert!(client_authorities(&at("pub")).unwrap().is_some());
        assert!(client_authorities(&at("priv")).unwrap().is_none());

        let error = |result: Result<(), Error>| result.unwrap_err().to_string();
        assert!(
            error(certificates(&at("priv"), "a").map(drop))
                .contains("holds no certificate, but a private key; a")
        );
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
        let foreign = cert::make(&names, 1).unwrap().key;
        files::create(&at("priv"), foreign.as_bytes(), files::Existing::Keep).unwrap();
        let error = server(&at("pub"), &at("priv")).map(drop).unwrap_err();
        assert!(error.to_string().ends_with("the key that was made with it"), "{error}");
    }
}
