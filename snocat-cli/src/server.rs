//! `snocat server`: takes tunnels, and forwards TCP ports of this machine into them.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;
use snocat_driver::core::route::Policy;
use snocat_driver::core::{AdmissionCounts, Code};
use snocat_driver::{
    Bound, PortForwarder, Runtime, ServerConfig, ServerEvent, TcpRouter, Tunnel, TunnelServer,
};

use crate::accept::Accepted;
use crate::args::ServerArgs;
use crate::away::Away;
use crate::error::Error;
use crate::output::{self, Event, Output, Side};
use crate::signal::{Signals, Stop};
use crate::state;
use crate::values::Ports;
use crate::{expiry, explain};

/// How often at most it is told that strangers were turned away.
const STRANGERS: Duration = Duration::from_secs(10);

/// How long the end waits for clients to hear of it. The driver gives up after a second by itself.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// Runs `snocat server` until `stop`.
///
/// # Errors
/// It cannot start: nobody decided about authentication, a file is missing, the address is taken …
pub async fn run<R: Runtime>(
    runtime: R,
    arguments: ServerArgs,
    output: Output,
    signals: Signals,
) -> Result<(), Error> {
    let away = Away::start().map_err(|error| no_thread(&error))?;
    let arguments = Arc::new(arguments);
    let read = away.ask({
        let arguments = arguments.clone();
        move || {
            let accepted = Accepted::read(&arguments)?;
            let reset_secret = arguments.state.as_deref().map(state::reset_secret).transpose()?;
            Ok::<_, Error>((accepted, reset_secret))
        }
    });
    let Some(read) = signals.stop.unless(read).await else {
        output.event(&Event::Stopped);
        return Ok(());
    };
    let (accepted, reset_secret) = read?;
    if accepted.everybody() && !arguments.quic.ip().is_loopback() {
        output::warning(format_args!(
            "with --auth none, whoever can send UDP to {} gets a port of this machine",
            arguments.quic
        ));
    }
    let mut config = ServerConfig::new(accepted.tls(), accepted.config());
    config.limits = arguments.strangers.limits();
    config.congestion = arguments.sending.congestion.into();
    config.reset_secret = reset_secret;
    config.serves_bindings = true;
    let forwarder = PortForwarder::new(runtime.clone(), arguments.tcp, arguments.ports.0.clone())
        .keep_alive(arguments.sending.keep_alive());
    check_ports(&forwarder, arguments.tcp, &arguments.ports)?;
    let server = bind(&runtime, arguments.quic, &config)?;
    output.event(&Event::Listening { quic: server.local_addr() });
    let tls = accepted.tls();
    let watching = future::zip(watch_strangers(&runtime, &server, &output), expiry::watch(&runtime, &tls));
    let never = async {
        let current = accepted.keep_current(&runtime, &away, &server, &output, &signals.reread);
        future::zip(current, watching).await;
        future::pending().await
    };
    future::or(serve(&runtime, &server, Arc::new(forwarder), &output, &signals.stop), never).await?;
    output.event(&Event::Stopped);
    Ok(())
}

/// Fails if clients could get no port, and warns if they cannot get some.
fn check_ports<R: Runtime>(forwarder: &PortForwarder<R>, tcp: IpAddr, ports: &Ports) -> Result<(), Error> {
    match forwarder.check() {
        Ok(None) => Ok(()),
        Ok(Some(reserved)) => {
            output::warning(format_args!(
                "this process has no right to listen on ports {} to {}: clients get the others of --ports",
                reserved.start(),
                reserved.end()
            ));
            Ok(())
        }
        Err(error) => Err(match error.kind() {
            io::ErrorKind::AddrNotAvailable => Error::failed(
                format_args!("cannot listen on {tcp}: this machine does not have that address"),
                "give one that it has with --tcp, or 0.0.0.0 or :: for all",
            ),
            io::ErrorKind::PermissionDenied => Error::failed(
                format_args!("this process has no right to listen on ports {ports}"),
                "choose --ports above 1023, or give it the right (CAP_NET_BIND_SERVICE)",
            ),
            _ => Error::failed(
                format_args!("cannot listen on ports {ports} of {tcp}: {error}"),
                "choose another --tcp or other --ports",
            ),
        }),
    }
}

/// That there is no thread to read files.
pub(crate) fn no_thread(error: &io::Error) -> Error {
    Error::failed(format_args!("cannot start: {error}"), "the system may be short of threads")
}

/// Tells when strangers were turned away in one way or another: not each time, they can be many.
async fn watch_strangers<R: Runtime>(runtime: &R, server: &TunnelServer<R>, output: &Output) {
    let unwelcome = |counts: &AdmissionCounts| {
        (counts.retried, counts.ignored_total, counts.ignored_source, counts.refused)
    };
    let mut told = AdmissionCounts::default();
    loop {
        runtime.sleep_until(runtime.now() + STRANGERS).await;
        let counts = server.admission();
        if unwelcome(&counts) != unwelcome(&told) {
            output.event(&Event::Strangers(counts));
            told = counts;
        }
    }
}

/// Binds the UDP address `quic`.
pub(crate) fn bind<R: Runtime>(
    runtime: &R,
    quic: SocketAddr,
    config: &ServerConfig,
) -> Result<TunnelServer<R>, Error> {
    TunnelServer::bind(runtime.clone(), quic, config).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "another program has it: choose another --quic, or port 0 for any",
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address: choose another --quic"
            }
            io::ErrorKind::PermissionDenied => "choose a --quic port above 1023",
            _ => "choose another --quic",
        };
        Error::failed(format_args!("cannot listen on {quic}: {error}"), advice)
    })
}

/// Forwards ports into the tunnels that `server` takes, and tells about it, until `stop`.
///
/// # Errors
/// It ended without being asked to.
pub(crate) async fn serve<R: Runtime>(
    runtime: &R,
    server: &TunnelServer<R>,
    forwarder: Arc<PortForwarder<R>>,
    output: &Output,
    stop: &Stop,
) -> Result<(), Error> {
    let tell = |event: ServerEvent<R>| match event {
        ServerEvent::TunnelUp(tunnel) => {
            output.event(&Event::TunnelUp {
                tunnel: tunnel.name().to_owned(),
                remote: tunnel.remote_address(),
                side: Side::Server,
                method: tunnel.outcome().method.clone(),
                identity: tunnel.outcome().identity().map(str::to_owned),
            });
            runtime.spawn(serve_tunnel(tunnel, forwarder.clone(), output.clone()));
        }
        ServerEvent::TunnelDown { tunnel, reason } => {
            let tunnel = tunnel.name().to_owned();
            output.event(&Event::TunnelDown { tunnel, reason: reason.to_string() });
        }
        _ => {}
    };
    let events = || async {
        while let Some(event) = server.next().await {
            tell(event);
        }
    };
    let stopped = async {
        stop.requested().await;
        true
    };
    let ended = async {
        events().await;
        false
    };
    if !future::or(stopped, ended).await {
        return Err(Error::failed("the socket of --quic failed", "see the log, then start the server again"));
    }
    let close = server.close(Code::STOPPING, "server stopped");
    within(runtime, LAST_WORDS, future::zip(close, events())).await;
    Ok(())
}

/// Gives the client the ports it asks for. Streams that it opens itself lead nowhere: they are refused.
async fn serve_tunnel<R: Runtime>(tunnel: Tunnel<R>, forwarder: Arc<PortForwarder<R>>, output: Output) {
    let on_bound = |bound: &Bound| {
        output.event(&explain::bound(&bound.tunnel, bound.addresses.clone(), &bound.target));
    };
    let nowhere = Arc::new(TcpRouter::new(Policy::default()));
    future::zip(forwarder.serve(tunnel.clone(), on_bound), snocat_driver::serve(&tunnel, nowhere)).await;
}

/// Waits for `what`, but not longer than `time`.
pub(crate) async fn within<R: Runtime, T>(
    runtime: &R,
    time: Duration,
    what: impl Future<Output = T>,
) -> Option<T> {
    let limit = runtime.sleep_until(runtime.now() + time);
    future::or(async { Some(what.await) }, async {
        limit.await;
        None
    })
    .await
}
