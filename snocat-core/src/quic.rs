//! What the public API needs of `quinn-proto`: its types are re-exported here and nowhere else.

pub use quinn_proto::crypto::{
    ClientConfig as ClientCrypto, HandshakeTokenKey, HmacKey, ServerConfig as ServerCrypto,
};
pub use quinn_proto::{EcnCodepoint, TimeSource, Transmit, crypto};
