//! The server: takes connections, lets authentication run side by side, and yields what happens to tunnels.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use snocat_core::auth::{Claim, Failure, ListeningConfig, Outcome, TunnelName};
use snocat_core::{AdmissionCounts, CloseReason, Code, Refusal};

use crate::authentication::Methods;
use crate::cell::Cell;
use crate::config::ServerConfig;
use crate::driver::Driver;
use crate::runtime::Runtime;
use crate::sync::{Waiters, lock, wait};
use crate::table::{Reserved, TunnelTable};
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

/// A listening endpoint and its tunnels. Dropped, it ends them all. The port is free as soon as the last tunnel is
/// [drained](Tunnel::drained), whoever still holds tunnels, streams or events.
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
        let acceptor = Arc::new(Acceptor {
            table: TunnelTable::default(),
            events: Mutex::default(),
            accepted: Mutex::new(Accepted { config: Arc::new(config.authentication.clone()), generation: 0 }),
            methods: config.methods.clone(),
        });
        let (driver, socket) = Driver::server(runtime, quic, config, acceptor.clone())?;
        driver.run(socket);
        Ok(Self { driver, acceptor })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.driver.local
    }

    /// The tunnels that are up, by name.
    pub fn tunnels(&self) -> &TunnelTable<R> {
        &self.acceptor.table
    }

    /// Accepts by these methods from here on. Tunnels whose credentials no longer stand end at once: their clients
    /// learn that they were withdrawn. [Handlers](crate::AuthenticationHandler) stay those that the server was made with:
    /// of one that is to go on, put the authenticator that [`ServerConfig::handle`] has added to
    /// [`authentication`](ServerConfig::authentication) among the methods.
    pub fn set_authentication(&self, authentication: ListeningConfig) {
        self.acceptor.accept_by(authentication.clone());
        self.driver.set_authentication(authentication);
        self.review();
    }

    /// Ends the tunnels whose credentials no longer stand. To be called when the answer may have changed without
    /// [`set_authentication`](Self::set_authentication): by time, which lets certificates expire, or because a
    /// [handler](crate::AuthenticationHandler::stands) knows something new.
    pub fn review(&self) {
        let config = self.acceptor.reviewed();
        for tunnel in self.acceptor.table.all() {
            end_unless_it_stands(&tunnel, &config);
        }
    }

    /// What has become of those who wanted to connect.
    pub fn admission(&self) -> AdmissionCounts {
        self.driver.admission()
    }

    /// The next event; `None` once the server was closed, or its runtime was stopped, and everything was told.
    pub async fn next(&self) -> Option<ServerEvent<R>> {
        let next = |events: &mut Events<R>| match events.queue.pop_front() {
            Some(event) => Some(Some(event)),
            None => events.closed.then_some(None),
        };
        wait(&self.acceptor.events, |events| Some(&mut events.waiters), next).await
    }

    /// Ends all tunnels; their clients learn why. Returns when they know and the port is free, or after a second. If it
    /// is dropped before that, the tunnels end all the same.
    pub async fn close(&self, code: Code, text: &str) {
        /// Whatever happens meanwhile, [`next`](TunnelServer::next) comes to its end.
        struct Closing<'a, R: Runtime>(&'a Acceptor<R>);

        impl<R: Runtime> Drop for Closing<'_, R> {
            fn drop(&mut self) {
                self.0.close();
            }
        }

        self.driver.close(&Refusal::new(code, text));
        let _closing = Closing(&self.acceptor);
        let runtime = &self.driver.runtime;
        futures_lite::future::or(self.driver.ended(), runtime.sleep_until(runtime.now() + DRAIN)).await;
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
    accepted: Mutex<Accepted>,
    pub(crate) methods: Methods,
}

/// The methods of the server, as they are now.
struct Accepted {
    config: Arc<ListeningConfig>,
    /// How often they have changed, or may say something else than before: who was let in before that and is not in the
    /// table yet is looked at when it is.
    generation: u64,
}

/// Whoever proved something that is no longer accepted has to go, and whoever has a name that is somebody's by now.
fn end_unless_it_stands<R: Runtime>(tunnel: &Tunnel<R>, config: &ListeningConfig) {
    let outcome = tunnel.outcome();
    let stands = outcome.proven.as_ref().is_some_and(|proven| {
        config.stands(&outcome.method, proven) && config.allows_name(&proven.grant, &outcome.name)
    });
    if !stands {
        tunnel.close(Code::WITHDRAWN, "the credentials were withdrawn, or what they allow has changed");
    }
}

fn supersede<R: Runtime>(tunnel: &Tunnel<R>) {
    tunnel.close(Code::SUPERSEDED, "a newer connection with the same identity has taken the name over");
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
        let (config, generation) = self.accepted();
        // The exchange went on with the configuration that it began with.
        if !config.stands(&claim.method, &claim.proven) {
            // To the peer this looks like any other credentials that are not good.
            tracing::info!(tunnel = %cell.id(), "credentials were withdrawn while they were shown");
            return Err(Failure::denied("withdrawn").refusal());
        }
        let Reserved { name, superseded } = self.table.reserve(cell.id(), claim, &config, generation)?;
        if let Some(older) = superseded {
            tracing::info!(tunnel = %older.id(), by = %cell.id(), "superseded");
            supersede(&older);
        }
        Ok(name)
    }

    fn accept_by(&self, config: ListeningConfig) {
        let mut accepted = lock(&self.accepted);
        accepted.config = Arc::new(config);
        accepted.generation += 1;
    }

    fn reviewed(&self) -> Arc<ListeningConfig> {
        let mut accepted = lock(&self.accepted);
        accepted.generation += 1;
        accepted.config.clone()
    }

    fn accepted(&self) -> (Arc<ListeningConfig>, u64) {
        let accepted = lock(&self.accepted);
        (accepted.config.clone(), accepted.generation)
    }

    /// Gives back the name of a peer that was not admitted after all.
    pub(crate) fn forget(&self, cell: &Cell<R>) {
        let _never_filled = self.table.remove(cell.id());
    }

    pub(crate) fn up(&self, cell: &Arc<Cell<R>>, outcome: &Outcome) {
        let tunnel = Tunnel::new(cell.clone(), outcome.clone());
        let Some(filled) = self.table.fill(&tunnel) else { return };
        self.push(ServerEvent::TunnelUp(tunnel.clone()));
        let (config, generation) = self.accepted();
        if generation != filled.generation {
            end_unless_it_stands(&tunnel, &config);
        }
        if !filled.holds_name {
            supersede(&tunnel);
        }
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
            events.waiters.wake_all(&mut woken);
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// There will be no more events than there are.
    pub(crate) fn close(&self) {
        let mut woken = Vec::new();
        {
            let mut events = lock(&self.events);
            events.closed = true;
            events.waiters.wake_all(&mut woken);
        }
        woken.into_iter().for_each(Waker::wake);
    }
}
