//! A simulated network: nodes and links under virtual time, with everything random from one seed.
//!
//! The nodes are the same [`Node`](crate::Node)s as in production, so a router or an authentication can be
//! tested under a bad network in milliseconds, and what fails fails again with the same seed. Nothing in here
//! looks at a clock, starts a thread or draws from the system's randomness.
//!
//! - [`Pair`]: a server, a client and the tunnel between them, to test a router with.
//! - [`World`]: nodes on a network, and the time.
//! - [`Network`]: hosts and links alone, for those who drive something else than nodes.
//! - [`LinkConfig`]: what a direction of a link does: delay, jitter, loss in bursts, copies, reordering, rate
//!   and queue, MTU, flipped bits, nothing at all.
//! - [`plain`]: TLS without its cryptography, with which the same seed gives the same bytes. With real TLS it
//!   gives the same schedule, as long as certificates and signatures keep their lengths (Ed25519).
//!
//! ```
//! use std::time::{Duration, Instant};
//! use snocat_core::sim::{LinkConfig, Step, World, plain};
//! use snocat_core::{Event, auth};
//!
//! let mut world = World::new(Instant::now(), 7);
//! let accepts = auth::ListeningConfig::only(auth::NoProof);
//! let server = world.add(plain::listening(1, accepts, &world.clock()));
//! let client = world.add(plain::connecting(2));
//! world.link(client, server, &LinkConfig::mobile());
//!
//! let offers = auth::ConnectingConfig::only(auth::NoProof);
//! world.connect(client, server, &plain::connect(offers), "server").unwrap().unwrap();
//! let connected = world.run(Duration::from_secs(10), |world, host, tunnel, event| {
//!     if let Event::AuthRequested { ticket, .. } = event {
//!         let now = world.now();
//!         let tunnel = world.tunnel_mut(host, tunnel).unwrap();
//!         tunnel.admit(now, ticket, "home".parse().unwrap(), Default::default()).unwrap();
//!         return false;
//!     }
//!     host == client && matches!(event, Event::Authenticated(_))
//! });
//! assert_eq!(connected, Ok(true));
//! ```

mod link;
mod network;
mod pair;
pub mod plain;
mod rng;
mod trace;
mod world;

pub use link::{LinkConfig, Loss};
pub use network::{Arrival, Clock, Host, Network};
pub use pair::{Pair, PairError};
pub use rng::{Chance, Rng};
pub use trace::Trace;
pub use world::{MAX_STEPS_AT_ONE_TIME, Spinning, Step, World};
