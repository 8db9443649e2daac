//! What tests of streams begin with.

use std::time::Instant;

use super::StreamId;
use crate::open::Header;
use crate::sim::{LinkConfig, Pair};

/// A tunnel on a link without faults, and a stream in it that the server has opened and the client has accepted.
#[expect(clippy::disallowed_methods, reason = "any instant will do, to begin a simulation at")]
#[expect(clippy::unwrap_used, reason = "in a test a surprise is a failure")]
pub(super) fn with_a_stream() -> (Pair, StreamId) {
    let mut pair = Pair::connect(Instant::now(), 1, &LinkConfig::default()).unwrap();
    let stream = pair.visit(&Header::forward("/tcp/80".parse().unwrap()), |_| Ok(())).unwrap();
    (pair, stream)
}
