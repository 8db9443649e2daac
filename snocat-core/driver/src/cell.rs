//! A tunnel behind its lock, and the task that owns its timer.
//!
//! Whoever has something for the tunnel (the receiving task, an application's read or write, the tunnel's own
//! task) locks it, acts, and drives it before letting go: events are handed out, and datagrams sent, right there.
//! What must not happen under the lock is put down and done after it: waking tasks, talking to the endpoint, and
//! telling the server. What is behind the lock stands in `state`.
//!
//! The receiving task does not wait for the lock: while somebody else has it, datagrams are left as *mail*, which whoever lets
//! go of the tunnel takes in. To be put to sleep and woken for each batch costs more than the batch.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use snocat_core::{Code, Refusal, Serving, Tunnel, TunnelEvent, TunnelId};

use crate::authentication::{self, Methods};
use crate::driver::Driver;
use crate::runtime::{Runtime, Timer};
use crate::server::Acceptor;
use crate::socket::Socket;
use crate::state::{After, News, Start, State};
use crate::sync::{Awaited, lock, try_lock};

/// Datagrams that are left as mail at most, and a batch on top. Then the receiving task waits for the lock.
const MAIL: usize = 256;

/// One tunnel.
pub(crate) struct Cell<R: Runtime> {
    id: TunnelId,
    driver: Arc<Driver<R>>,
    acceptor: Option<Arc<Acceptor<R>>>,
    methods: Methods,
    driven: Mutex<Driven<R>>,
    /// Datagrams that came while somebody had the lock of `driven`. Never locked while that is waited for.
    mail: Mutex<Vec<TunnelEvent>>,
}

/// What is behind the lock of a tunnel.
struct Driven<R: Runtime> {
    state: State,
    /// Until the tunnel is drained: whoever still holds it then must not keep the port.
    socket: Option<Arc<Socket<R>>>,
}

impl<R: Runtime> Cell<R> {
    pub(crate) fn new(
        driver: Arc<Driver<R>>,
        socket: Arc<Socket<R>>,
        mut tunnel: Tunnel,
        acceptor: Option<Arc<Acceptor<R>>>,
        methods: Methods,
        start: Start,
    ) -> Arc<Self> {
        let now = driver.runtime.now();
        // The application says that it serves streams by taking the first.
        tunnel.set_serving(now, Serving::NotYet);
        let id = tunnel.id();
        let state = State::new(now, tunnel, start, driver.serves_bindings);
        let driven = Mutex::new(Driven { state, socket: Some(socket) });
        Arc::new(Self { id, driver, acceptor, methods, driven, mail: Mutex::default() })
    }

    pub(crate) fn id(&self) -> TunnelId {
        self.id
    }

    pub(crate) fn runtime(&self) -> &R {
        &self.driver.runtime
    }

    /// Whether the peer is the one that connects.
    pub(crate) fn is_listening(&self) -> bool {
        self.acceptor.is_some()
    }

    /// Looks, without anything to follow from it.
    pub(crate) fn peek<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let result = look(&mut lock(&self.driven).state);
        if self.has_mail() {
            // Who looks does not drive.
            let task = lock(&self.driven).state.task();
            task.into_iter().for_each(Waker::wake);
        }
        result
    }

    /// Acts on the tunnel and drives it.
    pub(crate) fn with<T>(self: &Arc<Self>, act: impl FnOnce(&mut State) -> T) -> T {
        let (result, after) = {
            let mut driven = lock(&self.driven);
            self.take_mail(&mut driven.state);
            let result = act(&mut driven.state);
            (result, driven.drive())
        };
        self.settle(after);
        self.deliver();
        result
    }

    /// Hands datagrams to the tunnel.
    pub(crate) fn feed(self: &Arc<Self>, events: Vec<TunnelEvent>) {
        let waiting = {
            let mut mail = lock(&self.mail);
            mail.extend(events);
            mail.len()
        };
        if waiting > MAIL { self.with(|_| ()) } else { self.deliver() }
    }

    fn has_mail(&self) -> bool {
        !lock(&self.mail).is_empty()
    }

    /// Takes the mail in, unless somebody has the tunnel: they look for mail when they have let go of it.
    fn deliver(self: &Arc<Self>) {
        while self.has_mail() {
            let after = {
                let Some(mut driven) = try_lock(&self.driven) else { return };
                self.take_mail(&mut driven.state);
                driven.drive()
            };
            self.settle(after);
        }
    }

    fn take_mail(&self, state: &mut State) {
        let mail = std::mem::take(&mut *lock(&self.mail));
        state.take_in(self.driver.runtime.now(), mail);
    }

    /// Ends the tunnel; the peer learns why.
    pub(crate) fn close(self: &Arc<Self>, refusal: Refusal) {
        self.with(|state| state.tunnel.close(state.now, refusal));
    }

    /// Ends the tunnel because its runtime drives it no more.
    pub(crate) fn abandon(self: &Arc<Self>) {
        let refusal = Refusal::new(Code::STOPPING, "the runtime that drove the tunnel was stopped");
        self.with(|state| state.tunnel.abandon(state.now, refusal));
    }

    /// Starts the task that owns the timer. It ends when the tunnel is drained. A runtime that drops it before that ends the
    /// tunnel.
    pub(crate) fn run(self: &Arc<Self>) {
        struct Task<R: Runtime> {
            cell: Arc<Cell<R>>,
            timer: R::Timer,
        }

        impl<R: Runtime> Drop for Task<R> {
            fn drop(&mut self) {
                if !self.cell.peek(|state| state.is_drained()) {
                    self.cell.abandon();
                }
            }
        }

        let mut task = Task { cell: self.clone(), timer: self.driver.runtime.timer() };
        self.driver.runtime.spawn(poll_fn(move |context| {
            let Task { cell, timer } = &mut task;
            cell.poll_task(context, timer)
        }));
    }

    fn poll_task(self: &Arc<Self>, context: &mut Context<'_>, timer: &mut R::Timer) -> Poll<()> {
        loop {
            let (wait_until, drained, after) = {
                let mut driven = lock(&self.driven);
                driven.state.set_task(context);
                self.take_mail(&mut driven.state);
                driven.state.handle_timeout();
                let after = driven.drive();
                (driven.state.arm(), driven.state.is_drained(), after)
            };
            self.settle(after);
            self.deliver();
            if drained {
                return Poll::Ready(());
            }
            if let Some(at) = wait_until {
                timer.reset(at);
            }
            if timer.poll(context).is_pending() {
                return Poll::Pending;
            }
            lock(&self.driven).state.disarm();
        }
    }

    /// Does what must not happen under the lock.
    fn settle(self: &Arc<Self>, after: After) {
        after.woken.into_iter().for_each(Waker::wake);
        if !after.endpoint_events.is_empty() {
            let answers = self.driver.exchange(self.id, after.endpoint_events);
            if !answers.is_empty() {
                self.feed(answers);
            }
        }
        if after.tell {
            while let Some(news) = self.next_news() {
                self.tell(news);
            }
        }
    }

    fn next_news(&self) -> Option<News> {
        lock(&self.driven).state.next_news()
    }

    fn tell(self: &Arc<Self>, news: News) {
        match (news, &self.acceptor) {
            (News::Question(ticket, question), _) => {
                authentication::ask(self, &self.methods, ticket, question);
            }
            (News::Claim(ticket, claim), Some(acceptor)) => match acceptor.decide(self, &claim) {
                Ok(name) => {
                    let attributes = claim.proven.attributes;
                    let admitted = self.with(|state| state.tunnel.admit(state.now, ticket, name, attributes));
                    if admitted.is_err() {
                        // The tunnel has ended meanwhile: nobody else gives the name back.
                        acceptor.forget(self);
                    }
                }
                Err(refusal) => self.with(|state| {
                    let _it_may_be_late = state.tunnel.refuse_peer(state.now, ticket, refusal);
                }),
            },
            (News::Up(outcome), Some(acceptor)) => acceptor.up(self, &outcome),
            (News::Down(reason), Some(acceptor)) => acceptor.down(self, reason),
            // A client's application looks for itself.
            (_, None) => {}
        }
    }
}

impl<R: Runtime> Awaited for Cell<R> {
    type State = State;

    fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        self.peek(look)
    }
}

impl<R: Runtime> Driven<R> {
    /// Drains the tunnel: events to those they concern, datagrams to the socket.
    fn drive(&mut self) -> After {
        let after = self.state.drive(self.socket.as_deref());
        if self.state.is_drained() {
            self.socket = None;
        }
        after
    }
}
