//! A tunnel as the application holds it.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use snocat_core::auth::Outcome;
use snocat_core::open::Header;
use snocat_core::route::RouteAddress;
use snocat_core::{
    BindingId, CloseReason, Code, OpenError as CoreOpenError, Refusal, StreamId, TunnelError, TunnelId,
};

use crate::cell::{Cell, Slot, State};
use crate::runtime::Runtime;
use crate::stream::Stream;

/// Opens that may wait in one tunnel until the peer allows more streams.
const WAITING_OPENS: usize = 4096;

/// A tunnel. Clones are the same tunnel; it ends when the last of them and of its streams is dropped.
pub struct Tunnel<R: Runtime>(Arc<Handle<R>>);

struct Handle<R: Runtime> {
    cell: Arc<Cell<R>>,
    outcome: Outcome,
}

impl<R: Runtime> Clone for Tunnel<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: Runtime> fmt::Debug for Tunnel<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("id", &self.id()).field("name", &self.name()).finish_non_exhaustive()
    }
}

impl<R: Runtime> Drop for Handle<R> {
    fn drop(&mut self) {
        self.cell.close(Refusal::new(Code::CLOSED, "no longer in use"));
    }
}

/// Why no stream was opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// So many wait already for the peer to allow more streams.
    #[error("{0} streams wait already for the peer to allow more")]
    Busy(usize),
    /// The tunnel has ended.
    #[error("the tunnel has ended: {0}")]
    Closed(CloseReason),
}

/// Why a port was not bound.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The peer refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The tunnel has ended.
    #[error("the tunnel has ended: {0}")]
    Closed(CloseReason),
}

impl<R: Runtime> Tunnel<R> {
    pub(crate) fn new(cell: Arc<Cell<R>>, outcome: Outcome) -> Self {
        Self(Arc::new(Handle { cell, outcome }))
    }

    pub(crate) fn cell(&self) -> &Arc<Cell<R>> {
        &self.0.cell
    }

    /// The runtime that drives it.
    pub fn runtime(&self) -> &R {
        self.0.cell.runtime()
    }

    /// Its name at the endpoint of this process.
    pub fn id(&self) -> TunnelId {
        self.0.cell.id()
    }

    /// What the listening side calls it.
    pub fn name(&self) -> &str {
        self.0.outcome.name.as_ref()
    }

    /// How it was authenticated: the method, the identity of the peer, attributes.
    pub fn outcome(&self) -> &Outcome {
        &self.0.outcome
    }

    /// Where the peer is; changes when its network does. An IPv4 peer of an IPv6 socket is shown as such.
    pub fn remote_address(&self) -> SocketAddr {
        let address = self.0.cell.peek(|state| state.tunnel.remote_address());
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// The longest datagram that is known to reach the peer, in bytes of UDP payload.
    pub fn mtu(&self) -> u16 {
        self.0.cell.peek(|state| state.tunnel.mtu())
    }

    /// The current estimate of the time to the peer and back.
    pub fn rtt(&self) -> Duration {
        self.0.cell.peek(|state| state.tunnel.rtt())
    }

    /// Streams that are open in either direction, opened by either side.
    pub fn open_streams(&self) -> usize {
        self.0.cell.peek(|state| state.tunnel.open_streams())
    }

    /// Opens a stream. It does not wait for the peer's answer: bytes may be written at once. Only when the peer
    /// allows no more streams it waits until one may be opened.
    ///
    /// # Errors
    /// [`OpenError`]: the tunnel has ended, or too many wait.
    pub async fn open(&self, header: &Header) -> Result<Stream<R>, OpenError> {
        self.open_with(header, &mut Bytes::new()).await
    }

    /// The same, and writes from the front of `data`, which loses what was taken: what fits shares a datagram with the header.
    ///
    /// # Errors
    /// [`OpenError`]: the tunnel has ended, or too many wait. Nothing was written.
    pub async fn open_with(&self, header: &Header, data: &mut Bytes) -> Result<Stream<R>, OpenError> {
        poll_fn(|context| {
            self.0.cell.with(|state| {
                if let Some(reason) = &state.closed {
                    return Poll::Ready(Err(OpenError::Closed(reason.clone())));
                }
                match state.tunnel.open(state.now, header) {
                    Ok(id) => {
                        state.streams.insert(id, Slot::default());
                        let _the_rest_is_the_callers = state.tunnel.write(state.now, id, data);
                        Poll::Ready(Ok(id))
                    }
                    Err(CoreOpenError::LimitReached) if state.open_waiters.len() >= WAITING_OPENS => {
                        Poll::Ready(Err(OpenError::Busy(WAITING_OPENS)))
                    }
                    Err(_) => {
                        if state.open_waiters.len() == 0 {
                            tracing::debug!(tunnel = %self.id(), "streams wait for the peer to allow more");
                        }
                        state.open_waiters.register(context);
                        Poll::Pending
                    }
                }
            })
        })
        .await
        .map(|id| Stream::new(self.clone(), id))
    }

    /// The next stream that the peer offers; `None` once the tunnel has ended.
    pub async fn accept(&self) -> Option<Offer<R>> {
        self.wait(|state, context| {
            if let Some((id, header)) = state.offers.pop_first() {
                return Poll::Ready(Some((id, header)));
            }
            state.offer_waiters.register(context);
            Poll::Pending
        })
        .await
        .map(|(id, header)| Offer { stream: Some(Stream::new(self.clone(), id)), header })
    }

    /// Asks the peer to listen on a port (0 for any) and to send what arrives there as streams to `address`.
    pub fn bind(&self, port: u16, address: &RouteAddress) -> PendingBinding<R> {
        let id = self.0.cell.with(|state| state.tunnel.request_binding(state.now, port, address));
        self.pending(id)
    }

    pub(crate) fn pending(&self, id: Result<BindingId, TunnelError>) -> PendingBinding<R> {
        PendingBinding { tunnel: self.clone(), id }
    }

    /// The next port the peer asks for; `None` once the tunnel has ended.
    pub async fn binding_request(&self) -> Option<BindingRequest<R>> {
        self.wait(|state, context| match state.binding_requests.pop_front() {
            Some(request) => Poll::Ready(Some(request)),
            None => {
                state.waiters.register(context);
                Poll::Pending
            }
        })
        .await
        .map(|(id, port, address)| BindingRequest {
            tunnel: self.clone(),
            id: Some(id),
            port,
            address,
        })
    }

    /// Ends the tunnel and all its streams. The peer learns why.
    pub fn close(&self, code: Code, text: &str) {
        self.0.cell.close(Refusal::new(code, text));
    }

    /// Whether the tunnel has ended.
    pub fn is_closed(&self) -> bool {
        self.0.cell.peek(|state| state.closed.is_some())
    }

    /// Waits until the tunnel has ended.
    pub async fn closed(&self) -> CloseReason {
        poll_fn(|context| {
            self.0.cell.peek(|state| match &state.closed {
                Some(reason) => Poll::Ready(reason.clone()),
                None => {
                    state.waiters.register(context);
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// Waits, after the end, until the peer knows or cannot be told; one second at most.
    pub async fn drained(&self) {
        drained(&self.0.cell).await;
    }

    /// Waits for something; `None` once the tunnel has ended.
    async fn wait<T>(
        &self,
        mut look: impl FnMut(&mut State, &std::task::Context<'_>) -> Poll<Option<T>>,
    ) -> Option<T> {
        poll_fn(|context| {
            self.0
                .cell
                .peek(|state| if state.closed.is_some() { Poll::Ready(None) } else { look(state, context) })
        })
        .await
    }
}

/// Longest wait for a peer to learn that its tunnel has ended.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

pub(crate) async fn drained<R: Runtime>(cell: &Arc<Cell<R>>) {
    let runtime = cell.runtime();
    let drained = poll_fn(|context| {
        cell.peek(|state| {
            if state.is_drained() {
                return Poll::Ready(());
            }
            state.waiters.register(context);
            Poll::Pending
        })
    });
    futures_lite::future::or(drained, runtime.sleep_until(runtime.now() + DRAIN)).await;
}

/// A port that was asked for. The answer waits until somebody asks for it.
#[derive(Debug)]
pub struct PendingBinding<R: Runtime> {
    tunnel: Tunnel<R>,
    id: Result<BindingId, TunnelError>,
}

impl<R: Runtime> PendingBinding<R> {
    /// Waits for the answer: the addresses that the peer listens on.
    ///
    /// # Errors
    /// [`BindError`]: the peer refused, or the tunnel has ended.
    pub async fn bound(self) -> Result<Vec<SocketAddr>, BindError> {
        let id = match self.id {
            Ok(id) => id,
            Err(TunnelError::Closed) => return Err(BindError::Closed(self.tunnel.closed().await)),
            Err(error) => return Err(BindError::Refused(Refusal::new(Code::LIMIT, error.to_string()))),
        };
        poll_fn(|context| {
            self.tunnel.0.cell.peek(|state| {
                if let Some(answer) = state.binding_answers.remove(&id) {
                    return Poll::Ready(answer.map_err(BindError::Refused));
                }
                if let Some(reason) = &state.closed {
                    return Poll::Ready(Err(BindError::Closed(reason.clone())));
                }
                state.waiters.register(context);
                Poll::Pending
            })
        })
        .await
    }
}

/// A port that the peer asks for. Dropped without an answer, it is refused.
#[derive(Debug)]
pub struct BindingRequest<R: Runtime> {
    tunnel: Tunnel<R>,
    id: Option<BindingId>,
    port: u16,
    address: RouteAddress,
}

impl<R: Runtime> BindingRequest<R> {
    /// The port it wants; 0 for any.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the streams of this binding are to be addressed to.
    pub fn address(&self) -> &RouteAddress {
        &self.address
    }

    /// Says where this side listens, or why it does not.
    pub fn answer(mut self, result: Result<Vec<SocketAddr>, Refusal>) {
        self.send(result);
    }

    fn send(&mut self, result: Result<Vec<SocketAddr>, Refusal>) {
        if let Some(id) = self.id.take() {
            self.tunnel.0.cell.with(|state| {
                let _the_tunnel_may_have_ended = state.tunnel.answer_binding(state.now, id, result);
            });
        }
    }
}

impl<R: Runtime> Drop for BindingRequest<R> {
    fn drop(&mut self) {
        self.send(Err(Refusal::new(Code::BIND_NOT_OFFERED, "this side binds no ports")));
    }
}

/// A stream that the peer offers. Dropped without a decision, it is refused.
pub struct Offer<R: Runtime> {
    stream: Option<Stream<R>>,
    header: Header,
}

impl<R: Runtime> fmt::Debug for Offer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("header", &self.header).finish_non_exhaustive()
    }
}

impl<R: Runtime> Offer<R> {
    /// What the stream is for.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Accepts the stream. If the peer has taken it back meanwhile, its first use says so.
    pub fn accept(mut self) -> Option<Stream<R>> {
        let stream = self.stream.take()?;
        let id = stream.id();
        let accepted = stream.tunnel().0.cell.with(|state| state.tunnel.accept(state.now, id).is_ok());
        accepted.then_some(stream)
    }

    /// Refuses the stream.
    pub fn refuse(mut self, refusal: Refusal) {
        self.decline(refusal);
    }

    /// Waits until the peer takes the offer back, or its time is up.
    pub async fn cancelled(&self) {
        match &self.stream {
            Some(stream) => stream.ended().await,
            None => std::future::pending().await,
        }
    }

    fn decline(&mut self, refusal: Refusal) {
        let Some(stream) = self.stream.take() else { return };
        let id: StreamId = stream.id();
        stream.tunnel().0.cell.with(|state| {
            let _it_may_be_gone = state.tunnel.refuse(state.now, id, refusal);
        });
    }
}

impl<R: Runtime> Drop for Offer<R> {
    fn drop(&mut self) {
        self.decline(Refusal::new(Code::NOT_ALLOWED, "nothing serves this stream"));
    }
}
