//! Methods of an application's own, written as asynchronous functions over a channel.
//!
//! The core asks what it cannot know ([`Event::AuthQuestion`](snocat_core::Event::AuthQuestion)). The first question of
//! a method starts its function in a task of its own, with a channel on which the questions are messages of the peer
//! and the answers are messages to it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use futures_lite::FutureExt;
use snocat_core::auth::{Answer, Authenticator, Exchange, External, Proven, Question, Received, TunnelName};
use snocat_core::{Code, Escaped, Refusal, Ticket};

use crate::cell::Cell;
use crate::runtime::Runtime;
use crate::state::State;
use crate::sync::{lock, store};

/// The listening side of a method.
///
/// ```
/// # use snocat_driver::{AuthenticationChannel, AuthenticationHandler, Denied};
/// # use snocat_driver::core::auth::{Grant, Proven};
/// /// Lets in who knows the word.
/// struct Word(&'static str);
///
/// impl AuthenticationHandler for Word {
///     async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<Proven, Denied> {
///         let said = channel.receive().await?;
///         if said.message != self.0.as_bytes() {
///             return Err(Denied::new("the word is wrong"));
///         }
///         Ok(Proven::new("friend", Grant::default()))
///     }
/// }
/// ```
pub trait AuthenticationHandler: Send + Sync + 'static {
    /// Finds out who is at the other end of the channel, and what that one may do. The peer speaks first. The whole
    /// authentication has [`Limits::authentication_time`](snocat_core::Limits::authentication_time); then, or when the
    /// peer goes, the future is dropped.
    ///
    /// # Errors
    /// The peer is not let in, nor is it if this panics. The reason goes to the log; the peer learns what everybody learns
    /// whose credentials are not accepted.
    fn authenticate(
        &self,
        channel: &mut AuthenticationChannel,
    ) -> impl Future<Output = Result<Proven, Denied>> + Send;

    /// Whether what was proven earlier still holds. Asked when the server looks through its tunnels
    /// ([`TunnelServer::review`](crate::TunnelServer::review)); `false` ends the tunnel.
    fn stands(&self, proven: &Proven) -> bool {
        let _ = proven;
        true
    }
}

/// The connecting side of a method.
pub trait AuthenticationClient: Send + Sync + 'static {
    /// Convinces the other end of the channel. This side speaks first. If the method is the first that is offered, its
    /// first message costs no round trip. There is no tunnel before this returns: a server that accepts sooner than it
    /// should, before it has proven what the method wants of it, gains nothing by that.
    ///
    /// # Errors
    /// There is no point in going on: the attempt ends.
    fn authenticate(
        &self,
        channel: &mut AuthenticationChannel,
    ) -> impl Future<Output = Result<(), Denied>> + Send;
}

/// Why a method ends without success. Every error becomes one, so `?` works on all of them.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Denied(String);

impl Denied {
    /// For this reason, which is for the log.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl<E: std::error::Error> From<E> for Denied {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Why a channel does not do what is asked of it.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The sides take turns, and it is the peer's.
    #[error("it is the peer's turn to send")]
    PeersTurn,
    /// The sides take turns, and it is this one's.
    #[error("it is this side's turn to send")]
    OwnTurn,
    /// The peer has gone, or the time is over, or the authentication.
    #[error("the authentication is over")]
    Closed,
}

/// A reliable, ordered channel of messages of at most 4,096 bytes between the two sides of a method. The sides take
/// turns, the connecting side first. Who gives up returns an error: that closes it.
pub struct AuthenticationChannel {
    link: Arc<dyn Link>,
    shared: Arc<Mutex<Shared>>,
    about: About,
}

/// What the last question said.
struct About {
    binding: [u8; 32],
    remote: SocketAddr,
    requested: Option<TunnelName>,
}

impl From<&Question> for About {
    fn from(question: &Question) -> Self {
        Self { binding: question.binding, remote: question.remote, requested: question.requested.clone() }
    }
}

impl fmt::Debug for AuthenticationChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticationChannel").field("remote", &self.about.remote).finish_non_exhaustive()
    }
}

impl AuthenticationChannel {
    /// Sends a message. It is then the peer's turn.
    ///
    /// # Errors
    /// [`ChannelError::PeersTurn`], [`ChannelError::Closed`].
    pub fn send(&mut self, message: impl Into<Vec<u8>>) -> Result<(), ChannelError> {
        let ticket = {
            let mut shared = lock(&self.shared);
            if shared.closed {
                return Err(ChannelError::Closed);
            }
            // A message that was not read yet is the peer's turn, too: what is sent answers it, and is bound to it.
            if shared.unread.is_some() {
                return Err(ChannelError::PeersTurn);
            }
            shared.ticket.take().ok_or(ChannelError::PeersTurn)?
        };
        self.link.answer(ticket, Answer::Say(message.into()));
        Ok(())
    }

    /// Waits for the peer's next message. It is then this side's turn.
    ///
    /// # Errors
    /// [`ChannelError::OwnTurn`], [`ChannelError::Closed`].
    pub async fn receive(&mut self) -> Result<Received, ChannelError> {
        let (about, received) = poll_fn(|context| {
            let mut shared = lock(&self.shared);
            if let Some(question) = shared.unread.take() {
                let about = About::from(&question);
                return Poll::Ready(
                    question.received.map(|received| (about, received)).ok_or(ChannelError::OwnTurn),
                );
            }
            if shared.closed {
                return Poll::Ready(Err(ChannelError::Closed));
            }
            if shared.ticket.is_some() {
                return Poll::Ready(Err(ChannelError::OwnTurn));
            }
            store(&mut shared.reader, context);
            Poll::Pending
        })
        .await?;
        self.about = about;
        Ok(received)
    }

    /// What a message that is sent now is bound to, as [`Received::binding`] of the message that was received. The same
    /// on both sides; another on any other connection, at any other point of the exchange, or if somebody has changed
    /// what was said. A proof that covers it cannot be used a second time or passed on.
    pub fn binding(&self) -> [u8; 32] {
        self.about.binding
    }

    /// Where the peer is.
    pub fn remote_address(&self) -> SocketAddr {
        self.about.remote
    }

    /// The tunnel name that is asked for. Whether it is granted follows from the
    /// [`Grant`](snocat_core::auth::Grant).
    pub fn requested_name(&self) -> Option<&TunnelName> {
        self.about.requested.as_ref()
    }

    async fn abandoned(shared: &Mutex<Shared>) {
        poll_fn(|context| {
            let mut shared = lock(shared);
            if shared.abandoned {
                return Poll::Ready(());
            }
            store(&mut shared.owner, context);
            Poll::Pending
        })
        .await;
    }
}

/// What the tunnel and the task of the method share.
#[derive(Default)]
pub(crate) struct Shared {
    /// The right to answer, while it is this side's turn.
    ticket: Option<Ticket>,
    /// A question that was not looked at yet.
    unread: Option<Question>,
    /// Nothing more can be said.
    closed: bool,
    /// Nobody wants to know any more what the function comes to.
    abandoned: bool,
    /// The function has ended well.
    done: bool,
    /// What it came to while it was the peer's turn: the answer to whatever is asked next.
    verdict: Option<Proven>,
    reader: Option<Waker>,
    owner: Option<Waker>,
}

/// How a channel reaches its tunnel, whatever the runtime.
trait Link: Send + Sync {
    fn answer(&self, ticket: Ticket, answer: Answer);
    fn give_up(&self, reason: &str);
    fn done(&self);
}

struct CellLink<R: Runtime>(Arc<Cell<R>>);

impl<R: Runtime> Link for CellLink<R> {
    fn answer(&self, ticket: Ticket, answer: Answer) {
        self.0.with(|state| {
            let _the_tunnel_may_have_ended = state.tunnel.answer_question(state.now, ticket, answer);
        });
    }

    fn give_up(&self, reason: &str) {
        self.0.with(|state| {
            if !state.tunnel.is_closed() {
                if self.0.is_listening() {
                    // Whosever turn it is, the peer learns what everybody learns.
                    return state.tunnel.deny(state.now, reason);
                }
                tracing::info!(tunnel = %state.tunnel.id(), reason = %Escaped(reason), "authentication given up");
                // Once the peer has accepted, it has not proven what it had to.
                let code = if state.tunnel.is_established() { Code::UNPROVEN } else { Code::AUTH_REFUSED };
                state.tunnel.close(state.now, Refusal::new(code, "authentication was given up"));
            }
        });
    }

    fn done(&self) {
        self.0.with(State::method_done);
    }
}

/// The methods of an application's own, by name.
#[derive(Clone, Default)]
pub(crate) struct Methods(BTreeMap<String, Arc<dyn Method>>);

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Methods {
    pub(crate) fn insert_handler<H: AuthenticationHandler>(&mut self, method: &str, handler: Arc<H>) {
        self.0.insert(method.to_owned(), Arc::new(Handler(handler)));
    }

    pub(crate) fn insert_client(&mut self, method: &str, client: impl AuthenticationClient) {
        self.0.insert(method.to_owned(), Arc::new(Client(client)));
    }
}

type Outcome<'a> = Pin<Box<dyn Future<Output = Result<Option<Proven>, Denied>> + Send + 'a>>;

/// Both sides' methods, in one form.
trait Method: Send + Sync {
    fn run<'a>(&'a self, channel: &'a mut AuthenticationChannel) -> Outcome<'a>;
}

struct Handler<H>(Arc<H>);

impl<H: AuthenticationHandler> Method for Handler<H> {
    fn run<'a>(&'a self, channel: &'a mut AuthenticationChannel) -> Outcome<'a> {
        Box::pin(async { self.0.authenticate(channel).await.map(Some) })
    }
}

struct Client<C>(C);

impl<C: AuthenticationClient> Method for Client<C> {
    fn run<'a>(&'a self, channel: &'a mut AuthenticationChannel) -> Outcome<'a> {
        Box::pin(async { self.0.authenticate(channel).await.map(|()| None) })
    }
}

/// A handler as the core wants to know it.
pub(crate) struct Handled<H> {
    pub(crate) external: Arc<External>,
    pub(crate) handler: Arc<H>,
}

impl<H> fmt::Debug for Handled<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.external.fmt(f)
    }
}

impl<H: AuthenticationHandler> Authenticator for Handled<H> {
    fn method(&self) -> &str {
        Authenticator::method(self.external.as_ref())
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Authenticator::begin(self.external.clone())
    }

    fn stands(&self, proven: &Proven) -> bool {
        self.handler.stands(proven)
    }
}

/// The methods that run for one tunnel.
#[derive(Default)]
pub(crate) struct Running(BTreeMap<String, Arc<Mutex<Shared>>>);

impl Running {
    /// The authentication is over, or the tunnel is: what still runs is of no interest.
    pub(crate) fn abandon(&mut self, woken: &mut Vec<Waker>) {
        for (_, shared) in std::mem::take(&mut self.0) {
            abandon(&shared, woken);
        }
    }

    /// The peer has accepted by this method, or by these with `+` between them. Of the others nothing more is of
    /// interest. Those that were used cannot say any more; whether they are content is seen when they end.
    pub(crate) fn accepted(&mut self, method: &str, woken: &mut Vec<Waker>) {
        self.0.retain(|name, shared| {
            let used = name == method || method.split('+').any(|member| member == name);
            if used {
                let mut shared = lock(shared);
                shared.closed = true;
                woken.extend(shared.reader.take());
            } else {
                abandon(shared, woken);
            }
            used
        });
    }

    /// Whether all have ended well.
    pub(crate) fn all_done(&self) -> bool {
        self.0.values().all(|shared| lock(shared).done)
    }
}

fn abandon(shared: &Mutex<Shared>, woken: &mut Vec<Waker>) {
    let mut shared = lock(shared);
    shared.closed = true;
    shared.abandoned = true;
    woken.extend(shared.reader.take());
    woken.extend(shared.owner.take());
}

/// Hands a question to the method that it is for, and starts that if it is the first.
pub(crate) fn ask<R: Runtime>(cell: &Arc<Cell<R>>, methods: &Methods, ticket: Ticket, question: Question) {
    let running = cell.peek(|state| state.running.0.get(&question.method).cloned());
    if let Some(shared) = running {
        return deliver(cell, &shared, ticket, question);
    }
    let Some(method) = methods.0.get(&question.method).cloned() else {
        let refusal = Refusal::new(Code::INTERNAL, "nothing answers for the method");
        return CellLink(cell.clone()).answer(ticket, Answer::Refused(refusal));
    };
    let shared = Arc::new(Mutex::new(Shared::default()));
    let name = question.method.clone();
    let about = About::from(&question);
    let over = cell.peek(|state| {
        state.running.0.insert(name, shared.clone());
        state.closed.is_some()
    });
    if over {
        return;
    }
    let first = question.received.is_none();
    {
        let mut shared = lock(&shared);
        shared.ticket = Some(ticket);
        shared.unread = (!first).then_some(question);
    }
    let link: Arc<dyn Link> = Arc::new(CellLink(cell.clone()));
    let channel = AuthenticationChannel { link, shared, about };
    cell.runtime().spawn(run(method, channel));
}

fn deliver<R: Runtime>(cell: &Arc<Cell<R>>, shared: &Mutex<Shared>, ticket: Ticket, question: Question) {
    let (verdict, reader) = {
        let mut shared = lock(shared);
        match shared.verdict.take() {
            Some(proven) => (Some((ticket, proven)), None),
            None => {
                shared.ticket = Some(ticket);
                shared.unread = Some(question);
                (None, shared.reader.take())
            }
        }
    };
    if let Some((ticket, proven)) = verdict {
        CellLink(cell.clone()).answer(ticket, Answer::Satisfied(proven));
    }
    reader.into_iter().for_each(Waker::wake);
}

/// What a panic says, if it says it in words.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// Runs a method until it ends or the authentication does.
async fn run(method: Arc<dyn Method>, mut channel: AuthenticationChannel) {
    let shared = channel.shared.clone();
    let link = channel.link.clone();
    let remote = channel.remote_address();
    let abandoned = async {
        AuthenticationChannel::abandoned(&shared).await;
        None
    };
    let running = async {
        // The channel is not used again after a panic, and what the method shares is its own to keep in order.
        let outcome = AssertUnwindSafe(method.run(&mut channel)).catch_unwind().await;
        Some(outcome.unwrap_or_else(|panic| {
            let panic = panic_text(panic.as_ref());
            tracing::error!(remote = %remote, panic = %Escaped(panic), "an authentication method has panicked");
            Err(Denied::new("the authentication method has panicked"))
        }))
    };
    let result = futures_lite::future::or(abandoned, running).await;
    match result {
        // Nobody wants to know any more.
        None => {}
        Some(Ok(Some(proven))) => {
            let ticket = {
                let mut shared = lock(&shared);
                shared.done = true;
                let ticket = shared.ticket.take();
                if ticket.is_none() {
                    shared.verdict = Some(proven.clone());
                }
                ticket
            };
            if let Some(ticket) = ticket {
                link.answer(ticket, Answer::Satisfied(proven));
            }
        }
        Some(Err(Denied(reason))) => {
            let ticket = lock(&shared).ticket.take();
            match ticket {
                Some(ticket) => link.answer(ticket, Answer::Denied(reason)),
                None => link.give_up(&reason),
            }
        }
        // The connecting side is content.
        Some(Ok(None)) => {
            lock(&shared).done = true;
            link.done();
        }
    }
}
