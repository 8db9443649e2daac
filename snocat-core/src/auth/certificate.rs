//! Method `tls-client-cert`: the connecting side has shown a certificate in the TLS handshake, and with it that it
//! holds the key (Protocol.md, "Method tls-client-cert"). Who issued it, and to whom, is judged here, where a refusal
//! looks like any other, and not by TLS, whose alerts would tell them apart.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::TunnelName;
use super::method::{Authenticator, Context, Credential, Exchange, Failure, Proven, Turn};
use crate::code::{Code, Refusal};
use crate::wire::{DecodeError, Reader, put_bytes};

const METHOD: &str = "tls-client-cert";

/// The method `tls-client-cert` on the connecting side. The certificate and its key are in the TLS configuration.
#[derive(Copy, Clone, Default, Debug)]
pub struct ClientCertificate;

impl Credential for ClientCertificate {
    fn method(&self) -> &str {
        METHOD
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Prover)
    }
}

/// Says whose a certificate is. It knows the authorities, and what time it is.
pub trait CertificateJudge: Send + Sync + fmt::Debug {
    /// Whose the certificate is, which is the first of `chain`, and what it allows. That its holder has the key is
    /// certain; [`Proven::evidence`] is left empty.
    ///
    /// # Errors
    /// Why it is not to be accepted: for the log, so without anything of the certificate that is not escaped.
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<Proven, String>;

    /// Whether a certificate lists this tunnel name as its own, as far as that is known before it is shown.
    fn reserves(&self, name: &TunnelName) -> bool {
        let _ = name;
        false
    }
}

/// The method `tls-client-cert` on the listening side. The TLS configuration has to ask for certificates, and to let
/// everyone in who holds the key of the one it shows.
#[derive(Clone, Debug)]
pub struct ClientCertificates(Arc<dyn CertificateJudge>);

impl ClientCertificates {
    /// Certificates that this judge accepts.
    pub fn new(judge: Arc<dyn CertificateJudge>) -> Self {
        Self(judge)
    }

    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<Proven, String> {
        if chain.is_empty() {
            return Err("no certificate was shown in the handshake".to_owned());
        }
        let mut evidence = Vec::new();
        for certificate in chain {
            put_bytes(&mut evidence, certificate);
        }
        Ok(Proven { evidence, ..self.0.judge(chain)? })
    }
}

impl Authenticator for ClientCertificates {
    fn method(&self) -> &str {
        METHOD
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Verifier { certificates: self, accepted: None })
    }

    fn stands(&self, proven: &Proven) -> bool {
        let mut reader = Reader::new(&proven.evidence);
        let mut chain = Vec::new();
        while !reader.is_empty() {
            let Ok(certificate) = reader.bytes(proven.evidence.len()) else { return false };
            chain.push(CertificateDer::from(certificate));
        }
        self.judge(&chain).is_ok_and(|now| now == *proven)
    }

    fn reserves(&self, name: &TunnelName) -> bool {
        self.0.reserves(name)
    }
}

/// The connecting side says what it means by its certificate: this exchange.
struct Prover;

impl Exchange for Prover {
    fn receive(&mut self, _: &[u8], _: &Context<'_>) -> Result<(), Failure> {
        Err(DecodeError::Invalid("the method `tls-client-cert` has only one message").into())
    }

    fn turn(&mut self, context: &Context<'_>) -> Result<Turn, Failure> {
        Ok(Turn::Say(context.binding(&[])?.to_vec()))
    }
}

/// The listening side.
struct Verifier {
    certificates: Arc<ClientCertificates>,
    accepted: Option<Proven>,
}

impl Exchange for Verifier {
    fn receive(&mut self, message: &[u8], context: &Context<'_>) -> Result<(), Failure> {
        let same = context.confirms(&[], message)?;
        let judged = self.certificates.judge(&context.session.certificates());
        if !same {
            return Err(Failure::denied("the two sides do not mean the same exchange"));
        }
        self.accepted = Some(judged.map_err(Failure::Denied)?);
        Ok(())
    }

    fn turn(&mut self, _: &Context<'_>) -> Result<Turn, Failure> {
        let proven = self.accepted.clone();
        let proven = proven.ok_or_else(|| Refusal::new(Code::INTERNAL, "no certificate was accepted"))?;
        Ok(Turn::Satisfied(proven))
    }
}
