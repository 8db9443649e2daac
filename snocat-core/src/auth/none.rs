//! Method `none`: no messages worth the name and no proof. Whoever configures it relies on something else.

use std::sync::Arc;

use super::Side;
use super::method::{Authenticator, Context, Credential, Exchange, Failure, Proven, Turn};
use crate::wire::DecodeError;

/// The method `none`, on either side: proves nothing, neither of this side nor of the other.
#[derive(Copy, Clone, Default, Debug)]
pub struct NoProof;

impl NoProof {
    const METHOD: &'static str = "none";
}

impl Credential for NoProof {
    fn method(&self) -> &str {
        Self::METHOD
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Nothing)
    }
}

impl Authenticator for NoProof {
    fn method(&self) -> &str {
        Self::METHOD
    }

    fn proves(&self) -> bool {
        false
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Nothing)
    }

    fn stands(&self, _: &Proven) -> bool {
        true
    }
}

struct Nothing;

impl Exchange for Nothing {
    fn receive(&mut self, message: &[u8], context: &Context<'_>) -> Result<(), Failure> {
        match context.side {
            Side::Connecting => Err(DecodeError::Invalid("the method `none` has only one message").into()),
            Side::Listening => empty(message),
        }
    }

    fn turn(&mut self, context: &Context<'_>) -> Result<Turn, Failure> {
        Ok(match context.side {
            Side::Connecting => Turn::Say(Vec::new()),
            Side::Listening => Turn::Satisfied(Proven::default()),
        })
    }

    fn prove(&mut self, _: &[u8], _: &Context<'_>) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }

    fn confirm(&mut self, _: &[u8], proof: &[u8], _: &Context<'_>) -> Result<(), Failure> {
        empty(proof)
    }
}

fn empty(bytes: &[u8]) -> Result<(), Failure> {
    if bytes.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::Invalid("the method `none` proves nothing, yet there is a proof").into())
    }
}
