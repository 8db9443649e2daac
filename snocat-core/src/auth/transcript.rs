//! What both sides have said so far, as two running hashes, and the value that proofs are made over
//! (Protocol.md, "Transcript").

use ring::digest::{Context, SHA256};

use super::Exporter;
use crate::code::{Code, Refusal};
use crate::wire::Frame;

/// 32 bytes that no other connection, and no other point of this exchange, has.
pub(super) type Bound = [u8; 32];

/// The authentication frames of both directions.
#[derive(Clone)]
pub(super) struct Transcript {
    connecting: Context,
    listening: Context,
}

impl Transcript {
    pub(super) fn new() -> Self {
        Self { connecting: Context::new(&SHA256), listening: Context::new(&SHA256) }
    }

    /// Adds a frame that the connecting side sent, and gives its bytes.
    pub(super) fn connecting(&mut self, kind: u64, payload: &[u8]) -> Vec<u8> {
        let frame = Frame::encode(kind, payload);
        self.connecting.update(&frame);
        frame
    }

    /// Adds a frame that the listening side sent, and gives its bytes.
    pub(super) fn listening(&mut self, kind: u64, payload: &[u8]) -> Vec<u8> {
        let frame = Frame::encode(kind, payload);
        self.listening.update(&frame);
        frame
    }

    /// The view that a method gets of it.
    pub(super) fn binding<'a>(&'a self, exporter: Exporter<'a>) -> Binding<'a> {
        Binding { transcript: self, exporter }
    }
}

/// The transcript before the frame that is being made or checked, together with the connection's exporter.
pub(super) struct Binding<'a> {
    transcript: &'a Transcript,
    exporter: Exporter<'a>,
}

impl Binding<'_> {
    /// What a proof in that frame covers; `extra` is the payload before the proof.
    pub(super) fn over(&self, extra: &[u8]) -> Result<Bound, Refusal> {
        let mut context = Context::new(&SHA256);
        context.update(self.transcript.connecting.clone().finish().as_ref());
        context.update(self.transcript.listening.clone().finish().as_ref());
        context.update(extra);
        let digest = context.finish();
        let context = digest.as_ref().first_chunk().ok_or_else(unavailable)?;
        (self.exporter)(context).ok_or_else(unavailable)
    }
}

fn unavailable() -> Refusal {
    Refusal::new(Code::INTERNAL, "the connection exports no keying material")
}
