//! What a server and a client are made from.

use std::sync::Arc;

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
    /// Whether the application gives clients the ports that they ask for: with a
    /// [`PortForwarder`](crate::PortForwarder), or by [`Tunnel::binding_request`](crate::Tunnel::binding_request). Requests
    /// then wait for it, also those that come before it asks. If not, they are refused at once.
    pub serves_bindings: bool,
    pub(crate) methods: Methods,
}

impl ServerConfig {
    /// With the default limits and congestion control. Bindings are not served.
    pub fn new(tls: ServerTls, authentication: ListeningConfig) -> Self {
        Self {
            tls,
            authentication,
            limits: Limits::default(),
            congestion: CongestionControl::default(),
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
