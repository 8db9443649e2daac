//! What a server and a client are made from.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ring::hmac;
use snocat_core::auth::{ConnectingConfig, External, ListeningConfig};
use snocat_core::route::RouteAddress;
use snocat_core::{CongestionControl, Limits};

use crate::authentication::{AuthenticationClient, AuthenticationHandler, Handled, Methods};
use crate::tls::{ClientTls, ServerTls};

/// How a [`TunnelServer`](crate::TunnelServer) behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The certificate it shows.
    pub tls: ServerTls,
    /// The authentication methods it accepts. The default accepts nobody.
    pub authentication: ListeningConfig,
    /// The limits of each tunnel, and of all strangers together.
    pub limits: Limits,
    /// The congestion control of what this side sends.
    pub congestion: CongestionControl,
    /// Tells the clients of a server that was here before, at the same address and with the same secret, that their tunnels
    /// have ended. Without it a secret is drawn at each start, and such clients notice by silence only.
    pub reset_secret: Option<ResetSecret>,
    /// Whether the application gives clients the ports that they ask for: with a
    /// [`PortForwarder`](crate::PortForwarder), or by [`Tunnel::binding_request`](crate::Tunnel::binding_request). Requests
    /// then wait for it, also those that come before it asks. If not, they are refused at once.
    pub serves_bindings: bool,
    pub(crate) methods: Methods,
}

/// The secret that proves a stateless reset (RFC 9000, section 10.3): a server that knows nothing of a tunnel any more ends
/// it for the client, which nobody else can.
///
/// It has to outlast the server's process, and to stay secret: whoever has it can end any tunnel of the server. Two servers
/// that run at the same time must not share it, because one would prove resets of the other's tunnels to whoever
/// asks; on one machine they may, as keys are derived for each address.
#[derive(Clone)]
pub struct ResetSecret([u8; 32]);

impl ResetSecret {
    /// Takes 32 bytes that nobody can guess.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key for a server that is bound to `address`.
    pub(crate) fn key(&self, address: SocketAddr) -> hmac::Key {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let derived = hmac::sign(&secret, format!("snocat stateless reset {address}").as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
    }
}

impl fmt::Debug for ResetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResetSecret").finish_non_exhaustive()
    }
}

impl ServerConfig {
    /// With the default limits and congestion control. Bindings are not served.
    pub fn new(tls: ServerTls, authentication: ListeningConfig) -> Self {
        Self {
            tls,
            authentication,
            limits: Limits::default(),
            congestion: CongestionControl::default(),
            reset_secret: None,
            serves_bindings: false,
            methods: Methods::default(),
        }
    }

    /// Accepts by a method of the application's own, too: the one that is preferred least of those in
    /// `authentication` so far, in place of one of the same name. That should hold a dot or a slash, to stay apart from those of the
    /// protocol.
    #[must_use]
    pub fn handle(mut self, method: &str, handler: impl AuthenticationHandler) -> Self {
        let handler = Arc::new(handler);
        self.authentication.methods.retain(|other| other.method() != method);
        self.methods.insert_handler(method, handler.clone());
        let external = Arc::new(External::new(method));
        self.authentication.methods.push(Arc::new(Handled { external, handler }));
        self
    }
}

/// How [`connect`](crate::connect) behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Whom it trusts.
    pub tls: ClientTls,
    /// Its credentials, and the name it wants for its tunnel.
    pub authentication: ConnectingConfig,
    /// The ports it asks for. The requests travel together with the credentials and cost no round trip.
    pub bindings: Vec<Binding>,
    /// The limits of the tunnel.
    pub limits: Limits,
    /// The congestion control of what this side sends.
    pub congestion: CongestionControl,
    /// Whether the application gives the server the ports that it asks for, as in
    /// [`ServerConfig::serves_bindings`].
    pub serves_bindings: bool,
    pub(crate) methods: Methods,
}

impl ClientConfig {
    /// Without bindings, with the default limits and congestion control. Those of the server are not served.
    pub fn new(tls: ClientTls, authentication: ConnectingConfig) -> Self {
        Self {
            tls,
            authentication,
            bindings: Vec::new(),
            limits: Limits::default(),
            congestion: CongestionControl::default(),
            serves_bindings: false,
            methods: Methods::default(),
        }
    }

    /// Offers a method of the application's own, too: the one that is preferred least of those in `authentication` so
    /// far.
    #[must_use]
    pub fn offer(mut self, method: &str, client: impl AuthenticationClient) -> Self {
        self.methods.insert_client(method, client);
        self.authentication.methods.push(Arc::new(External::new(method)));
        self
    }
}

/// A port that one side wants the other to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The TCP port; 0 for any.
    pub port: u16,
    /// What the streams of this binding are to be addressed to.
    pub address: RouteAddress,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_keys_are_of_one_secret_and_one_address() {
        let key = |secret: u8, address: &str| {
            let key = ResetSecret::new([secret; 32]).key(address.parse().unwrap());
            hmac::sign(&key, b"id").as_ref().to_vec()
        };
        assert_eq!(key(1, "192.0.2.1:9090"), key(1, "192.0.2.1:9090"));
        assert_ne!(key(1, "192.0.2.1:9090"), key(2, "192.0.2.1:9090"));
        assert_ne!(key(1, "192.0.2.1:9090"), key(1, "192.0.2.1:9091"));
        assert!(!format!("{:?}", ResetSecret::new([77; 32])).contains("77"));
    }
}
