//! snocat tunnels on smol: async-io for sockets and timers, and an executor of the caller's for tasks.
//!
//! The driver of `snocat-driver` with smol filled in: the same names, and streams that are `futures-io`'s. There is
//! no tokio in the dependency tree.
//!
//! ```no_run
#![doc = include_str!("../examples/server.rs")]
//! ```

// What there is to say goes to `tracing`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod net;
mod runtime;
mod stream;
mod threads;

pub use net::{TcpListener, TcpStream, UdpSocket};
pub use runtime::{Smol, Timer};
pub use snocat_driver as driver;
pub use snocat_driver::{
    AuthenticationChannel, AuthenticationClient, AuthenticationHandler, BindError, Binding, Bound,
    CertificateProblem, ClientAuthorities, ClientConfig, ClientTls, CongestionControl, ConnectError, Denied,
    Destination, OpenError, ServerConfig, ServerTls, StreamError, TcpRouter, TlsError, Trust, connect, core,
    serve,
};
pub use stream::Stream;
pub use threads::block_on;

/// A tunnel on smol.
pub type Tunnel = snocat_driver::Tunnel<Smol>;
/// A server on smol.
pub type TunnelServer = snocat_driver::TunnelServer<Smol>;
/// What happens to a server's tunnels.
pub type ServerEvent = snocat_driver::ServerEvent<Smol>;
/// Ports forwarded through tunnels, on smol.
pub type PortForwarder = snocat_driver::PortForwarder<Smol>;
/// A stream that a peer offers.
pub type Offer = snocat_driver::Offer<Smol>;
