//! A tunnel server: forwards the ports 8080 to 8090 of this machine for clients that know the
//! secret, which is one that `snocat token` makes.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use snocat_smol::core::auth::{ListeningConfig, TokenKey, TokenKeys, TokenSecret};
use snocat_smol::driver::Runtime;
use snocat_smol::driver::rustls::pki_types::pem::PemObject;
use snocat_smol::driver::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use snocat_smol::{PortForwarder, ServerConfig, ServerEvent, ServerTls, Smol, TunnelServer};

/// Runs the server until it is closed; `ready` learns the address that clients connect to.
pub async fn run(
    runtime: Smol,
    tls: ServerTls,
    secret: TokenSecret,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), Box<dyn Error>> {
    let key = TokenKey::nameless(secret);
    let authentication = ListeningConfig::only(TokenKeys::new(vec![key]));
    let mut config = ServerConfig::new(tls, authentication);
    config.serves_bindings = true;
    let server = TunnelServer::bind(runtime.clone(), "127.0.0.1:0".parse()?, &config)?;
    ready(server.local_addr());
    let ports = Arc::new(PortForwarder::new(runtime.clone(), [127, 0, 0, 1].into(), 8080..=8090));
    while let Some(event) = server.next().await {
        match event {
            ServerEvent::TunnelUp(tunnel) => {
                let ports = ports.clone();
                runtime.spawn(async move { ports.serve(tunnel, |bound| println!("{bound:?}")).await });
            }
            ServerEvent::TunnelDown { tunnel, reason } => println!("{} is down: {reason}", tunnel.name()),
            _ => {}
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let [cert, key, secret] = arguments("usage: server CERT.pem KEY.pem SECRET")?;
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
    let tls = ServerTls::new(chain, PrivateKeyDer::from_pem_file(key)?, None)?;
    let executor = Arc::new(async_executor::Executor::new());
    let server =
        run(Smol::new(executor.clone()), tls, secret.parse()?, |quic| println!("listening on {quic}"));
    async_io::block_on(executor.run(server))
}

fn arguments<const N: usize>(usage: &str) -> Result<[String; N], Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.try_into().map_err(|_| usage.into())
}
