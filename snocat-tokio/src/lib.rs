//! snocat tunnels on tokio.
//!
//! The driver of `snocat-driver` with tokio filled in: the same names, and streams that are tokio's.
//!
//! ```no_run
#![doc = include_str!("../examples/server.rs")]
//! ```

// What there is to say goes to `tracing`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod net;
mod runtime;
mod stream;

pub use net::{TcpListener, TcpStream, UdpSocket};
pub use runtime::{Timer, Tokio};
pub use snocat_driver as driver;
pub use snocat_driver::{
    AuthenticationChannel, AuthenticationClient, AuthenticationHandler, BindError, Binding, Bound,
    CertificateProblem, ClientAuthorities, ClientConfig, ClientTls, CongestionControl, ConnectError, Denied,
    Destination, OpenError, ServerConfig, ServerTls, StreamError, TcpRouter, TlsError, Trust, connect, core,
    serve,
};
pub use stream::Stream;

/// A tunnel on tokio.
pub type Tunnel = snocat_driver::Tunnel<Tokio>;
/// A server on tokio.
pub type TunnelServer = snocat_driver::TunnelServer<Tokio>;
/// What happens to a server's tunnels.
pub type ServerEvent = snocat_driver::ServerEvent<Tokio>;
/// Ports forwarded through tunnels, on tokio.
pub type PortForwarder = snocat_driver::PortForwarder<Tokio>;
/// A stream that a peer offers.
pub type Offer = snocat_driver::Offer<Tokio>;
