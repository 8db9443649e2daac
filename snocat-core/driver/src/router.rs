//! What becomes of streams that the peer offers: a router decides over each from its header, and a service runs
//! it. Not only TCP: a service of the application's own gets the stream itself.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use snocat_core::open::Header;
use snocat_core::route::{Family, Host, Policy, RouteAddress, Target};
use snocat_core::{Code, Refusal};

use crate::copy::copy_prepared;
use crate::race::{interleave, race};
use crate::runtime::{KEEP_ALIVE, Runtime, Tcp};
use crate::stream::Stream;
use crate::throttle::Throttle;
use crate::tunnel::{Offer, OpenError, Tunnel};

/// A future of a service.
pub type ServiceFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Decides over offered streams.
pub trait Router<R: Runtime>: Send + Sync + 'static {
    /// The service for a stream with this header, or what it is refused with.
    ///
    /// # Errors
    /// The refusal that the peer is told.
    fn route(&self, tunnel: &Tunnel<R>, header: &Header) -> Result<Box<dyn Service<R>>, Refusal>;
}

/// Runs one stream. It accepts or refuses the offer within the time to dial, ten seconds.
pub trait Service<R: Runtime>: Send {
    /// Runs the stream to its end.
    fn run(self: Box<Self>, offer: Offer<R>) -> ServiceFuture;
}

impl<R: Runtime, F, T> Service<R> for F
where
    F: FnOnce(Offer<R>) -> T + Send,
    T: Future<Output = ()> + Send + 'static,
{
    fn run(self: Box<Self>, offer: Offer<R>) -> ServiceFuture {
        Box::pin(self(offer))
    }
}

/// Streams that are taken in at once, before other tasks have their turn.
const TURNS: u64 = 64;

/// Serves the streams that the peer offers, each in a task of its own, until the tunnel ends. Once this is dropped, and
/// nothing else serves, the peer's offers are refused.
pub async fn serve<R: Runtime>(tunnel: &Tunnel<R>, router: Arc<dyn Router<R>>) {
    let _until_dropped = Served(tunnel);
    for turn in 1_u64.. {
        let Some(offer) = tunnel.accept().await else { return };
        if turn % TURNS == 0 {
            futures_lite::future::yield_now().await;
        }
        match router.route(tunnel, offer.header()) {
            Ok(service) => tunnel.runtime().spawn(service.run(offer)),
            Err(refusal) => {
                let visitor = offer.header().visitor;
                tracing::debug!(tunnel = %tunnel.id(), ?visitor, %refusal, "refused a stream");
                offer.refuse(refusal);
            }
        }
    }
}

/// A tunnel whose streams are served, until this is dropped.
struct Served<'a, R: Runtime>(&'a Tunnel<R>);

impl<R: Runtime> Drop for Served<'_, R> {
    fn drop(&mut self) {
        // Somebody else may be at it, and takes the next stream before the time is over.
        self.0.stop_serving();
    }
}

/// Dials TCP targets, as far as a policy allows.
pub struct TcpRouter {
    policy: Policy,
    keep_alive: Option<Duration>,
    warnings: Arc<Throttle>,
}

impl fmt::Debug for TcpRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpRouter").field("policy", &self.policy).finish()
    }
}

impl TcpRouter {
    /// A router that dials what `policy` allows; the default policy allows nothing.
    pub fn new(policy: Policy) -> Self {
        Self { policy, keep_alive: Some(KEEP_ALIVE), warnings: Arc::default() }
    }

    /// Sets how long a target may be silent before the system asks whether it is still there; `None` has it never ask.
    /// The default is [`KEEP_ALIVE`].
    #[must_use]
    pub fn keep_alive(self, every: Option<Duration>) -> Self {
        Self { keep_alive: every, ..self }
    }
}

impl<R: Runtime> Router<R> for TcpRouter {
    fn route(&self, tunnel: &Tunnel<R>, header: &Header) -> Result<Box<dyn Service<R>>, Refusal> {
        let target = self.policy.decide(header)?;
        let runtime = tunnel.runtime().clone();
        let (keep_alive, warnings) = (self.keep_alive, self.warnings.clone());
        Ok(Box::new(move |offer| dial_and_copy(runtime, target, keep_alive, warnings, offer)))
    }
}

/// A target that has not answered for so long is worth a warning, even if the visitor goes first.
const SLOW: Duration = Duration::from_secs(5);

async fn dial_and_copy<R: Runtime>(
    runtime: R,
    target: Target,
    keep_alive: Option<Duration>,
    warnings: Arc<Throttle>,
    offer: Offer<R>,
) {
    let begun = runtime.now();
    let visitor = offer.header().visitor;
    let dialled = {
        let cancelled = async {
            offer.cancelled().await;
            None
        };
        futures_lite::future::or(async { Some(dial(&runtime, &target).await) }, cancelled).await
    };
    match dialled {
        None => {
            let waited = runtime.now() - begun;
            tracing::debug!(?visitor, ?waited, %target, "a visitor went before the target answered");
            if waited >= SLOW
                && let Some(left_out) = warnings.allows(runtime.now())
            {
                tracing::warn!(
                    left_out = NonZeroU64::new(left_out),
                    "a visitor waits in vain: {target} does not answer"
                );
            }
        }
        Some(Err(refusal)) => {
            tracing::debug!(?visitor, %refusal, "a visitor is turned away");
            if let Some(left_out) = warnings.allows(runtime.now()) {
                let advice = match refusal.code {
                    Code::BUSY => "; raise this process' limit of open files",
                    _ => "",
                };
                tracing::warn!(
                    left_out = NonZeroU64::new(left_out),
                    "a visitor is turned away: {refusal}{advice}"
                );
            }
            offer.refuse(refusal);
        }
        Some(Ok(tcp)) => {
            if let Some(every) = keep_alive
                && let Err(error) = tcp.set_keep_alive(every)
            {
                tracing::debug!(%error, "the target has gone");
            }
            if let Some(stream) = offer.accept() {
                let end = copy_prepared(tcp, Bytes::new(), stream).await;
                tracing::debug!(?visitor, ?end, "a visitor is gone");
            }
        }
    }
}

/// Connects to a target; all its addresses are tried, 250 ms apart.
///
/// # Errors
/// What to refuse the stream with.
pub async fn dial<R: Runtime>(runtime: &R, target: &Target) -> Result<R::Tcp, Refusal> {
    let Target::Tcp { host, port } = target;
    let addresses = match host {
        Host::Loopback => {
            let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            loopback.map(|ip| SocketAddr::new(ip, *port)).to_vec()
        }
        Host::Ip(ip) => vec![SocketAddr::new(*ip, *port)],
        Host::Name { name, family } => {
            let found = runtime.resolve(name, *port).await.map_err(|error| {
                Refusal::new(
                    Code::TARGET_UNREACHABLE,
                    format!("cannot find the addresses of {target}: {error}"),
                )
            })?;
            let wanted = |address: &SocketAddr| match family {
                Family::Any => true,
                Family::V4 => address.is_ipv4(),
                Family::V6 => address.is_ipv6(),
            };
            found.into_iter().filter(wanted).collect()
        }
    };
    let attempts = interleave(addresses).into_iter().map(|address| runtime.connect(address));
    let tcp = race(runtime, attempts).await.map_err(|errors| refusal(target, errors.first()))?;
    // It ends with RST already, in whatever way it is closed.
    tcp.set_nodelay().map_err(|error| refusal(target, Some(&error)))?;
    Ok(tcp)
}

fn refusal(target: &Target, error: Option<&io::Error>) -> Refusal {
    let Some(error) = error else {
        return Refusal::new(Code::TARGET_UNREACHABLE, format!("{target} has no addresses"));
    };
    let code = match error.kind() {
        io::ErrorKind::ConnectionRefused => Code::TARGET_REFUSED,
        io::ErrorKind::TimedOut => Code::TARGET_TIMEOUT,
        _ if out_of_descriptors(error) => Code::BUSY,
        _ => Code::TARGET_UNREACHABLE,
    };
    Refusal::new(code, format!("cannot connect to {target}: {error}"))
}

/// Whether the process or the system has run out of file descriptors or of memory for sockets.
pub(crate) fn out_of_descriptors(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS (Linux, then the BSDs); ENOMEM has a kind. Windows: WSAEMFILE, WSAENOBUFS.
    let codes: &[i32] = if cfg!(windows) { &[10024, 10055] } else { &[23, 24, 105, 55] };
    error.kind() == io::ErrorKind::OutOfMemory
        || error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Opens streams to route addresses through the tunnel that the caller selects.
#[derive(Debug)]
pub struct RoutingClient<R: Runtime> {
    tunnel: Tunnel<R>,
}

impl<R: Runtime> RoutingClient<R> {
    /// A client of what the peer of `tunnel` can reach.
    pub fn new(tunnel: Tunnel<R>) -> Self {
        Self { tunnel }
    }

    /// Opens a stream to `address`. It does not wait for the peer's answer.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self, address: RouteAddress) -> Result<Stream<R>, OpenError> {
        self.tunnel.open(&Header::forward(address)).await
    }
}
