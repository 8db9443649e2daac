//! What every runtime needs to drive [`snocat_core`]: asynchronous, but of no runtime.
//!
//! Generic over [`Runtime`], with no task queue, no reactor and no timer wheel of its own. Applications use it
//! through an adapter, `snocat-tokio` or `snocat-smol`; a third runtime is a third small crate. The protocol
//! itself, and everything that can be decided without sockets and clocks, is in the core.
//!
//! - [`TunnelServer`] takes connections and yields tunnels; [`connect`] makes one.
//! - A [`Tunnel`] opens and accepts [`Stream`]s, and asks for ports.
//! - [`serve`] with a [`Router`] runs what a peer opens; [`PortForwarder`] binds the ports a peer asks for.

// What there is to say goes to `tracing`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod authentication;
mod cell;
mod client;
mod config;
mod copy;
mod driver;
mod forward;
mod interface;
mod race;
mod router;
mod runtime;
mod server;
mod socket;
mod state;
mod stream;
mod sync;
mod table;
mod throttle;
mod tls;
mod tunnel;
mod udp;

pub use authentication::{
    AuthenticationChannel, AuthenticationClient, AuthenticationHandler, ChannelError, Denied,
};
pub use bytes::Bytes;
pub use client::{ConnectError, Connected, Destination, connect, connect_watched};
pub use config::{Binding, ClientConfig, ResetSecret, ServerConfig};
pub use copy::copy;
pub use forward::{Bound, PortForwarder};
pub use router::{Router, RoutingClient, Service, ServiceFuture, TcpRouter, dial, serve};
pub use runtime::{Direction, Icmp, KEEP_ALIVE, Runtime, Tcp, TcpListener, Timer, Udp, keep_alive, listener};
pub use rustls;
pub use server::{ServerEvent, TunnelServer};
pub use snocat_core as core;
pub use snocat_core::CongestionControl;
pub use stream::{ByteStream, Stream, StreamError};
pub use table::TunnelTable;
pub use tls::{CertificateProblem, ClientAuthorities, ClientTls, ServerTls, TlsError, Trust, Validity};
pub use tunnel::{BindError, BindingRequest, Offer, OpenError, PendingBinding, Tunnel};
pub use udp::{Registered, SystemUdp};
