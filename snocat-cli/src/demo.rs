//! `snocat demo`: the main job on one machine, in one process, over a real QUIC tunnel on loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use futures_lite::future;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use snocat_driver::core::auth::{
    ConnectingConfig, ListeningConfig, TokenKey, TokenKeys, TokenSecret, TunnelName,
};
use snocat_driver::{
    Binding, ClientConfig, ClientTls, Destination, PortForwarder, Runtime, ServerConfig, ServerTls, Trust,
};

use crate::args::DemoArgs;
use crate::error::Error;
use crate::explain::Attempt;
use crate::keylog::key_log;
use crate::methods::{Method, Methods};
use crate::output::{self, Event, Output};
use crate::signal::{Signals, Stop};
use crate::values::HostPort;
use crate::{cert, client, page, server, token};

/// Everything happens here.
const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Where the page appears: the first of these ports that is free.
const PORTS: RangeInclusive<u16> = 8080..=8179;

/// The tunnel's name.
const NAME: &str = "demo";

/// Runs `snocat demo`: until `stop`, or with `--once` until the page was fetched.
///
/// # Errors
/// A link of the chain from the visitor to the page does not hold.
pub async fn run<R: Runtime>(
    runtime: R,
    arguments: DemoArgs,
    output: Output,
    signals: Signals,
) -> Result<(), Error> {
    let stop = signals.stop;
    let page = page::serve().map_err(|error| cannot("serve a page", &error))?;
    let any = SocketAddr::from((HOST, 0));
    let (server_config, client_tls, secret) = secrets()?;
    let server = server::bind(&runtime, any, &server_config)?;
    output.event(&Event::Listening { quic: server.local_addr() });
    let forwarder = Arc::new(PortForwarder::new(runtime.clone(), HOST.into(), PORTS));

    let target = client::target(&HostPort { host: page.ip().to_string(), port: page.port() })?;
    let name = NAME.parse::<TunnelName>().ok();
    let authentication = ConnectingConfig { name, ..ConnectingConfig::only(secret) };
    let mut config = ClientConfig::new(client_tls, authentication);
    config.bindings = vec![Binding { port: 0, address: target.clone() }];
    let destination = Destination {
        host: HOST.to_string(),
        port: server.local_addr().port(),
        server_name: HOST.to_string(),
    };
    let attempt = Attempt {
        driver: server.local_addr().to_string(),
        server_name: HOST.to_string(),
        authority: true,
        methods: Methods::together([Method::Token]),
        name: Some(NAME.to_owned()),
        port: None,
    };

    let fetched = Fetched::default();
    // The server tells of the same tunnel; what it does not know is that now there is something to look at.
    let tell = |event: Event| {
        let Event::Bound { addresses, .. } = event else { return };
        let Some(address) = addresses.first().copied() else { return };
        if arguments.once {
            output.say(format_args!("fetching http://{address}/"));
            fetched.fetch(address, stop.clone());
        } else {
            output.say(format_args!("\nOpen http://{address}/ in a browser. Ctrl-C ends the demo."));
        }
    };
    let serving = async {
        let done = server::serve(&runtime, &server, forwarder, &output, &stop).await;
        stop.request();
        done
    };
    let connecting = async {
        let target = client::Target { address: target, keep_alive: None };
        let done = client::session(&runtime, &destination, &config, target, &attempt, tell, &stop).await;
        stop.request();
        done
    };
    // It has no files: the terminal is gone.
    let hung_up = async {
        signals.reread.requested().await;
        stop.request();
        future::pending().await
    };
    let (served, connected) = future::or(future::zip(serving, connecting), hung_up).await;
    connected.and(served)?;
    if arguments.once {
        let page = fetched.take()?;
        output.flush();
        output::result(&format!("\n{}", page.trim_end()))?;
    } else {
        output.event(&Event::Stopped);
    }
    Ok(())
}

/// What the two sides need to know of each other, made for this one time.
fn secrets() -> Result<(ServerConfig, ClientTls, TokenSecret), Error> {
    let made = cert::make(&[IpAddr::from(HOST).into()], 1)?;
    let certificate = CertificateDer::from_pem_slice(made.certificate.as_bytes())
        .map_err(|error| cannot("read a certificate", &error))?;
    let key =
        PrivateKeyDer::from_pem_slice(made.key.as_bytes()).map_err(|error| cannot("read a key", &error))?;
    let server_tls = ServerTls::new(vec![certificate.clone()], key, key_log())
        .map_err(|error| cannot("use a certificate", &error))?;
    let client_tls = ClientTls::new(Trust::Authorities(vec![certificate]), key_log())
        .map_err(|error| cannot("trust a certificate", &error))?;
    let secret = token::random()?;
    let keys = TokenKeys::new(vec![TokenKey::of(NAME, secret.clone())]);
    let authentication = ListeningConfig::only(keys);
    let mut server = ServerConfig::new(server_tls, authentication);
    server.serves_bindings = true;
    Ok((server, client_tls, secret))
}

fn cannot(what: &str, error: &dyn std::error::Error) -> Error {
    Error::failed(format_args!("cannot {what}: {error}"), "run the demo with RUST_LOG=debug to see more")
}

/// The page as it came back through the tunnel, once it has.
#[derive(Clone, Default)]
struct Fetched(Arc<Mutex<Option<io::Result<String>>>>);

impl Fetched {
    /// Fetches on a thread of its own, as a visitor would; then there is nothing left to do.
    fn fetch(&self, address: SocketAddr, stop: Stop) {
        let fetched = self.clone();
        let visit = move || {
            let page = page::fetch(address);
            *fetched.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(page);
            stop.request();
        };
        if let Err(error) = thread::Builder::new().name("visitor".into()).spawn(visit) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Err(error));
        }
    }

    fn take(&self) -> Result<String, Error> {
        let page = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match page {
            Some(Ok(page)) => Ok(page),
            Some(Err(error)) => Err(cannot("fetch the page through the tunnel", &error)),
            None => Err(Error::failed("stopped before the page came through", "let the demo run to its end")),
        }
    }
}
