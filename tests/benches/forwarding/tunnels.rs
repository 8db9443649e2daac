//! Many tunnels, held by one process, each with a port on the server as tunnels have.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use snocat_tokio::core::Code;
use snocat_tokio::core::auth::{ConnectingConfig, TokenSecret};
use snocat_tokio::core::route::{Policy, RouteAddress};
use snocat_tokio::{
    Binding, ClientConfig, ClientTls, Destination, TcpRouter, Tokio, Trust, Tunnel, connect, serve,
};
use tokio::task::JoinSet;

use crate::Result;
use crate::role::{Arguments, hear, say};

/// The name of the role. Its arguments: the server's address, its certificate, the token, how many, and where their visitors
/// go: if that is missing, nobody may visit them.
pub const ROLE: &str = "tunnels";

/// So many connect at once: below the number from which a server asks strangers of one source to come back.
const AT_ONCE: usize = 8;

/// The role: says "ready" when all are there. Asked for "ports", it says where to visit each; asked for "stayed", how many are
/// still up. Whatever else it hears, it closes them, and says "closed".
pub fn run(arguments: &Arguments<'_>) -> Result<()> {
    snocat_tests::enough_descriptors(16_384);
    let server = arguments.get::<SocketAddr>(0)?;
    let authority = CertificateDer::from_pem_file(arguments.get::<PathBuf>(1)?)?;
    let secret = std::fs::read_to_string(arguments.get::<PathBuf>(2)?)?;
    let count = arguments.get::<usize>(3)?;
    let secret = secret.trim().parse::<TokenSecret>()?;
    let tls = ClientTls::new(Trust::Authorities(vec![authority]), None)?;
    let mut config = ClientConfig::new(tls, ConnectingConfig::only(secret));
    let target = arguments.get::<SocketAddr>(4).ok();
    let discard = SocketAddr::from(([127, 0, 0, 1], 9));
    let address = target.unwrap_or(discard);
    let address = RouteAddress::tcp(&address.ip().to_string(), address.port())?;
    config.bindings.push(Binding { port: 0, address: address.clone() });
    let router = Arc::new(TcpRouter::new(Policy::only(target.map(|_| address))));
    let host = server.ip().to_string();
    let to = Destination { port: server.port(), server_name: host.clone(), host };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let (tunnels, ports): (Vec<_>, Vec<_>) = open(count, to, config).await?.into_iter().unzip();
        for tunnel in &tunnels {
            let (tunnel, router) = (tunnel.clone(), router.clone());
            tokio::spawn(async move { serve(&tunnel, router).await });
        }
        say("ready")?;
        let stayed = || tunnels.iter().filter(|tunnel| !tunnel.is_closed()).count();
        loop {
            match tokio::task::spawn_blocking(hear).await??.as_deref() {
                Some("ports") => say(ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))?,
                Some("stayed") => say(stayed())?,
                _ => break,
            }
        }
        if stayed() < count {
            return Err(format!("{} of {count} tunnels have ended", count - stayed()).into());
        }
        for tunnel in &tunnels {
            tunnel.close(Code::STOPPING, "the benchmark is over");
        }
        for tunnel in &tunnels {
            tunnel.drained().await;
        }
        say("closed")
    })
}

async fn open(count: usize, to: Destination, config: ClientConfig) -> Result<Vec<(Tunnel, u16)>> {
    let (mut tunnels, mut opening) = (Vec::new(), JoinSet::new());
    for _ in 0..count {
        if opening.len() == AT_ONCE {
            tunnels.extend(opening.join_next().await.transpose()?.transpose()?);
        }
        opening.spawn(one(to.clone(), config.clone()));
    }
    while let Some(tunnel) = opening.join_next().await {
        tunnels.push(tunnel??);
    }
    Ok(tunnels)
}

async fn one(to: Destination, config: ClientConfig) -> Result<(Tunnel, u16)> {
    let connected = connect(&Tokio::current()?, &to, &config).await?;
    let mut port = None;
    for binding in connected.bindings {
        port = binding.bound().await?.first().map(SocketAddr::port);
    }
    Ok((connected.tunnel, port.ok_or("a binding without an address")?))
}
