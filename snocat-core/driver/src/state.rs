//! What is behind the lock of a tunnel: the protocol's state, and what its users wait for.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Instant;

use snocat_core::auth::{Claim, Outcome, Question};
use snocat_core::open::Header;
use snocat_core::quic::Transmit;
use snocat_core::route::RouteAddress;
use snocat_core::{
    BindingId, CloseReason, Code, EndpointEvent, Event, Refusal, StreamId, Ticket, Tunnel, TunnelEvent,
};

use crate::authentication::Running;
use crate::runtime::Runtime;
use crate::socket::Socket;
use crate::sync::{Key, Waiters, store};

/// Batches of datagrams one drive sends before others have their turn. Each takes up to a tenth of a millisecond, and so long
/// everybody else's bytes wait, those of quiet tunnels among them.
const SENDS: usize = 4;
/// When the connecting side authenticates.
pub(crate) enum Start {
    /// As soon as the handshake is done.
    AtOnce,
    /// If it is the first of several attempts to get that far.
    Racing(Arc<AtomicBool>),
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
pub(crate) enum News {
    Question(Ticket, Question),
    Claim(Ticket, Claim),
    Up(Outcome),
    Down(CloseReason),
}

/// What a binding is refused with that nobody serves.
pub(crate) fn not_served() -> Refusal {
    Refusal::new(Code::BIND_NOT_OFFERED, "this side binds no ports")
}

/// What is to be done once the lock is released.
pub(crate) struct After {
    pub(crate) woken: Vec<Waker>,
    pub(crate) endpoint_events: Vec<EndpointEvent>,
    pub(crate) tell: bool,
}

impl State {
    pub(crate) fn new(now: Instant, tunnel: Tunnel, start: Start, serves_bindings: bool) -> Self {
        Self {
            tunnel,
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
            serves_bindings,
            binding_requests: VecDeque::new(),
            binding_answers: BTreeMap::new(),
            waiters: Waiters::default(),
            woken: Vec::new(),
            endpoint_events: Vec::new(),
            news: VecDeque::new(),
            telling: false,
        }
    }

    /// The task that owns the timer.
    pub(crate) fn task(&self) -> Option<Waker> {
        self.task.clone()
    }

    /// Keeps the waker of the task that owns the timer.
    pub(crate) fn set_task(&mut self, context: &Context<'_>) {
        store(&mut self.task, context);
    }

    /// Takes in what has come for the tunnel.
    pub(crate) fn take_in(&mut self, now: Instant, mail: Vec<TunnelEvent>) {
        self.now = now;
        for event in mail {
            self.tunnel.handle_event(now, event);
        }
        // Whoever acts next is to find what has happened, and not only that something has.
        self.dispatch_events();
    }

    /// Lets everything happen that is due.
    pub(crate) fn handle_timeout(&mut self) {
        let now = self.now;
        if self.tunnel.poll_timeout().is_some_and(|at| at <= now) {
            self.tunnel.handle_timeout(now);
        }
    }

    /// What to set the timer to, unless it fires early enough: that costs less than to set it anew each time.
    pub(crate) fn arm(&mut self) -> Option<Instant> {
        let set = self.wanted().filter(|at| self.armed.is_none_or(|armed| *at < armed));
        self.armed = set.or(self.armed);
        set
    }

    /// The timer has fired.
    pub(crate) fn disarm(&mut self) {
        self.armed = None;
    }

    /// What is to be told next. Once there is nothing, whoever has something begins to tell.
    pub(crate) fn next_news(&mut self) -> Option<News> {
        let news = self.news.pop_front();
        if news.is_none() {
            self.telling = false;
        }
        news
    }

    /// Drains the tunnel: events to those they concern, datagrams to the socket, if there still is one.
    pub(crate) fn drive<R: Runtime>(&mut self, socket: Option<&Socket<R>>) -> After {
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
