//! `snocat client`: opens a tunnel to a server, and connects what comes through it to one target.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_lite::future;
use snocat_driver::core::auth::ConnectingConfig;
use snocat_driver::core::route::{self, Policy, RouteAddress};
use snocat_driver::core::{CloseReason, Code};
use snocat_driver::{
    BindError, Binding, ClientConfig, ClientTls, Connected, Destination, Runtime, Tcp, TcpRouter, Tunnel,
    connect_watched, dial,
};

use crate::args::ClientArgs;
use crate::away::Away;
use crate::error::Error;
use crate::explain::{self, Attempt};
use crate::output::{self, Event, Output, Side};
use crate::server::{no_thread, within};
use crate::signal::{Reread, Signals, Stop};
use crate::values::HostPort;
use crate::{files, offer, tls, watch};

/// How long the end waits for the server to hear of it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a server may stay silent before the client says what it is trying, and how often it says so again.
const PATIENCE: Duration = Duration::from_secs(1);
const REPEAT: Duration = Duration::from_secs(4);

/// How long `--check-target` waits for the target.
const CHECK: Duration = Duration::from_secs(5);

/// Runs `snocat client` until `stop` or until the tunnel ends.
///
/// # Errors
/// There is no tunnel or no port on the server, or the tunnel ended without being asked to.
pub async fn run<R: Runtime>(
    runtime: R,
    arguments: ClientArgs,
    output: Output,
    signals: Signals,
) -> Result<(), Error> {
    let away = Away::start().map_err(|error| no_thread(&error))?;
    let arguments = Arc::new(arguments);
    let Some(files) = signals.stop.unless(read(&away, &arguments)).await else {
        output.event(&Event::Stopped);
        return Ok(());
    };
    let (authentication, tls) = files?;
    let target = target(&arguments.target)?;
    let mut config = ClientConfig::new(tls, authentication);
    config.bindings = vec![Binding { port: arguments.port.unwrap_or(0), address: target.clone() }];
    config.congestion = arguments.sending.congestion.into();
    let destination = Destination {
        host: arguments.driver.host.clone(),
        port: arguments.driver.port,
        server_name: arguments.server_name(),
    };
    let attempt = Attempt::from(&*arguments);
    let address = target.clone();
    let check = async {
        if arguments.check_target {
            check(&runtime, &address).await;
        }
        future::pending().await
    };
    let target = Target { address: target, keep_alive: arguments.sending.keep_alive() };
    let tell = |event| output.event(&event);
    let session = session(&runtime, &destination, &config, target, &attempt, tell, &signals.stop);
    let besides = future::or(check, check_on_hangup(&runtime, &away, &arguments, &signals.reread));
    future::or(session, besides).await?;
    output.event(&Event::Stopped);
    Ok(())
}

/// Reads the files: what to show the server, and whom to trust.
async fn read(away: &Away, arguments: &Arc<ClientArgs>) -> Result<(ConnectingConfig, ClientTls), Error> {
    let arguments = arguments.clone();
    away.ask(move || read_now(&arguments)).await
}

fn read_now(arguments: &ClientArgs) -> Result<(ConnectingConfig, ClientTls), Error> {
    Ok((offer::read(arguments)?, tls::client(arguments)?))
}

/// Reads the files again when that is asked for, and tells whether they can be used. A tunnel that is up does not need
/// them any more.
async fn check_on_hangup<R: Runtime, T>(
    runtime: &R,
    away: &Away,
    arguments: &Arc<ClientArgs>,
    reread: &Reread,
) -> T {
    loop {
        reread.requested().await;
        let arguments = arguments.clone();
        let checked = away.ask(move || match arguments.files().find(|path| files::regular(path).is_err()) {
            Some(path) => Err(format!("{} is no regular file, and can be read only once", path.display())),
            None => read_now(&arguments)
                .map(drop)
                .map_err(|error| format!("{error}; the next start of the client will fail")),
        });
        match within(runtime, watch::PATIENCE, checked).await {
            Some(Ok(())) => {
                output::note("read the files again: the next start of the client takes what they hold now");
            }
            Some(Err(problem)) => output::warning(problem),
            None => output::warning("cannot read the files again: the file system does not answer"),
        }
    }
}

/// The route address of a target.
pub(crate) fn target(target: &HostPort) -> Result<RouteAddress, Error> {
    RouteAddress::tcp(&target.host, target.port).map_err(|error| {
        Error::usage(format_args!("{target} cannot be a target: {error}"), "choose another --target")
    })
}

/// What a client lets be reached.
pub(crate) struct Target {
    /// Where it is.
    pub(crate) address: RouteAddress,
    /// How long a connection to it may be silent before the system asks whether it is still there.
    pub(crate) keep_alive: Option<Duration>,
}

/// A tunnel's whole life: connects, then lets `target` and nothing else be reached through it, until `stop`.
///
/// # Errors
/// There is no tunnel or no port on the server, or the tunnel ended without being asked to.
pub(crate) async fn session<R: Runtime>(
    runtime: &R,
    destination: &Destination,
    config: &ClientConfig,
    target: Target,
    attempt: &Attempt,
    tell: impl Fn(Event),
    stop: &Stop,
) -> Result<(), Error> {
    let stopped = async {
        stop.requested().await;
        None
    };
    let tried = Mutex::new(Vec::new());
    let trying = |address| tried.lock().unwrap_or_else(PoisonError::into_inner).push(address);
    let connecting = async { Some(connect_watched(runtime, destination, config, trying).await) };
    let since = SystemTime::now();
    let waiting = async {
        let mut next = runtime.now() + PATIENCE;
        loop {
            runtime.sleep_until(next).await;
            next += REPEAT;
            let addresses = tried.lock().unwrap_or_else(PoisonError::into_inner).clone();
            tell(Event::Connecting { driver: attempt.driver.clone(), addresses, since });
        }
    };
    match future::or(stopped, future::or(connecting, waiting)).await {
        None => Ok(()),
        Some(Err(error)) => Err(attempt.connect(&error)),
        Some(Ok(connected)) => serve(runtime, connected, target, attempt, tell, stop).await,
    }
}

/// What ends a client's tunnel.
enum End {
    /// The user.
    Stopped,
    /// The tunnel itself.
    Closed(CloseReason),
    /// There is no use for it without a port on the server.
    NoPort(Error),
}

async fn serve<R: Runtime>(
    runtime: &R,
    connected: Connected<R>,
    target: Target,
    attempt: &Attempt,
    tell: impl Fn(Event),
    stop: &Stop,
) -> Result<(), Error> {
    let Connected { tunnel, bindings } = connected;
    let name = tunnel.name().to_owned();
    tell(Event::TunnelUp {
        tunnel: name.clone(),
        remote: tunnel.remote_address(),
        side: Side::Client,
        method: tunnel.outcome().method.clone(),
        identity: None,
    });

    let router =
        Arc::new(TcpRouter::new(Policy::only([target.address.clone()])).keep_alive(target.keep_alive));
    let stopped = async {
        stop.requested().await;
        End::Stopped
    };
    let closed = async { End::Closed(tunnel.closed().await) };
    let bound = async {
        for binding in bindings {
            match binding.bound().await {
                Ok(addresses) => {
                    let addresses = explain::reachable(addresses, tunnel.remote_address());
                    tell(explain::bound(&name, addresses, &target.address));
                }
                // The tunnel says so itself.
                Err(BindError::Closed(_)) => break,
                Err(error) => return End::NoPort(attempt.bind(&error)),
            }
        }
        future::pending().await
    };
    let streams = async {
        snocat_driver::serve(&tunnel, router).await;
        future::pending().await
    };
    match future::or(future::or(stopped, closed), future::or(bound, streams)).await {
        End::Stopped => {
            close(runtime, &tunnel, Code::STOPPING, "client stopped").await;
            Ok(())
        }
        End::Closed(reason) => {
            tell(Event::TunnelDown { tunnel: name, reason: reason.to_string() });
            Err(attempt.closed(&reason))
        }
        End::NoPort(error) => {
            close(runtime, &tunnel, Code::CLOSED, "no use without a port").await;
            Err(error)
        }
    }
}

async fn close<R: Runtime>(runtime: &R, tunnel: &Tunnel<R>, code: Code, text: &str) {
    tunnel.close(code, text);
    within(runtime, LAST_WORDS, tunnel.drained()).await;
}

/// Warns if the target cannot be connected to yet. That is no reason not to start: it may come later.
async fn check<R: Runtime>(runtime: &R, address: &RouteAddress) {
    let Ok(target) = route::Target::try_from(address) else { return };
    let problem = match within(runtime, CHECK, dial(runtime, &target)).await {
        Some(Ok(tcp)) => {
            // Nothing was sent: an ordinary end is all the target is to see.
            let _it_may_be_gone = tcp.close_with_reset(false);
            return;
        }
        Some(Err(refusal)) => refusal.text,
        None => format!("{target} does not answer"),
    };
    output::warning(format_args!("{problem}; visitors are turned away until that can be reached"));
}
