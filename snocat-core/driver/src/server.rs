//! The server: takes connections, lets authentication run side by side, and yields what happens to tunnels.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use snocat_core::auth::{Claim, Outcome, TunnelName};
use snocat_core::{CloseReason, Code, Refusal, TunnelId};

use crate::cell::Cell;
use crate::config::ServerConfig;
use crate::driver::Driver;
use crate::runtime::Runtime;
use crate::sync::{Waiters, lock};
use crate::tunnel::{DRAIN, Tunnel};

/// What has happened to a tunnel of a server.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent<R: Runtime> {
    /// A client has authenticated.
    TunnelUp(Tunnel<R>),
    /// A tunnel that was up has ended.
    TunnelDown {
        /// Which one. Its name is free again.
        tunnel: Tunnel<R>,
        /// Why.
        reason: CloseReason,
    },
}

/// A listening endpoint and its tunnels. Dropped, it ends them all.
pub struct TunnelServer<R: Runtime> {
    driver: Arc<Driver<R>>,
    acceptor: Arc<Acceptor<R>>,
}

impl<R: Runtime> fmt::Debug for TunnelServer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelServer").field("quic", &self.local_addr()).finish_non_exhaustive()
    }
}

impl<R: Runtime> TunnelServer<R> {
    /// Listens on a UDP address; port 0 takes any.
    ///
    /// # Errors
    /// Those of binding the socket.
    pub fn bind(runtime: R, quic: SocketAddr, config: &ServerConfig) -> io::Result<Self> {
        let acceptor = Arc::new(Acceptor { table: TunnelTable::default(), events: Mutex::default() });
        let driver = Driver::server(runtime, quic, config, acceptor.clone())?;
        driver.run();
        Ok(Self { driver, acceptor })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.driver.socket.local_addr()
    }

    /// The tunnels that are up, by name.
    pub fn tunnels(&self) -> &TunnelTable<R> {
        &self.acceptor.table
    }

    /// The next event; `None` once the server was closed and everything was told.
    pub async fn next(&self) -> Option<ServerEvent<R>> {
        poll_fn(|context| {
            let mut events = lock(&self.acceptor.events);
            match events.queue.pop_front() {
                Some(event) => Poll::Ready(Some(event)),
                None if events.closed => Poll::Ready(None),
                None => {
                    events.waiters.register(context);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Ends all tunnels; their clients learn why. Returns when they know, or after a second.
    pub async fn close(&self, code: Code, text: &str) {
        self.driver.close(&Refusal::new(code, text));
        let runtime = &self.driver.runtime;
        let empty = poll_fn(|context| {
            self.driver.wait_for_change(context);
            if self.driver.tunnels() == 0 { Poll::Ready(()) } else { Poll::Pending }
        });
        futures_lite::future::or(empty, runtime.sleep_until(runtime.now() + DRAIN)).await;
        self.acceptor.close();
    }
}

impl<R: Runtime> Drop for TunnelServer<R> {
    fn drop(&mut self) {
        self.driver.close(&Refusal::new(Code::CLOSED, "no longer in use"));
        self.acceptor.close();
        // Unread events hold tunnels, and those the server.
        let unread = {
            let mut events = lock(&self.acceptor.events);
            events.dropped = true;
            std::mem::take(&mut events.queue)
        };
        drop(unread);
    }
}

/// Decides over names and keeps the order of events. The tunnels call it.
pub(crate) struct Acceptor<R: Runtime> {
    table: TunnelTable<R>,
    events: Mutex<Events<R>>,
}

struct Events<R: Runtime> {
    queue: VecDeque<ServerEvent<R>>,
    waiters: Waiters,
    closed: bool,
    /// Nobody will read any more.
    dropped: bool,
}

impl<R: Runtime> Default for Events<R> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), waiters: Waiters::default(), closed: false, dropped: false }
    }
}

impl<R: Runtime> Acceptor<R> {
    /// Which name a peer that has proven its claim gets.
    pub(crate) fn decide(&self, cell: &Cell<R>, claim: &Claim) -> Result<TunnelName, Refusal> {
        self.table.reserve(cell.id(), claim)
    }

    /// Gives back the name of a peer that was not admitted after all.
    pub(crate) fn forget(&self, cell: &Cell<R>) {
        let _never_filled = self.table.remove(cell.id());
    }

    pub(crate) fn up(&self, cell: &Arc<Cell<R>>, outcome: &Outcome) {
        let tunnel = Tunnel::new(cell.clone(), outcome.clone());
        self.table.fill(&tunnel);
        self.push(ServerEvent::TunnelUp(tunnel));
    }

    pub(crate) fn down(&self, cell: &Arc<Cell<R>>, reason: CloseReason) {
        let Some(tunnel) = self.table.remove(cell.id()) else { return };
        // Nobody needs to hear of a tunnel that is gone before it was noticed; and the queue stays as short as
        // there are tunnels.
        let unnoticed = {
            let mut events = lock(&self.events);
            let unnoticed = events
                .queue
                .iter()
                .position(|event| matches!(event, ServerEvent::TunnelUp(other) if other.id() == tunnel.id()));
            unnoticed.and_then(|index| events.queue.remove(index))
        };
        if unnoticed.is_none() {
            self.push(ServerEvent::TunnelDown { tunnel, reason });
        }
    }

    fn push(&self, event: ServerEvent<R>) {
        let mut woken = Vec::new();
        {
            let mut events = lock(&self.events);
            if events.dropped {
                // The tunnel in the event goes once the lock is released.
                drop(events);
                return;
            }
            events.queue.push_back(event);
            events.waiters.release(&mut woken);
        }
        woken.into_iter().for_each(Waker::wake);
    }

    fn close(&self) {
        let mut woken = Vec::new();
        {
            let mut events = lock(&self.events);
            events.closed = true;
            events.waiters.release(&mut woken);
        }
        woken.into_iter().for_each(Waker::wake);
    }
}

/// The tunnels of this process that are up, by name.
pub struct TunnelTable<R: Runtime>(Mutex<Names<R>>);

struct Names<R: Runtime> {
    names: BTreeMap<String, Option<Tunnel<R>>>,
    holders: BTreeMap<TunnelId, String>,
    next: u64,
}

impl<R: Runtime> Default for TunnelTable<R> {
    fn default() -> Self {
        Self(Mutex::new(Names { names: BTreeMap::new(), holders: BTreeMap::new(), next: 1 }))
    }
}

impl<R: Runtime> fmt::Debug for TunnelTable<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelTable").field("tunnels", &self.len()).finish_non_exhaustive()
    }
}

impl<R: Runtime> TunnelTable<R> {
    /// The tunnel of this name, if it is up.
    pub fn get(&self, name: &str) -> Option<Tunnel<R>> {
        lock(&self.0).names.get(name)?.clone()
    }

    /// How many are up.
    pub fn len(&self) -> usize {
        lock(&self.0).names.values().flatten().count()
    }

    /// Whether none is up.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A name that the peer asks for is its own or nobody's; without one, it is called after its identity.
    fn reserve(&self, id: TunnelId, claim: &Claim) -> Result<TunnelName, Refusal> {
        let mut names = lock(&self.0);
        let name = match &claim.name {
            Some(name) if names.names.contains_key(name.as_ref()) => {
                let text = format!("the name `{name}` is held by a living tunnel");
                return Err(Refusal::new(Code::NAME_TAKEN, text));
            }
            Some(name) => name.clone(),
            None => names.invent(claim.proven.identity.as_deref())?,
        };
        names.names.insert(name.to_string(), None);
        names.holders.insert(id, name.to_string());
        Ok(name)
    }

    fn fill(&self, tunnel: &Tunnel<R>) {
        lock(&self.0).names.insert(tunnel.name().to_owned(), Some(tunnel.clone()));
    }

    fn remove(&self, id: TunnelId) -> Option<Tunnel<R>> {
        let mut names = lock(&self.0);
        let name = names.holders.remove(&id)?;
        names.names.remove(&name)?
    }
}

impl<R: Runtime> Names<R> {
    fn invent(&mut self, identity: Option<&str>) -> Result<TunnelName, Refusal> {
        if let Some(name) = identity.and_then(|identity| identity.parse::<TunnelName>().ok())
            && !self.names.contains_key(name.as_ref())
        {
            return Ok(name);
        }
        loop {
            let name = format!("{}-{}", identity.unwrap_or("tunnel"), self.next);
            self.next += 1;
            match name.parse::<TunnelName>() {
                Ok(name) if !self.names.contains_key(name.as_ref()) => return Ok(name),
                Ok(_) => {}
                Err(error) => return Err(Refusal::new(Code::NAME_INVALID, error.to_string())),
            }
        }
    }
}
