//! Many tunnels that nobody uses, held by one process, each with a port on the server as tunnels have.

use std::net::SocketAddr;
use std::path::PathBuf;

use data_encoding::BASE64URL_NOPAD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use snocat_tokio::core::Code;
use snocat_tokio::core::auth::{ConnectingConfig, TokenSecret};
use snocat_tokio::core::route::RouteAddress;
use snocat_tokio::{Binding, ClientConfig, ClientTls, Destination, Tokio, Trust, Tunnel, connect};
use tokio::task::JoinSet;

use crate::Result;
use crate::role::{Arguments, hear, say};

/// The name of the role. Its arguments: the server's address, its certificate, the token, how many.
pub const ROLE: &str = "tunnels";

/// So many connect at once: below the number from which a server asks strangers of one source to come back.
const AT_ONCE: usize = 8;

/// The role: says "ready" when all are there, closes them when it is told so, and says "closed".
pub fn run(arguments: &Arguments<'_>) -> Result<()> {
    snocat_tests::enough_descriptors(16_384);
    let server = arguments.get::<SocketAddr>(0)?;
    let authority = CertificateDer::from_pem_file(arguments.get::<PathBuf>(1)?)?;
    let secret = std::fs::read_to_string(arguments.get::<PathBuf>(2)?)?;
    let count = arguments.get::<usize>(3)?;
    let secret = TokenSecret::new(BASE64URL_NOPAD.decode(secret.trim().as_bytes())?)?;
    let tls = ClientTls::new(Trust::Authorities(vec![authority]), None)?;
    let mut config = ClientConfig::new(tls, ConnectingConfig::only(secret));
    config.bindings.push(Binding { port: 0, address: RouteAddress::tcp("127.0.0.1", 9)? });
    let host = server.ip().to_string();
    let to = Destination { port: server.port(), server_name: host.clone(), host };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let tunnels = open(count, to, config).await?;
        say("ready")?;
        tokio::task::spawn_blocking(hear).await??;
        let lost = tunnels.iter().filter(|tunnel| tunnel.is_closed()).count();
        if lost > 0 {
            return Err(format!("{lost} of {count} idle tunnels have ended").into());
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

async fn open(count: usize, to: Destination, config: ClientConfig) -> Result<Vec<Tunnel>> {
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

async fn one(to: Destination, config: ClientConfig) -> Result<Tunnel> {
    let connected = connect(&Tokio::current()?, &to, &config).await?;
    for binding in connected.bindings {
        binding.bound().await?;
    }
    Ok(connected.tunnel)
}
