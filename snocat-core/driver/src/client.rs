//! The client: finds the server, races its addresses, and returns with an authenticated tunnel.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use snocat_core::auth::Outcome;
use snocat_core::{BindingId, CloseReason, ClosedBy, Code, Refusal, TunnelError};

use crate::cell::Cell;
use crate::config::ClientConfig;
use crate::driver::Driver;
use crate::race::{interleave, race};
use crate::runtime::Runtime;
use crate::state::{Start, State};
use crate::sync::wait;
use crate::tls::{CertificateProblem, TlsError};
use crate::tunnel::{PendingBinding, Tunnel};

/// Where a client goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// A name or an IP address.
    pub host: String,
    /// The UDP port.
    pub port: u16,
    /// The name that the server's certificate must be valid for; mostly the host.
    pub server_name: String,
}

/// A tunnel that is up, and the ports that were asked for along with it.
#[derive(Debug)]
pub struct Connected<R: Runtime> {
    /// The tunnel.
    pub tunnel: Tunnel<R>,
    /// The answers to [`ClientConfig::bindings`], in the same order.
    pub bindings: Vec<PendingBinding<R>>,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host's addresses could not be found.
    #[error("cannot find the addresses of `{host}`: {source}")]
    Resolve {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The host has no addresses.
    #[error("`{0}` has no addresses")]
    NoAddress(String),
    /// No UDP socket could be had.
    #[error("no UDP socket: {0}")]
    Socket(#[source] io::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The destination cannot be connected to.
    #[error(transparent)]
    Destination(#[from] snocat_core::ConnectError),
    /// Nobody answered in time.
    #[error("no answer from {}", list(.addresses))]
    NoAnswer {
        /// Where the attempts went.
        addresses: Vec<SocketAddr>,
        /// Whether the server's host said that nothing listens there. A hint: anybody on the way can forge it.
        unreachable: bool,
    },
    /// The server answered and completed the handshake, and then did not say in time whether it lets this client in.
    #[error("{0} does not decide over the credentials")]
    Undecided(SocketAddr),
    /// The server's certificate was turned down.
    #[error("the server's certificate is not acceptable ({problem:?}): {reason}")]
    Certificate {
        /// What is wrong with it.
        problem: CertificateProblem,
        /// How the attempt ended.
        reason: CloseReason,
    },
    /// The tunnel ended before it was up: one side turned the other away.
    #[error("{0}")]
    Closed(CloseReason),
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Connects, authenticates, and asks for the bindings of `config`.
///
/// All addresses of the host are raced, 250 ms apart, because UDP to a port that nobody listens on is silent; only
/// the first to complete the handshake authenticates. Gives up if no handshake is done within
/// [`Limits::authentication_time`](snocat_core::Limits::authentication_time), and an address whose host says that nothing
/// listens there, after [`Limits::refusal_time`](snocat_core::Limits::refusal_time). Once the handshake is done, the server
/// has the authentication time again, and a second, to let the client in.
///
/// Dropped before it is done, it tells the server that it has given up.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect<R: Runtime>(
    runtime: &R,
    to: &Destination,
    config: &ClientConfig,
) -> Result<Connected<R>, ConnectError> {
    connect_watched(runtime, to, config, |_| ()).await
}

/// [`connect`], which says of each address that it begins to try it.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect_watched<R: Runtime>(
    runtime: &R,
    to: &Destination,
    config: &ClientConfig,
    trying: impl Fn(SocketAddr),
) -> Result<Connected<R>, ConnectError> {
    let deadline = runtime.now() + config.limits.authentication_time;
    let resolved = futures_lite::future::or(runtime.resolve(&to.host, to.port), async {
        runtime.sleep_until(deadline).await;
        Err(io::ErrorKind::TimedOut.into())
    });
    let resolved =
        resolved.await.map_err(|source| ConnectError::Resolve { host: to.host.clone(), source })?;
    let addresses = interleave(resolved);
    if addresses.is_empty() {
        return Err(ConnectError::NoAddress(to.host.clone()));
    }
    let won = Arc::new(AtomicBool::new(false));
    let alone = addresses.len() == 1;
    let attempts = addresses.into_iter().map(|address| {
        let start = if alone { Start::AtOnce } else { Start::Racing(won.clone()) };
        trying(address);
        attempt(runtime, address, to, config, start, deadline)
    });
    match race(runtime, attempts).await {
        Ok(result) => result,
        Err(failures) => Err(worst(failures).unwrap_or(ConnectError::NoAddress(to.host.clone()))),
    }
}

/// How often an attempt looks whether it was refused.
const LOOK: Duration = Duration::from_millis(100);

/// One attempt. An error of the outer kind lets the next address try; one of the inner kind is the server's last
/// word.
async fn attempt<R: Runtime>(
    runtime: &R,
    address: SocketAddr,
    to: &Destination,
    config: &ClientConfig,
    start: Start,
    deadline: Instant,
) -> Result<Result<Connected<R>, ConnectError>, ConnectError> {
    let (driver, socket) =
        Driver::client(runtime.clone(), address.ip(), config).map_err(ConnectError::Socket)?;
    let tls = config.tls.attempt()?;
    let won = match &start {
        Start::AtOnce => None,
        Start::Racing(won) => Some(won.clone()),
    };
    let cell = driver.connect(&socket, config, &tls, start, address, &to.server_name)?;
    let attempt = Attempt { cell: &cell, won };
    let bindings: Vec<Result<BindingId, TunnelError>> = cell.peek(|state| {
        let ask = |binding: &crate::Binding| {
            state.tunnel.request_binding(state.now, binding.port, &binding.address)
        };
        config.bindings.iter().map(ask).collect()
    });
    driver.run(socket);
    cell.run();
    let outcome = futures_lite::future::or(outcome(&cell), async {
        while runtime.now() < deadline {
            runtime.sleep_until(deadline.min(runtime.now() + LOOK)).await;
            driver.look_for_refusals();
        }
        if cell.peek(|state| state.tunnel.is_connected()) {
            // From here on the tunnel keeps the time.
            std::future::pending::<()>().await;
        }
        let refusal = Refusal::new(Code::TIMEOUT, "no answer in time");
        cell.close(refusal.clone());
        Err(CloseReason::local(refusal))
    });
    match outcome.await {
        Ok(outcome) => {
            attempt.succeeded();
            let tunnel = Tunnel::new(cell, outcome);
            let bindings = bindings.into_iter().map(|id| tunnel.pending(id)).collect();
            Ok(Ok(Connected { tunnel, bindings }))
        }
        Err(reason) => {
            let (unreachable, connected) =
                cell.peek(|state| (state.unreachable, state.tunnel.is_connected()));
            match reason.by {
                ClosedBy::Handshake(_) => match tls.problem() {
                    Some(problem) => Err(ConnectError::Certificate { problem, reason }),
                    None => Err(ConnectError::Closed(reason)),
                },
                ClosedBy::Local if reason.code == Code::TIMEOUT && connected => {
                    Ok(Err(ConnectError::Undecided(address)))
                }
                ClosedBy::Local if reason.code == Code::TIMEOUT => {
                    Err(ConnectError::NoAnswer { addresses: vec![address], unreachable })
                }
                ClosedBy::Idle if unreachable => {
                    Err(ConnectError::NoAnswer { addresses: vec![address], unreachable })
                }
                ClosedBy::Local if reason.code == Code::LOST_RACE => Err(ConnectError::Closed(reason)),
                ClosedBy::Peer | ClosedBy::Local => Ok(Err(ConnectError::Closed(reason))),
                _ => Err(ConnectError::Closed(reason)),
            }
        }
    }
}

/// An attempt that is given up ends its tunnel.
struct Attempt<'a, R: Runtime> {
    cell: &'a Arc<Cell<R>>,
    /// Set once one of several attempts has got through the handshake.
    won: Option<Arc<AtomicBool>>,
}

impl<R: Runtime> Attempt<'_, R> {
    fn succeeded(self) {
        std::mem::forget(self);
    }
}

impl<R: Runtime> Drop for Attempt<'_, R> {
    fn drop(&mut self) {
        let connected = self.cell.peek(|state| state.tunnel.is_connected());
        let another_won = self.won.as_ref().is_some_and(|won| won.load(Ordering::Relaxed));
        self.cell.close(if another_won && !connected {
            Refusal::new(Code::LOST_RACE, "another address was faster")
        } else {
            Refusal::new(Code::CLOSED, "the client has given up")
        });
    }
}

async fn outcome<R: Runtime>(cell: &Arc<Cell<R>>) -> Result<Outcome, CloseReason> {
    let outcome = |state: &mut State| match &state.closed {
        Some(reason) => Some(Err(reason.clone())),
        None => state.outcome.clone().map(Ok),
    };
    wait(&**cell, |state| Some(&mut state.waiters), outcome).await
}

/// Of several failures, the one that tells most: silence says less than a certificate.
fn worst(failures: Vec<ConnectError>) -> Option<ConnectError> {
    let mut silent = Vec::new();
    let mut any_unreachable = false;
    let mut other = None;
    let mut lost = None;
    for failure in failures {
        match failure {
            ConnectError::NoAnswer { addresses, unreachable } => {
                silent.extend(addresses);
                any_unreachable |= unreachable;
            }
            // That another attempt was faster says nothing about why that one failed.
            ConnectError::Closed(reason) if reason.code == Code::LOST_RACE => {
                lost = Some(ConnectError::Closed(reason));
            }
            failure => other = other.or(Some(failure)),
        }
    }
    let silence = ConnectError::NoAnswer { addresses: silent.clone(), unreachable: any_unreachable };
    other.or((!silent.is_empty()).then_some(silence)).or(lost)
}
