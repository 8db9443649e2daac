//! What both sides have said so far, as two running hashes, and the digest that proofs are made over
//! (Protocol.md, "Transcript").

use ring::digest::{Context, SHA256};

use crate::wire::Frame;

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

    /// The digest of all frames so far, the place among several methods, and the payload before the proof.
    pub(super) fn digest(&self, place: Option<u8>, before_proof: &[u8]) -> Option<[u8; 32]> {
        let mut context = Context::new(&SHA256);
        context.update(self.connecting.clone().finish().as_ref());
        context.update(self.listening.clone().finish().as_ref());
        context.update(place.as_slice());
        context.update(before_proof);
        context.finish().as_ref().first_chunk().copied()
    }
}
