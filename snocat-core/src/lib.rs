//! The snocat protocol as a pure, synchronous state machine.
//!
//! snocat forwards streams across authenticated, encrypted QUIC tunnels. This crate is the whole protocol and
//! nothing else: no socket, no clock, no thread, no file, no random source. Datagrams and points in time go in;
//! datagrams, events and deadlines come out. `docs/Protocol.md` says what travels, `docs/Architecture.md` how
//! the parts fit together.
//!
//! # Layers
//!
//! Each can be used, and is tested, without the one above.
//!
//! - **Protocol machines**, which do not know that QUIC exists: [`wire`], [`auth`], [`open`], [`route`], [`pipe`].
//! - [`Endpoint`] and [`Tunnel`], around the state machines of quinn-proto. They share no memory: the caller
//!   carries opaque events between them, and so may give every tunnel its own lock.
//! - [`Node`]: an endpoint with its tunnels in one object, for simulation, fuzzing and embedding.
//!
//! # The contract
//!
//! 1. Time is only ever an argument. It may stand still; going backwards counts as standing still.
//! 2. After any `handle_*` or application call, drain until nothing moves: `poll_endpoint_event` (the endpoint
//!    may answer with an event to hand back), then `poll`, last `poll_transmit`; then read `poll_timeout`. It is
//!    due at once while something has not been drained; output that congestion control, pacing, amplification
//!    or flow control holds back does not count. A caller whose socket is full keeps its one datagram and waits
//!    for the socket, not for the timer. What the core sends because of an event is queued inside `handle_*`, so
//!    that stream 0 shares a datagram with the end of the handshake.
//! 3. A method's error means that the *caller* asked for the impossible, and nothing has changed. What a *peer*
//!    does wrong is never a method's error: it ends a stream or the tunnel, with an event that says why.
//! 4. Decisions from outside are answered once, now or later: [`Event::AuthRequested`] by its [`Ticket`],
//!    [`Event::OpenRequested`] and [`Event::BindingRequested`] by their ids. Their deadlines live in here.
//! 5. Ids are `Copy` and carry a generation: a stale one is caught, and never names another tunnel.
//! 6. No call walks all tunnels, nor all streams of a tunnel except one that ends. An idle poll is O(1).
//! 7. No input from a peer panics, and none makes memory grow past the [`Limits`].
//!
//! # The loop
//!
//! ```no_run
//! use std::time::Instant;
//! use snocat_core::{Datagram, Event, Node};
//!
//! # struct Socket;
//! # impl Socket {
//! #     fn receive_until(&self, _: Option<Instant>) -> Option<Datagram> { None }
//! #     fn send(&self, _: &snocat_core::quic::Transmit, _: &[u8]) {}
//! # }
//! fn run(node: &mut Node, socket: &Socket) {
//!     let mut buffer = Vec::new();
//!     loop {
//!         // 1. Events, until there are none.
//!         while let Some((id, event)) = node.poll() {
//!             if let (Event::Closed(reason), Some(tunnel)) = (event, node.tunnel(id)) {
//!                 println!("{}: {reason}", tunnel.remote_address());
//!             }
//!         }
//!         // 2. Datagrams, until there are none.
//!         while let Some(transmit) = node.poll_transmit(Instant::now(), 1, &mut buffer) {
//!             socket.send(&transmit, &buffer);
//!         }
//!         // 3. Wait for the network or the clock, whichever comes first.
//!         match socket.receive_until(node.poll_timeout()) {
//!             Some(datagram) => node.handle_datagram(Instant::now(), datagram),
//!             None => node.handle_timeout(Instant::now()),
//!         }
//!     }
//! }
//! ```

// What there is to say goes to `tracing`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod auth;
mod code;
mod endpoint;
mod limits;
mod node;
pub mod open;
pub mod pipe;
pub mod quic;
pub mod route;
#[cfg(feature = "sim")]
pub mod sim;
mod tunnel;
pub mod wire;

pub use code::{Code, Escaped, Refusal};
pub use endpoint::{
    AdmissionCounts, CongestionControl, ConnectConfig, ConnectError, Datagram, DatagramLimit, Endpoint,
    EndpointConfig, EndpointEvent, ListenConfig, TunnelEvent, TunnelId,
};
pub use limits::Limits;
pub use node::Node;
pub use tunnel::{
    ALPN, BindingId, CloseReason, ClosedBy, Event, OpenError, ReadError, ReadStatus, Serving, StreamId,
    StreamStage, Ticket, Tunnel, TunnelError, WriteError,
};
