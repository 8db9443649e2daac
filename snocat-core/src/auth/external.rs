//! A method whose messages are made and judged outside: each turn becomes a [`Question`], and goes on with its
//! [`Answer`]. That is how a database or a web service decides, and how the drivers run methods that are written as
//! asynchronous functions.

use std::sync::Arc;

use super::Side;
use super::method::{
    Answer, Authenticator, Context, Credential, Exchange, Failure, Proven, Question, Received, Turn,
};
use crate::code::{Code, Refusal};

/// A method that is run outside, on either side.
#[derive(Clone, Debug)]
pub struct External {
    method: String,
}

impl External {
    /// The method of this name.
    pub fn new(method: impl Into<String>) -> Self {
        Self { method: method.into() }
    }
}

impl Credential for External {
    fn method(&self) -> &str {
        &self.method
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Asking { method: self, received: None, answer: None })
    }
}

impl Authenticator for External {
    fn method(&self) -> &str {
        &self.method
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Asking { method: self, received: None, answer: None })
    }

    /// Only who decided knows; an application that withdraws closes the tunnel.
    fn stands(&self, _: &Proven) -> bool {
        true
    }
}

struct Asking {
    method: Arc<External>,
    received: Option<Received>,
    answer: Option<Answer>,
}

impl Exchange for Asking {
    fn receive(&mut self, message: &[u8], context: &Context<'_>) -> Result<(), Failure> {
        self.received = Some(Received { message: message.to_vec(), binding: context.binding(&[])? });
        Ok(())
    }

    fn turn(&mut self, context: &Context<'_>) -> Result<Turn, Failure> {
        match (self.answer.take(), context.side) {
            (None, _) => Ok(Turn::Ask(Question {
                method: self.method.method.clone(),
                received: self.received.take(),
                binding: context.binding(&[])?,
                remote: context.session.remote(),
                requested: context.requested.cloned(),
            })),
            (Some(Answer::Say(message)), _) => Ok(Turn::Say(message)),
            (Some(Answer::Satisfied(proven)), Side::Listening) => Ok(Turn::Satisfied(proven)),
            (Some(Answer::Satisfied(_)), Side::Connecting) => {
                Err(Refusal::new(Code::INTERNAL, "only the listening side knows when it is satisfied").into())
            }
            (Some(Answer::Denied(reason)), _) => Err(Failure::Denied(reason)),
            (Some(Answer::Refused(refusal)), _) => Err(refusal.into()),
        }
    }

    fn answer(&mut self, answer: Answer, _: &Context<'_>) -> Result<(), Failure> {
        self.answer = Some(answer);
        Ok(())
    }
}
