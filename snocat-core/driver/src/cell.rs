//! A tunnel behind its lock, and the task that owns its timer.
//!
//! Whoever has something for the tunnel (the receiving task, an application's read or write, the tunnel's own
//! task) locks it, acts, and drives it before letting go: events are handed out, and datagrams sent, right there.
//! What must not happen under the lock is put down and done after it: waking tasks, talking to the endpoint, and
//! telling the server.
//!
//! The receiving task does not wait for the lock: while somebody else has it, datagrams are left as *mail*, which whoever lets
//! go of the tunnel takes in. To be put to sleep and woken for each batch costs more than the batch.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use snocat_core::auth::{Claim, Outcome, Question};
use snocat_core::open::Header;
use snocat_core::quic::Transmit;
use snocat_core::route::RouteAddress;
use snocat_core::{
    BindingId, CloseReason, Code, EndpointEvent, Event, Refusal, Serving, StreamId, Ticket, Tunnel,
    TunnelEvent, TunnelId,
};

use crate::authentication::{self, Methods, Running};
use crate::driver::Driver;
use crate::runtime::{Runtime, Timer};
use crate::server::Acceptor;
use crate::socket::Socket;
use crate::sync::{Awaited, Key, Waiters, lock, store, try_lock};

/// Batches of datagrams one drive sends before others have their turn. Each takes up to a tenth of a millisecond, and so long
/// everybody else's bytes wait, those of quiet tunnels among them.
const SENDS: usize = 4;
/// Datagrams that are left as mail at most, and a batch on top. Then the receiving task waits for the lock.
const MAIL: usize = 256;

/// When the connecting side authenticates.
pub(crate) enum Start {
    /// As soon as the handshake is done.
    AtOnce,
    /// If it is the first of several attempts to get that far.
    Racing(Arc<AtomicBool>),
}

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

/// What the driver keeps beside the protocol's state.
pub(crate) struct State {
    pub(crate) tunnel: Tunnel,
    pub(crate) now: Instant,
    start: Start,
    /// The task that owns the timer.
    task: Option<Waker>,
    /// What the timer is set to.
    armed: Option<Instant>,
    /// Datagrams that the socket had no room for.
    blocked: Option<Transmit>,
    /// What they are composed in. Lent by the socket; kept only while they wait.
    buffer: Vec<u8>,
    /// This tunnel among those that wait for the socket.
    sender: Option<Key>,
    drained: bool,
    /// The peer's host has said that nothing listens there.
    pub(crate) unreachable: bool,

    /// Methods of the application that the authentication runs.
    pub(crate) running: Running,
    /// The outcome, while a method of this side has not said yet that it is content.
    accepted: Option<Outcome>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) streams: BTreeMap<StreamId, Slot>,
    pub(crate) offers: BTreeMap<StreamId, Header>,
    pub(crate) offer_waiters: Waiters,
    pub(crate) open_waiters: Waiters,
    /// Whether the application gives the peer the ports that it asks for.
    pub(crate) serves_bindings: bool,
    pub(crate) binding_requests: VecDeque<(BindingId, u16, RouteAddress)>,
    pub(crate) binding_answers: BTreeMap<BindingId, Result<Vec<SocketAddr>, Refusal>>,
    /// Those that wait for anything rare: the outcome, bindings, the end.
    pub(crate) waiters: Waiters,

    woken: Vec<Waker>,
    endpoint_events: Vec<EndpointEvent>,
    news: VecDeque<News>,
    /// Somebody is telling the server; the order of the news is theirs.
    telling: bool,
}

/// Who waits for a stream, and what has become of it.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Those that wait for its end.
    pub(crate) waiters: Waiters,
    pub(crate) refused: Option<Refusal>,
    pub(crate) stopped: Option<Code>,
    /// This side has ended its direction.
    pub(crate) finishing: bool,
    /// Everything written has arrived.
    pub(crate) finished: bool,
    /// The acceptor has accepted it.
    pub(crate) accepted: bool,
    /// The offer was taken back, the peer has reset the stream, or this side has for not being read.
    pub(crate) gone: Option<Code>,
}

impl Slot {
    fn wake_all(&mut self, woken: &mut Vec<Waker>) {
        woken.extend(self.reader.take());
        woken.extend(self.writer.take());
        self.waiters.wake_all(woken);
    }
}

/// What others are told, in this order.
enum News {
    Question(Ticket, Question),
    Claim(Ticket, Claim),
    Up(Outcome),
    Down(CloseReason),
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
        let state = State {
            now,
            start,
            task: None,
            armed: None,
            blocked: None,
            buffer: Vec::new(),
            sender: None,
            drained: false,
            unreachable: false,
            running: Running::default(),
            accepted: None,
            outcome: None,
            closed: None,
            streams: BTreeMap::new(),
            offers: BTreeMap::new(),
            offer_waiters: Waiters::default(),
            open_waiters: Waiters::default(),
            serves_bindings: driver.serves_bindings,
            binding_requests: VecDeque::new(),
            binding_answers: BTreeMap::new(),
            waiters: Waiters::default(),
            woken: Vec::new(),
            endpoint_events: Vec::new(),
            news: VecDeque::new(),
            telling: false,
            tunnel,
        };
        let id = state.tunnel.id();
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
            let task = lock(&self.driven).state.task.clone();
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
        state.now = self.driver.runtime.now();
        let mail = std::mem::take(&mut *lock(&self.mail));
        for event in mail {
            state.tunnel.handle_event(state.now, event);
        }
        // Whoever acts next is to find what has happened, and not only that something has.
        state.dispatch_events();
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
                if !self.cell.peek(|state| state.drained) {
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
                store(&mut driven.state.task, context);
                self.take_mail(&mut driven.state);
                let now = driven.state.now;
                if driven.state.tunnel.poll_timeout().is_some_and(|at| at <= now) {
                    driven.state.tunnel.handle_timeout(now);
                }
                let after = driven.drive();
                let state = &mut driven.state;
                let wanted = state.wanted();
                // A timer that fires early costs less than one that is set anew each time.
                let set = wanted.filter(|at| state.armed.is_none_or(|armed| *at < armed));
                state.armed = set.or(state.armed);
                (set, state.drained, after)
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
            lock(&self.driven).state.armed = None;
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
        let State { news, telling, .. } = &mut lock(&self.driven).state;
        let news = news.pop_front();
        if news.is_none() {
            *telling = false;
        }
        news
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

/// What a binding is refused with that nobody serves.
pub(crate) fn not_served() -> Refusal {
    Refusal::new(Code::BIND_NOT_OFFERED, "this side binds no ports")
}

/// What is to be done once the lock is released.
struct After {
    woken: Vec<Waker>,
    endpoint_events: Vec<EndpointEvent>,
    tell: bool,
}

impl<R: Runtime> Driven<R> {
    /// Drains the tunnel: events to those they concern, datagrams to the socket.
    fn drive(&mut self) -> After {
        let after = self.state.drive(self.socket.as_deref());
        if self.state.drained {
            self.socket = None;
        }
        after
    }
}

impl State {
    fn drive<R: Runtime>(&mut self, socket: Option<&Socket<R>>) -> After {
        let mut sends = 0;
        loop {
            self.take_endpoint_events();
            self.dispatch_events();
            if sends == SENDS {
                self.woken.extend(self.task.clone());
                break;
            }
            if !socket.is_some_and(|socket| self.send(socket)) {
                break;
            }
            sends += 1;
        }
        if self.blocked.is_none()
            && let Some(socket) = socket
        {
            socket.give_back(std::mem::take(&mut self.buffer));
        }
        // Sending may have brought something up.
        self.take_endpoint_events();
        if self.drained {
            self.waiters.wake_all(&mut self.woken);
            if let (Some(key), Some(socket)) = (self.sender.take(), socket) {
                socket.wait_no_longer(key);
            }
        }
        if self.drained || self.wanted().is_some_and(|at| self.armed.is_none_or(|armed| at < armed)) {
            self.woken.extend(self.task.clone());
        }
        let tell = !self.news.is_empty() && !std::mem::replace(&mut self.telling, true);
        After {
            woken: std::mem::take(&mut self.woken),
            endpoint_events: std::mem::take(&mut self.endpoint_events),
            tell,
        }
    }

    fn take_endpoint_events(&mut self) {
        while let Some(event) = self.tunnel.poll_endpoint_event() {
            self.drained |= event.is_drained();
            self.endpoint_events.push(event);
        }
    }

    /// When the timer is to fire. A full socket is waited for in another way.
    fn wanted(&mut self) -> Option<Instant> {
        if self.blocked.is_some() || self.drained { None } else { self.tunnel.poll_timeout() }
    }

    /// Sends one batch. Returns whether there may be more to send now.
    fn send<R: Runtime>(&mut self, socket: &Socket<R>) -> bool {
        let transmit = match self.blocked.take() {
            Some(transmit) => transmit,
            None => {
                if self.buffer.capacity() == 0 {
                    self.buffer = socket.lend();
                }
                let segments = socket.max_segments(self.tunnel.mtu());
                match self.tunnel.poll_transmit(self.now, segments, &mut self.buffer) {
                    Some(transmit) => transmit,
                    None => return false,
                }
            }
        };
        let contents = self.buffer.get(..transmit.size).unwrap_or_default();
        let sent = socket.send(&transmit, contents);
        if socket.take_refused() {
            self.refused();
        }
        if sent.is_ok() {
            return true;
        }
        self.blocked = Some(transmit);
        if let Some(task) = &self.task {
            self.woken.extend(socket.wait_writable(&mut self.sender, task));
        }
        false
    }

    /// The peer's host has said that nothing listens there.
    pub(crate) fn refused(&mut self) {
        self.unreachable = true;
        self.tunnel.probe(self.now);
    }

    fn dispatch_events(&mut self) {
        while let Some(event) = self.tunnel.poll() {
            self.dispatch(event);
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Connected => match &self.start {
                Start::Racing(won) if won.swap(true, Ordering::Relaxed) => {
                    let refusal = Refusal::new(Code::LOST_RACE, "another address was faster");
                    self.tunnel.close(self.now, refusal);
                }
                Start::AtOnce | Start::Racing(_) => self.tunnel.authenticate(self.now),
            },
            Event::AuthRequested { ticket, claim } => self.news.push_back(News::Claim(ticket, claim)),
            Event::AuthQuestion { ticket, question } => self.news.push_back(News::Question(ticket, question)),
            Event::Authenticated(outcome) => {
                self.running.accepted(&outcome.method, &mut self.woken);
                self.accepted = Some(outcome);
                self.method_done();
            }
            Event::BindingRequested { binding, .. } if !self.serves_bindings => {
                let _it_is_new = self.tunnel.answer_binding(self.now, binding, Err(not_served()));
            }
            Event::BindingRequested { binding, port, address } => {
                self.binding_requests.push_back((binding, port, address));
                self.waiters.wake_all(&mut self.woken);
            }
            Event::BindingAnswered { binding, result } => {
                self.binding_answers.insert(binding, result);
                self.waiters.wake_all(&mut self.woken);
            }
            Event::OpenRequested { stream, header } => {
                self.streams.insert(stream, Slot::default());
                self.offers.insert(stream, header);
                self.offer_waiters.wake_all(&mut self.woken);
            }
            Event::OpenCancelled { stream } if self.offers.remove(&stream).is_some() => {
                self.streams.remove(&stream);
            }
            Event::OpenCancelled { stream } => self.update(stream, |slot| slot.gone = Some(Code::CANCELLED)),
            Event::Reset { stream, code } => self.update(stream, |slot| slot.gone = Some(code)),
            Event::Stalled { stream } => self.update(stream, |slot| slot.gone = Some(Code::STALLED)),
            Event::Refused { stream, refusal } => {
                tracing::debug!(tunnel = %self.tunnel.id(), %stream, %refusal, "stream refused");
                self.update(stream, |slot| slot.refused = Some(refusal));
            }
            Event::Stopped { stream, code } => self.update(stream, |slot| slot.stopped = Some(code)),
            Event::Finished { stream } => self.update(stream, |slot| slot.finished = true),
            Event::Accepted { stream } => self.update(stream, |slot| slot.accepted = true),
            Event::Readable { stream } => {
                if let Some(slot) = self.streams.get_mut(&stream) {
                    self.woken.extend(slot.reader.take());
                }
            }
            Event::Writable { stream } => {
                if let Some(slot) = self.streams.get_mut(&stream) {
                    self.woken.extend(slot.writer.take());
                }
            }
            Event::StreamsAvailable => self.open_waiters.wake_first(&mut self.woken),
            Event::Closed(reason) => self.ended(reason),
            _ => {}
        }
    }

    /// The tunnel is up once the peer has accepted, and all methods of this side are content.
    pub(crate) fn method_done(&mut self) {
        if let Some(outcome) = self.accepted.take_if(|_| self.running.all_done()) {
            self.running.abandon(&mut self.woken);
            self.outcome = Some(outcome.clone());
            self.news.push_back(News::Up(outcome));
            self.waiters.wake_all(&mut self.woken);
        }
    }

    fn update(&mut self, stream: StreamId, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.streams.get_mut(&stream) {
            change(slot);
            slot.wake_all(&mut self.woken);
        }
    }

    /// An [`open`](crate::Tunnel::open) that has waited is over, in whatever way. If it had been woken, the next one may
    /// open a stream, too, or the one that it did not open.
    pub(crate) fn leave_open_waiters(&mut self, key: Key) {
        if self.open_waiters.leave(key) {
            self.open_waiters.wake_first(&mut self.woken);
        }
    }

    fn ended(&mut self, reason: CloseReason) {
        self.closed = Some(reason.clone());
        self.running.abandon(&mut self.woken);
        self.news.push_back(News::Down(reason));
        self.offers.clear();
        self.binding_requests.clear();
        for slot in self.streams.values_mut() {
            slot.wake_all(&mut self.woken);
        }
        self.offer_waiters.wake_all(&mut self.woken);
        self.open_waiters.wake_all(&mut self.woken);
        self.waiters.wake_all(&mut self.woken);
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.drained
    }
}
