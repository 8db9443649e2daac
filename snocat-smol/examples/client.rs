//! A tunnel client: offers one TCP service of its own network on a port of the server.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use snocat_smol::core::auth::{ConnectingConfig, TokenSecret};
use snocat_smol::core::route::{Policy, RouteAddress};
use snocat_smol::driver::rustls::pki_types::CertificateDer;
use snocat_smol::driver::rustls::pki_types::pem::PemObject;
use snocat_smol::{Binding, ClientConfig, ClientTls, Destination, Smol, TcpRouter, Trust, connect, serve};

/// Runs the client until the tunnel ends; `ready` learns where visitors are taken in.
pub async fn run(
    runtime: Smol,
    to: &Destination,
    tls: ClientTls,
    secret: TokenSecret,
    target: SocketAddr,
    ready: impl FnOnce(&[SocketAddr]),
) -> Result<(), Box<dyn Error>> {
    let address = RouteAddress::tcp(&target.ip().to_string(), target.port())?;
    let mut config = ClientConfig::new(tls, ConnectingConfig::only(secret));
    config.bindings.push(Binding { port: 0, address: address.clone() });
    let connected = connect(&runtime, to, &config).await?;
    if let Some(binding) = connected.bindings.into_iter().next() {
        ready(&binding.bound().await?);
    }
    // Whatever the server asks for, only the target is reachable.
    serve(&connected.tunnel, Arc::new(TcpRouter::new(Policy::only([address])))).await;
    Err(connected.tunnel.closed().await.to_string().into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let [host, port, authority, secret, target] =
        arguments("usage: client HOST PORT CERT.pem SECRET TARGET")?;
    let authority = CertificateDer::from_pem_file(authority)?;
    let tls = ClientTls::new(Trust::Authorities(vec![authority]), None)?;
    let to = Destination { port: port.parse()?, server_name: host.clone(), host };
    let ready = |visitors: &[SocketAddr]| println!("forwarding {visitors:?}");
    let executor = Arc::new(async_executor::Executor::new());
    let client = run(Smol::new(executor.clone()), &to, tls, secret.parse()?, target.parse()?, ready);
    async_io::block_on(executor.run(client))
}

fn arguments<const N: usize>(usage: &str) -> Result<[String; N], Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.try_into().map_err(|_| usage.into())
}
