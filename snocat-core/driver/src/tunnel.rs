//! A tunnel as the application holds it.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use snocat_core::auth::Outcome;
use snocat_core::open::Header;
use snocat_core::route::RouteAddress;
use snocat_core::{BindingId, CloseReason, Code, Refusal, Serving, StreamId, TunnelError, TunnelId};

use crate::cell::Cell;
use crate::runtime::Runtime;
use crate::state::{Slot, State, not_served};
use crate::stream::Stream;
use crate::sync::{Key, wait};

/// Opens that may wait in one tunnel until the peer allows more streams.
const WAITING_OPENS: usize = 4096;

/// A tunnel. Clones are the same tunnel; it ends when the last of them and of its streams is dropped. That is as sudden as
/// [`close`](Self::close).
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
        let mut turn = Turn { cell: &self.0.cell, key: None };
        poll_fn(|context| turn.poll_open(context, header, data)).await.map(|id| Stream::new(self.clone(), id))
    }

    /// The next stream that the peer offers; `None` once the tunnel has ended.
    ///
    /// What the peer offers waits for the first call, but not for long: after
    /// [`Limits::serve_time`](snocat_core::Limits::serve_time) it is refused with [`Code::NOT_SERVED`], and what it offers
    /// later at once, until somebody calls this.
    pub async fn accept(&self) -> Option<Offer<R>> {
        let next = |state: &mut State| match state.closed {
            Some(_) => Some(None),
            None => {
                state.tunnel.set_serving(state.now, Serving::Yes);
                state.offers.pop_first().map(Some)
            }
        };
        wait(&*self.0.cell, |state| Some(&mut state.offer_waiters), next)
            .await
            .map(|(id, header)| Offer { stream: Some(Stream::new(self.clone(), id)), header })
    }

    /// Somebody has stopped taking the streams that the peer offers. Somebody else may go on.
    pub(crate) fn stop_serving(&self) {
        self.0.cell.with(|state| state.tunnel.set_serving(state.now, Serving::NotYet));
    }

    /// Asks the peer to listen on a port (0 for any) and to send what arrives there as streams to `address`.
    pub fn bind(&self, port: u16, address: &RouteAddress) -> PendingBinding<R> {
        let id = self.0.cell.with(|state| state.tunnel.request_binding(state.now, port, address));
        self.pending(id)
    }

    pub(crate) fn pending(&self, id: Result<BindingId, TunnelError>) -> PendingBinding<R> {
        PendingBinding { tunnel: self.clone(), id }
    }

    /// The next port the peer asks for; `None` once the tunnel has ended. `None` at once if the configuration does not say
    /// that bindings are served ([`ServerConfig::serves_bindings`](crate::ServerConfig::serves_bindings)): all of them are
    /// refused then.
    pub async fn binding_request(&self) -> Option<BindingRequest<R>> {
        let next = |state: &mut State| match state.closed {
            None if state.serves_bindings => state.binding_requests.pop_front().map(Some),
            None => {
                tracing::warn!(tunnel = %self.id(), "bindings are refused: `serves_bindings` is not set");
                Some(None)
            }
            Some(_) => Some(None),
        };
        wait(&*self.0.cell, |state| Some(&mut state.waiters), next)
            .await
            .map(|(id, port, address)| BindingRequest { tunnel: self.clone(), id: Some(id), port, address })
    }

    /// Ends the tunnel and all its streams. The peer learns why.
    ///
    /// What was written and has not arrived is lost, of streams that were finished, too: see
    /// [`Stream::poll_finished`](crate::Stream::poll_finished) and the adapters' `shutdown` or `close`. What has arrived, here or
    /// at the peer, can still be read from the streams that were accepted.
    pub fn close(&self, code: Code, text: &str) {
        self.0.cell.close(Refusal::new(code, text));
    }

    /// Whether the tunnel has ended.
    pub fn is_closed(&self) -> bool {
        self.0.cell.peek(|state| state.closed.is_some())
    }

    /// Waits until the tunnel has ended.
    pub async fn closed(&self) -> CloseReason {
        wait(&*self.0.cell, |state| Some(&mut state.waiters), |state| state.closed.clone()).await
    }

    /// Waits, after the end, until the peer knows or cannot be told; one second at most.
    pub async fn drained(&self) {
        drained(&self.0.cell).await;
    }
}

/// An [`open`](Tunnel::open) that may have to wait for the peer to allow more streams. They have their turns in the order
/// in which they came.
struct Turn<'a, R: Runtime> {
    cell: &'a Arc<Cell<R>>,
    key: Option<Key>,
}

impl<R: Runtime> Turn<'_, R> {
    fn poll_open(
        &mut self,
        context: &Context<'_>,
        header: &Header,
        data: &mut Bytes,
    ) -> Poll<Result<StreamId, OpenError>> {
        self.cell.with(|state| {
            if let Some(reason) = &state.closed {
                return Poll::Ready(Err(OpenError::Closed(reason.clone())));
            }
            let waiting = state.open_waiters.len();
            let is_its_turn = match self.key {
                Some(key) => !state.open_waiters.is_asleep(key),
                None => waiting == 0,
            };
            if is_its_turn && let Ok(id) = state.tunnel.open(state.now, header) {
                state.streams.insert(id, Slot::default());
                let _the_rest_is_the_callers = state.tunnel.write(state.now, id, data);
                return Poll::Ready(Ok(id));
            }
            if self.key.is_none() && waiting >= WAITING_OPENS {
                return Poll::Ready(Err(OpenError::Busy(WAITING_OPENS)));
            }
            if waiting == 0 {
                tracing::debug!(tunnel = %self.cell.id(), "streams wait for the peer to allow more");
            }
            state.open_waiters.enter(&mut self.key, context);
            Poll::Pending
        })
    }
}

impl<R: Runtime> Drop for Turn<'_, R> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.cell.with(|state| state.leave_open_waiters(key));
        }
    }
}

/// Longest wait for a peer to learn that its tunnel has ended.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

pub(crate) async fn drained<R: Runtime>(cell: &Arc<Cell<R>>) {
    let runtime = cell.runtime();
    let is_drained = |state: &mut State| state.is_drained().then_some(());
    let drained = wait(&**cell, |state| Some(&mut state.waiters), is_drained);
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
        let answer = |state: &mut State| match state.binding_answers.remove(&id) {
            Some(answer) => Some(answer.map_err(BindError::Refused)),
            None => state.closed.clone().map(|reason| Err(BindError::Closed(reason))),
        };
        wait(&*self.tunnel.0.cell, |state| Some(&mut state.waiters), answer).await
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
        self.send(Err(not_served()));
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
        let accepted = stream.tunnel().0.cell.with(|state| {
            let accepted = state.tunnel.accept(state.now, id).is_ok();
            if let Some(slot) = state.streams.get_mut(&id) {
                slot.accepted = accepted;
            }
            accepted
        });
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
