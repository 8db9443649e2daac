//! Method `none`: no messages worth the name and no proof. Whoever configures it relies on something else.

use super::method::{ConnectingMethod, ListeningMethod, Turn};
use super::transcript::Binding;
use super::{Credential, ListeningConfig};
use crate::code::Refusal;
use crate::wire::DecodeError;

struct Nothing;

pub(super) fn connecting(credential: &Credential) -> Option<Box<dyn ConnectingMethod>> {
    matches!(credential, Credential::None).then(|| Box::new(Nothing) as _)
}

pub(super) fn listening(config: &ListeningConfig) -> Option<Box<dyn ListeningMethod>> {
    config.none.then(|| Box::new(Nothing) as _)
}

impl ConnectingMethod for Nothing {
    fn message(&mut self, _: &Binding<'_>) -> Result<Vec<u8>, Refusal> {
        Ok(Vec::new())
    }

    fn receive(&mut self, _: &[u8], _: &Binding<'_>) -> Result<(), Refusal> {
        Err(DecodeError::Invalid("the method `none` has only one message").into())
    }

    fn confirm(&mut self, _: &[u8], proof: &[u8], _: &Binding<'_>) -> Result<(), Refusal> {
        empty(proof)
    }
}

impl ListeningMethod for Nothing {
    fn receive(&mut self, message: &[u8], _: &Binding<'_>) -> Result<(), Refusal> {
        empty(message)
    }

    fn turn(&mut self, _: &Binding<'_>) -> Result<Turn, Refusal> {
        Ok(Turn::Satisfied(None))
    }

    fn prove(&mut self, _: &[u8], _: &Binding<'_>) -> Result<Vec<u8>, Refusal> {
        Ok(Vec::new())
    }
}

fn empty(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::Invalid("the method `none` proves nothing, yet there is a proof").into())
    }
}
