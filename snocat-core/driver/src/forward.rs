//! TCP ports of this side, forwarded through tunnels: what a server does for its clients.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use snocat_core::open::Header;
use snocat_core::route::RouteAddress;
use snocat_core::{Code, Refusal};

use crate::copy::{copy_prepared, failed, first_bytes, prepare};
use crate::router::out_of_descriptors;
use crate::runtime::{KEEP_ALIVE, Runtime, TcpListener};
use crate::sync::{Waiters, lock, wait};
use crate::throttle::Throttle;
use crate::tunnel::Tunnel;

/// Pause after the descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// A port that is bound for a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The tunnel's name.
    pub tunnel: String,
    /// Where visitors are taken in.
    pub addresses: Vec<SocketAddr>,
    /// Where they are taken to.
    pub target: RouteAddress,
}

/// Binds ports of a range for tunnels that ask, as far as their credentials allow, and forwards what connects to them.
#[derive(Debug)]
pub struct PortForwarder<R: Runtime> {
    runtime: R,
    ip: IpAddr,
    ports: RangeInclusive<u16>,
    keep_alive: Option<Duration>,
    warnings: Arc<Throttle>,
    leases: Arc<Mutex<Leases<R>>>,
}

impl<R: Runtime> PortForwarder<R> {
    /// Forwards ports of this range, both ends included, on this address.
    pub fn new(runtime: R, ip: IpAddr, ports: RangeInclusive<u16>) -> Self {
        let leases = Leases { holders: BTreeMap::new(), waiters: Waiters::default() };
        let (warnings, leases) = (Arc::default(), Arc::new(Mutex::new(leases)));
        Self { runtime, ip, ports, keep_alive: Some(KEEP_ALIVE), warnings, leases }
    }

    /// Sets how long a visitor may be silent before the system asks whether it is still there; `None` has it never
    /// ask. The default is [`KEEP_ALIVE`].
    #[must_use]
    pub fn keep_alive(self, every: Option<Duration>) -> Self {
        Self { keep_alive: every, ..self }
    }

    /// Serves what the tunnel asks for, until it ends; its ports are free again then. Returns at once if the server's
    /// configuration does not say that [it serves bindings](crate::ServerConfig::serves_bindings).
    pub async fn serve(&self, tunnel: Tunnel<R>, mut on_bound: impl FnMut(&Bound) + Send) {
        while let Some(request) = tunnel.binding_request().await {
            // Whoever takes its own tunnel's name over, gets its port, too.
            self.settled().await;
            match self.bind(request.port(), &tunnel) {
                Ok((listener, address, lease)) => {
                    let target = request.address().clone();
                    request.answer(Ok(vec![address]));
                    let (runtime, visited) = (self.runtime.clone(), tunnel.clone());
                    let bound = Bound {
                        tunnel: tunnel.name().to_owned(),
                        addresses: vec![address],
                        target: target.clone(),
                    };
                    let (keep_alive, warnings) = (self.keep_alive, self.warnings.clone());
                    self.runtime.spawn(async move {
                        accept(runtime, listener, visited, target, keep_alive, &warnings).await;
                        drop(lease);
                    });
                    on_bound(&bound);
                }
                Err(refusal) => {
                    tracing::info!(tunnel = %tunnel.id(), %refusal, "no port");
                    request.answer(Err(refusal));
                }
            }
        }
    }

    /// Waits until no tunnel that has ended still has a port.
    async fn settled(&self) {
        let settled =
            |leases: &mut Leases<R>| (!leases.holders.values().any(Tunnel::is_closed)).then_some(());
        wait(&*self.leases, |leases| Some(&mut leases.waiters), settled).await;
    }

    /// Finds out, before the first client comes, whether ports of the range can be bound. What it gives back are the ports at
    /// the start of the range that this process has no right to bind, if there are such and others are left.
    ///
    /// # Errors
    /// No port can be bound: the address is not of this machine, or the process lacks the right.
    pub fn check(&self) -> io::Result<Option<RangeInclusive<u16>>> {
        let denied = |port| match self.runtime.listen(SocketAddr::new(self.ip, port)) {
            Ok(_) => Ok(false),
            Err(error) => match error.kind() {
                io::ErrorKind::AddrInUse => Ok(false),
                io::ErrorKind::PermissionDenied => Ok(true),
                _ => Err(error),
            },
        };
        let (first, last) = (*self.ports.start(), *self.ports.end());
        if !denied(first)? {
            return Ok(None);
        }
        if denied(last)? {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // Systems reserve the ports below some number: look for it.
        let (mut reserved, mut open) = (first, last);
        while open - reserved > 1 {
            let middle = reserved + (open - reserved) / 2;
            if denied(middle)? { reserved = middle } else { open = middle }
        }
        Ok(Some(first..=reserved))
    }

    /// The wanted port or none; any free one of the range for 0.
    fn bind(
        &self,
        wanted: u16,
        tunnel: &Tunnel<R>,
    ) -> Result<(R::TcpListener, SocketAddr, Lease<R>), Refusal> {
        let (first, last) = (self.ports.start(), self.ports.end());
        let outside = |text: String| Err(Refusal::new(Code::PORT_OUTSIDE, text));
        let granted = |port: u16| {
            let proven = tunnel.outcome().proven.as_ref();
            proven.is_none_or(|proven| proven.grant.allows_port(port))
        };
        if wanted != 0 {
            if !self.ports.contains(&wanted) {
                return outside(format!("port {wanted} is outside {first}:{last}"));
            }
            if !granted(wanted) {
                return outside(format!("port {wanted} is not among those that the credentials allow"));
            }
            return self.bind_one(wanted, tunnel).map_err(|failed| failed.refusal(self.ip, wanted));
        }
        if !self.ports.clone().any(granted) {
            return outside(format!("the credentials allow no port of {first}:{last}"));
        }
        let mut from = Some(*first);
        let mut cannot = None;
        let mut all_failed = true;
        while let Some(port) = from.and_then(|from| self.free(from)) {
            if granted(port) {
                match self.bind_one(port, tunnel) {
                    Ok(bound) => return Ok(bound),
                    Err(NotBound::Taken) => all_failed = false,
                    Err(failed) => {
                        let goes_on = failed.concerns_this_port();
                        let refusal = failed.refusal(self.ip, port);
                        if !goes_on {
                            return Err(refusal);
                        }
                        cannot.get_or_insert(refusal);
                    }
                }
            }
            from = port.checked_add(1);
        }
        Err(match cannot {
            Some(refusal) if all_failed => refusal,
            Some(Refusal { text, .. }) => {
                Refusal::new(Code::PORTS_EXHAUSTED, format!("no port of {first}:{last} is free, and {text}"))
            }
            None => Refusal::new(Code::PORTS_EXHAUSTED, format!("all ports of {first}:{last} are in use")),
        })
    }

    /// The lowest port of the range from `from` on that no tunnel has. There may be thousands of tunnels: what they have is
    /// passed over, not tried.
    fn free(&self, from: u16) -> Option<u16> {
        let leases = lock(&self.leases);
        let mut port = from;
        for (taken, _) in leases.holders.range(from..) {
            if *taken != port {
                break;
            }
            port = port.checked_add(1)?;
        }
        Some(port).filter(|port| self.ports.contains(port))
    }

    fn bind_one(
        &self,
        port: u16,
        tunnel: &Tunnel<R>,
    ) -> Result<(R::TcpListener, SocketAddr, Lease<R>), NotBound> {
        let lease = Lease::take(&self.leases, port, tunnel).ok_or(NotBound::Taken)?;
        let address = SocketAddr::new(self.ip, port);
        let listener = self.runtime.listen(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => NotBound::Taken,
            _ => NotBound::Failed(error),
        })?;
        let address = listener.local_addr().unwrap_or(address);
        Ok((listener, address, lease))
    }
}

/// Why a port was not bound.
enum NotBound {
    /// Somebody has it.
    Taken,
    /// The system refused.
    Failed(io::Error),
}

impl NotBound {
    /// Whether another port of the same address may do.
    fn concerns_this_port(&self) -> bool {
        match self {
            Self::Taken => true,
            Self::Failed(error) => {
                error.kind() != io::ErrorKind::AddrNotAvailable && !out_of_descriptors(error)
            }
        }
    }

    fn refusal(self, ip: IpAddr, port: u16) -> Refusal {
        match self {
            Self::Taken => Refusal::new(Code::PORT_TAKEN, format!("port {port} is in use")),
            Self::Failed(error) => {
                let code = if out_of_descriptors(&error) { Code::BUSY } else { Code::BIND_FAILED };
                let address = SocketAddr::new(ip, port);
                Refusal::new(code, format!("cannot listen on {address}: {error}"))
            }
        }
    }
}

/// The ports that are taken, and by whom.
#[derive(Debug)]
struct Leases<R: Runtime> {
    holders: BTreeMap<u16, Tunnel<R>>,
    waiters: Waiters,
}

/// A port of the range, until dropped.
struct Lease<R: Runtime> {
    leases: Arc<Mutex<Leases<R>>>,
    port: u16,
}

impl<R: Runtime> Lease<R> {
    fn take(leases: &Arc<Mutex<Leases<R>>>, port: u16, tunnel: &Tunnel<R>) -> Option<Self> {
        match lock(leases).holders.entry(port) {
            Entry::Vacant(entry) => {
                entry.insert(tunnel.clone());
                Some(Self { leases: leases.clone(), port })
            }
            Entry::Occupied(_) => None,
        }
    }
}

impl<R: Runtime> Drop for Lease<R> {
    fn drop(&mut self) {
        let mut woken = Vec::new();
        let holder = {
            let mut leases = lock(&self.leases);
            leases.waiters.wake_all(&mut woken);
            leases.holders.remove(&self.port)
        };
        // Outside the lock: the last handle ends its tunnel.
        drop(holder);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Takes visitors in until the tunnel ends.
async fn accept<R: Runtime>(
    runtime: R,
    listener: R::TcpListener,
    tunnel: Tunnel<R>,
    target: RouteAddress,
    keep_alive: Option<Duration>,
    warnings: &Throttle,
) {
    let mut exhausted = false;
    loop {
        let next = async { Some(poll_fn(|context| listener.poll_accept(context)).await) };
        match until_closed(&tunnel, next).await {
            None => return,
            Some(Ok((tcp, visitor))) => {
                exhausted = false;
                // From here on, whatever happens reaches the visitor as RST unless it ends well.
                if prepare(&tcp, keep_alive).is_ok() {
                    let (tunnel, target) = (tunnel.clone(), target.clone());
                    runtime.spawn(forward(tcp, visitor, tunnel, target));
                }
            }
            // The visitor has gone before it was taken in.
            Some(Err(error)) if visitor_gone(&error) => futures_lite::future::yield_now().await,
            // Most likely the descriptors have run out, here or in the whole system.
            Some(Err(error)) => {
                // Each visitor that goes lets one more in, and then it begins anew: on each port of each tunnel.
                if !std::mem::replace(&mut exhausted, true)
                    && let Some(left_out) = warnings.allows(runtime.now())
                {
                    let advice = if out_of_descriptors(&error) {
                        "; raise this process' limit of open files"
                    } else {
                        ""
                    };
                    tracing::warn!(
                        left_out = NonZeroU64::new(left_out),
                        "cannot take more visitors in for now: {error}{advice}"
                    );
                }
                let pause = async {
                    runtime.sleep_until(runtime.now() + PAUSE).await;
                    Some(())
                };
                if until_closed(&tunnel, pause).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// Whether accepting failed because of the one visitor that was to be accepted.
fn visitor_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

async fn until_closed<R: Runtime, T>(tunnel: &Tunnel<R>, work: impl Future<Output = Option<T>>) -> Option<T> {
    let closed = async {
        tunnel.closed().await;
        None
    };
    futures_lite::future::or(closed, work).await
}

async fn forward<R: Runtime>(tcp: R::Tcp, visitor: SocketAddr, tunnel: Tunnel<R>, target: RouteAddress) {
    let header = Header { visitor: Some(visitor), ..Header::forward(target) };
    let Ok(mut up) = first_bytes(&tcp) else { return };
    let opened = {
        let opening = async { Some(tunnel.open_with(&header, &mut up).await) };
        let gone = async {
            failed(tunnel.runtime(), &tcp).await;
            None
        };
        futures_lite::future::or(opening, gone).await
    };
    match opened {
        None => tracing::debug!(%visitor, "a visitor has gone that waited for a stream"),
        Some(Ok(stream)) => {
            tracing::debug!(tunnel = %tunnel.id(), stream = %stream.id(), %visitor, "a visitor");
            drop(tunnel);
            let end = copy_prepared(tcp, up, stream).await;
            tracing::debug!(%visitor, ?end, "a visitor is gone");
        }
        Some(Err(error)) => tracing::debug!(%visitor, %error, "no stream for a visitor"),
    }
}
