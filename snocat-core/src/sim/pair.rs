//! A server, a client and a tunnel between them: enough to test what decides over streams.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::link::LinkConfig;
use super::network::Host;
use super::plain;
use super::world::{Spinning, World};
use crate::auth::{ConnectingConfig, ListeningConfig, NoProof, TunnelName};
use crate::open::Header;
use crate::{CloseReason, ConnectError, Event, OpenError, Refusal, StreamId, Tunnel, TunnelError, TunnelId};

/// What comes to no end by itself is given up after so much virtual time: more than all deadlines of the default
/// [`Limits`](crate::Limits) together.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a [`Pair`] did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// The stream was refused: by the router, or because an answer did not come in time.
    #[error("the stream was refused: {0}")]
    Refused(Refusal),
    /// The tunnel has ended.
    #[error("the tunnel has ended: {0}")]
    Closed(CloseReason),
    /// No stream could be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No connection could be begun.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Somebody has decided already, or the tunnel is not there: `world` was changed meanwhile.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// A node is busy without end.
    #[error(transparent)]
    Spinning(#[from] Spinning),
    /// Nothing has come of it in a minute of virtual time.
    #[error("nothing has come of it in {PATIENCE:?}")]
    NotInTime,
}

/// A server and a client in a world of their own, and a tunnel between them.
///
/// Its parts are there to go on with whatever this does not do: to read and write the streams, to make the link worse, to
/// kill a node.
///
/// ```
/// use snocat_core::sim::{LinkConfig, Pair, PairError};
/// use snocat_core::{Code, Refusal, open::Header};
///
/// let mut pair = Pair::connect(std::time::Instant::now(), 7, &LinkConfig::mobile())?;
/// let header = Header::forward("/tcp/80".parse().unwrap());
/// pair.visit(&header, |_| Ok(()))?;
/// let busy = Refusal::new(Code::BUSY, "later");
/// assert_eq!(pair.visit(&header, |_| Err(busy.clone())), Err(PairError::Refused(busy)));
/// # Ok::<(), PairError>(())
/// ```
#[derive(Debug)]
pub struct Pair {
    /// Where they are.
    pub world: World,
    /// The listening side, which the visitors are at.
    pub server: Host,
    /// The connecting side, which the router is at.
    pub client: Host,
    /// The tunnel, as the server names it.
    pub server_tunnel: TunnelId,
    /// The tunnel, as the client names it.
    pub client_tunnel: TunnelId,
}

impl Pair {
    /// Has a client connect, without a credential, to a server that admits it as `client`. Time starts at `start`,
    /// whatever it is; all else comes from `seed`.
    ///
    /// # Errors
    /// [`PairError::Closed`] above all: on a very bad link the time for the authentication is too short.
    pub fn connect(start: Instant, seed: u64, link: &LinkConfig) -> Result<Self, PairError> {
        let mut world = World::new(start, seed);
        let accepts = ListeningConfig::only(NoProof);
        let server = world.add(plain::listening(seed, accepts, &world.clock()));
        let client = world.add(plain::connecting(!seed));
        world.link(client, server, link);
        let offers = ConnectingConfig::only(NoProof);
        let connected = world.connect(client, server, &plain::connect(offers), plain::NAME);
        let client_tunnel = connected.ok_or(TunnelError::Closed)??;

        let name: TunnelName = "client".parse().map_err(|_| TunnelError::Closed)?;
        let mut server_tunnel = None;
        until(&mut world, |world, host, id, event| match event {
            Event::AuthRequested { ticket, .. } => {
                server_tunnel = Some(id);
                let now = world.now();
                tunnel(world, host, id)?.admit(now, ticket, name.clone(), BTreeMap::new())?;
                Ok(None)
            }
            Event::Authenticated(_) if host == client => Ok(Some(())),
            Event::Closed(reason) => Err(PairError::Closed(reason)),
            _ => Ok(None),
        })?;
        let server_tunnel = server_tunnel.ok_or(TunnelError::Closed)?;
        Ok(Self { world, server, client, server_tunnel, client_tunnel })
    }

    /// A visitor of the server wants to go where `header` says: the server opens a stream with it, the client has
    /// `router` decide over what has arrived, and the answer travels back. Returns the stream, which is left open.
    ///
    /// # Errors
    /// [`PairError::Refused`] with what the visitor is told.
    pub fn visit(
        &mut self,
        header: &Header,
        mut router: impl FnMut(&Header) -> Result<(), Refusal>,
    ) -> Result<StreamId, PairError> {
        let Self { world, server, client, server_tunnel, .. } = self;
        let now = world.now();
        let opened = tunnel(world, *server, *server_tunnel)?.open(now, header)?;
        until(world, |world, host, id, event| match event {
            Event::OpenRequested { stream, header } if host == *client => {
                let now = world.now();
                let tunnel = tunnel(world, host, id)?;
                match router(&header) {
                    Ok(()) => tunnel.accept(now, stream)?,
                    Err(refusal) => tunnel.refuse(now, stream, refusal)?,
                }
                Ok(None)
            }
            Event::Accepted { stream } if host == *server && stream == opened => Ok(Some(stream)),
            Event::Refused { stream, refusal } if host == *server && stream == opened => {
                Err(PairError::Refused(refusal))
            }
            Event::Closed(reason) => Err(PairError::Closed(reason)),
            _ => Ok(None),
        })
    }
}

fn tunnel(world: &mut World, host: Host, id: TunnelId) -> Result<&mut Tunnel, TunnelError> {
    world.tunnel_mut(host, id).ok_or(TunnelError::Closed)
}

/// Lets time pass until something comes of it.
fn until<T>(
    world: &mut World,
    mut act: impl FnMut(&mut World, Host, TunnelId, Event) -> Result<Option<T>, PairError>,
) -> Result<T, PairError> {
    let limit = world.elapsed() + PATIENCE;
    let mut result = Ok(None);
    world.run(limit, |world, host, id, event| {
        result = act(world, host, id, event);
        !matches!(result, Ok(None))
    })?;
    result?.ok_or(PairError::NotInTime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[expect(clippy::disallowed_methods, reason = "any instant will do, to begin a simulation at")]
    fn pair(link: &LinkConfig) -> Result<Pair, PairError> {
        Pair::connect(Instant::now(), 1, link)
    }

    fn header() -> Header {
        Header::forward("/tcp/80".parse().unwrap())
    }

    #[test]
    fn the_router_is_asked_for_what_the_visitor_wants() {
        let mut pair = pair(&LinkConfig::mobile()).unwrap();
        let mut asked = Vec::new();
        for _ in 0..2 {
            let router = |header: &Header| {
                asked.push(header.clone());
                Ok(())
            };
            let stream = pair.visit(&header(), router).unwrap();
            let stage = |host, id| pair.world.tunnel(host, id).unwrap().stage(stream);
            assert_eq!(stage(pair.server, pair.server_tunnel), Some(crate::StreamStage::Running));
            assert_eq!(stage(pair.client, pair.client_tunnel), Some(crate::StreamStage::Running));
        }
        assert_eq!(asked, [header(), header()]);
    }

    #[test]
    fn a_refusal_is_what_the_visitor_is_told() {
        let refusal = Refusal::new(Code::BUSY, "later");
        let visit = pair(&LinkConfig::default()).unwrap().visit(&header(), |_| Err(refusal.clone()));
        assert_eq!(visit, Err(PairError::Refused(refusal)));
    }

    #[test]
    fn without_a_network_there_is_no_tunnel() {
        let failed = pair(&LinkConfig { cut: true, ..LinkConfig::default() }).unwrap_err();
        assert!(matches!(failed, PairError::Closed(reason) if reason.code == Code::TIMEOUT));
    }

    #[test]
    fn a_network_that_is_gone_ends_the_visit() {
        let mut pair = pair(&LinkConfig::default()).unwrap();
        let (client, server) = (pair.client, pair.server);
        pair.world.link(client, server, &LinkConfig { cut: true, ..LinkConfig::default() });
        let failed = pair.visit(&header(), |_| Ok(())).unwrap_err();
        assert!(matches!(failed, PairError::Refused(refusal) if refusal.code == Code::TIMEOUT));
    }
}
