//! A server and a client on two hosts, and a port that leads through their tunnel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use snocat_driver::core::Code;
use snocat_driver::core::Limits;
use snocat_driver::core::auth::{ConnectingConfig, ListeningConfig, TokenKey, TokenKeys, TokenSecret};
use snocat_driver::core::route::{Policy, RouteAddress};
use snocat_driver::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use snocat_driver::{
    Binding, ClientConfig, ClientTls, ConnectError, Connected, Destination, PortForwarder, Runtime,
    ServerConfig, ServerEvent, ServerTls, TcpRouter, Trust, Tunnel, TunnelServer, connect, serve,
};

use super::{SimRuntime, Simulation};
use crate::SECRET;

/// The server's host.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The client's host, which is the targets', too.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The visitors' host.
pub const VISITORS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
/// The UDP port of servers.
const PORT: u16 = 4433;

/// A certificate for `localhost` and its key, always the same: the lengths of a handshake are part of a trace.
fn identity() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    // An Ed25519 key in PKCS #8: what stands before the 32 bytes, and the bytes.
    let mut key = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    key.extend([7; 32]);
    let key = PrivatePkcs8KeyDer::from(key);
    let pair = rcgen::KeyPair::try_from(&key).unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (parameters.self_signed(&pair).unwrap().der().clone(), key.into())
}

fn secret() -> TokenSecret {
    TokenSecret::new(SECRET.to_vec()).unwrap()
}

/// Starts a server that only takes connections in; its tunnels keep what clients ask for, if it is to serve bindings.
pub fn listen(sim: &Simulation, serves_bindings: bool, limits: &Limits) -> TunnelServer<SimRuntime> {
    let (certificate, key) = identity();
    let tokens = TokenKeys::new(vec![TokenKey::nameless(secret())]);
    let tls = ServerTls::new(vec![certificate], key, None).unwrap();
    let mut config = ServerConfig::new(tls, ListeningConfig::only(tokens));
    config.limits = limits.clone();
    config.serves_bindings = serves_bindings;
    TunnelServer::bind(sim.host(SERVER), SocketAddr::from((SERVER, PORT)), &config).unwrap()
}

/// Starts a server that forwards ports, until it is closed.
pub fn start_server(sim: &Simulation, limits: &Limits) -> Arc<TunnelServer<SimRuntime>> {
    let runtime = sim.host(SERVER);
    let server = Arc::new(listen(sim, true, limits));
    let serving = server.clone();
    let forwarder = Arc::new(PortForwarder::new(runtime.clone(), IpAddr::V4(SERVER), 1024..=65535));
    runtime.clone().spawn(async move {
        while let Some(event) = serving.next().await {
            if let ServerEvent::TunnelUp(tunnel) = event {
                let forwarder = forwarder.clone();
                runtime.spawn(async move { forwarder.serve(tunnel, |_| {}).await });
            }
        }
    });
    server
}

/// Connects to a host, asks for a port if there is a target, and does nothing else.
///
/// # Errors
/// Those of connecting.
pub async fn dial(
    sim: &Simulation,
    host: &str,
    target: Option<&RouteAddress>,
    serves_bindings: bool,
    limits: &Limits,
) -> Result<Connected<SimRuntime>, ConnectError> {
    let trust = Trust::Authorities(vec![identity().0]);
    let tls = ClientTls::new(trust, None).unwrap();
    let mut config = ClientConfig::new(tls, ConnectingConfig::only(secret()));
    config.limits = limits.clone();
    config.serves_bindings = serves_bindings;
    config.bindings.extend(target.map(|address| Binding { port: 0, address: address.clone() }));
    let to = Destination { host: host.to_owned(), port: PORT, server_name: "localhost".to_owned() };
    connect(&sim.host(CLIENT), &to, &config).await
}

/// A client that connects to a host, and asks for a port if there is a target.
///
/// # Errors
/// Those of connecting.
pub async fn connect_client(
    sim: &Simulation,
    host: &str,
    target: Option<SocketAddr>,
    limits: &Limits,
) -> Result<(Tunnel<SimRuntime>, Option<SocketAddr>), ConnectError> {
    let address = target.map(|target| RouteAddress::tcp(&target.ip().to_string(), target.port()).unwrap());
    let runtime = sim.host(CLIENT);
    let connected = dial(sim, host, address.as_ref(), false, limits).await?;
    let tunnel = connected.tunnel.clone();
    let router = Arc::new(TcpRouter::new(Policy::only(address)));
    runtime.spawn(async move { serve(&connected.tunnel, router).await });
    let mut port = None;
    for binding in connected.bindings {
        port = binding.bound().await.unwrap().first().copied();
    }
    Ok((tunnel, port))
}

/// A server and a client, without anybody who serves what they ask each other for.
pub struct Bare {
    /// The server.
    pub server: TunnelServer<SimRuntime>,
    /// The tunnel's end at the server.
    pub listening: Tunnel<SimRuntime>,
    /// The tunnel's end at the client.
    pub connecting: Tunnel<SimRuntime>,
}

impl Bare {
    /// Starts both sides, with these limits.
    pub async fn start(sim: &Simulation, limits: &Limits) -> Self {
        let server = listen(sim, true, limits);
        let connected = dial(sim, &SERVER.to_string(), None, true, limits).await.unwrap();
        let Some(ServerEvent::TunnelUp(listening)) = server.next().await else { unreachable!() };
        Self { server, listening, connecting: connected.tunnel }
    }

    /// Ends both sides, the client first.
    pub async fn stop(self) {
        self.connecting.close(Code::STOPPING, "client stopped");
        self.connecting.drained().await;
        self.server.close(Code::STOPPING, "server stopped").await;
    }
}

/// A server, a client, and a port that leads to a target.
pub struct Forwarding {
    /// The server.
    pub server: Arc<TunnelServer<SimRuntime>>,
    /// The client's end of the tunnel.
    pub tunnel: Tunnel<SimRuntime>,
    /// Where visitors connect to.
    pub port: SocketAddr,
}

impl Forwarding {
    /// Starts both sides, with these limits.
    pub async fn start(sim: &Simulation, target: SocketAddr, limits: &Limits) -> Self {
        let server = start_server(sim, limits);
        let (tunnel, port) = connect_client(sim, &SERVER.to_string(), Some(target), limits).await.unwrap();
        Self { server, tunnel, port: port.unwrap() }
    }

    /// Ends both sides, the client first.
    pub async fn stop(self) {
        self.tunnel.close(Code::STOPPING, "client stopped");
        self.tunnel.drained().await;
        self.server.close(Code::STOPPING, "server stopped").await;
    }
}
