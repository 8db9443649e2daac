//! Configuration of an endpoint, and how it becomes quinn-proto's.
//!
//! The defaults of quinn-proto draw on the system's randomness and clock and allow far more than a stranger
//! may have; nothing of them is used unseen.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, IdleTimeout, MtuDiscoveryConfig, NoneTokenLog,
    NoneTokenStore, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
};

use super::congestion::CongestionControl;
use crate::auth::{ConnectingConfig, ListeningConfig};
use crate::limits::Limits;
use crate::quic::{ClientCrypto, HandshakeTokenKey, HmacKey, ServerCrypto, TimeSource};

/// How an [`Endpoint`](super::Endpoint) behaves. TLS and keys come finished, with their own randomness and
/// clock in them.
pub struct EndpointConfig {
    /// Where all randomness of the endpoint and its tunnels comes from: connection ids, among others. It
    /// must be unpredictable in production.
    pub seed: [u8; 32],
    /// Authenticates stateless resets. With the key of an endpoint that was at the same address before, the peers of that one
    /// learn with their next packet that their tunnels have ended.
    pub reset_key: Arc<dyn HmacKey>,
    /// The limits of every tunnel.
    pub limits: Limits,
    /// The congestion control of every tunnel, for what this side sends.
    pub congestion: CongestionControl,
    /// Whether the socket never fragments, so that larger packets may be tried.
    pub allow_mtud: bool,
    /// What is known of the way to a peer.
    pub datagram_limit: DatagramLimit,
    /// Set to take connections in, too.
    pub listen: Option<ListenConfig>,
}

/// Says how long a datagram to a peer may be, in bytes of UDP payload, as far as that can be known beforehand: what the
/// interface takes that leads there. `None` if nothing is known, which stands for 1,452. Asked once for each connection.
///
/// A tunnel begins with 1,200 and searches up to what this says, up to [`Limits::datagram_bytes`], and up to what the peer
/// takes. So what is too much costs some probes that are lost, and never the connection.
pub type DatagramLimit = Arc<dyn Fn(SocketAddr) -> Option<u16> + Send + Sync>;

/// What nearly every path takes, over IPv6 as well: 1,500 bytes without the headers of IP and UDP.
const ETHERNET: u16 = 1452;

/// What every path takes (RFC 9000, section 14).
const SMALLEST: u16 = 1200;

/// The longest that there is, over IPv6.
const LONGEST: u16 = 65_527;

/// What an endpoint needs to take connections in.
pub struct ListenConfig {
    /// TLS: ALPN `snocat/1` alone, no tickets, no early data.
    pub crypto: Arc<dyn ServerCrypto>,
    /// Seals Retry tokens.
    pub token_key: Arc<dyn HandshakeTokenKey>,
    /// Dates them.
    pub time_source: Arc<dyn TimeSource>,
    /// The authentication methods of this side.
    pub authentication: ListeningConfig,
}

/// What an endpoint needs for an outgoing connection.
pub struct ConnectConfig {
    /// TLS: ALPN `snocat/1` alone, no resumption, no early data.
    pub crypto: Arc<dyn ClientCrypto>,
    /// The credentials of this side.
    pub authentication: ConnectingConfig,
    /// Whether to wait, once the handshake is done, for [`Tunnel::authenticate`](crate::Tunnel::authenticate).
    /// For a caller that races several addresses and lets only the first one in authenticate.
    pub hold: bool,
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointConfig").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl fmt::Debug for ListenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenConfig").field("authentication", &self.authentication).finish_non_exhaustive()
    }
}

impl fmt::Debug for ConnectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectConfig").field("authentication", &self.authentication).finish_non_exhaustive()
    }
}

/// The configuration as quinn-proto wants it, and what the tunnels need of it.
pub(crate) struct Quic {
    pub(super) endpoint: Arc<quinn_proto::EndpointConfig>,
    pub(super) server: Option<Arc<ServerConfig>>,
    pub(crate) authentication: Option<ListeningConfig>,
    pub(crate) limits: Arc<Limits>,
    congestion: Arc<CongestionControl>,
    /// A longer datagram is not looked at.
    pub(super) longest_taken: u16,
    datagram_limit: DatagramLimit,
    /// What the last connections of either kind were made from, and up to which length they search. Most are alike.
    last_accepted: Option<(u16, Arc<ServerConfig>)>,
    last_connected: Option<(u16, Arc<TransportConfig>)>,
    /// What the draws among strangers come from.
    pub(super) admission_seed: [u8; 32],
    rng: ChaCha20Rng,
}

impl fmt::Debug for Quic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quic").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Quic {
    pub(super) fn new(config: &EndpointConfig) -> Self {
        let limits = Arc::new(config.limits.clone());
        let congestion = Arc::new(config.congestion);
        let mut rng = ChaCha20Rng::from_seed(config.seed);
        let mut endpoint = quinn_proto::EndpointConfig::new(config.reset_key.clone());
        let ids = seed(&mut rng);
        endpoint.rng_seed(Some(seed(&mut rng)));
        endpoint.min_reset_interval(limits.reset_interval);
        endpoint.cid_generator(move || Box::new(Ids(ChaCha20Rng::from_seed(ids))));
        let longest_taken = limits.datagram_bytes.clamp(SMALLEST, LONGEST);
        let _within_bounds = endpoint.max_udp_payload_size(longest_taken).is_ok();

        let listen = config.listen.as_ref();
        let server = listen.map(|listen| {
            let mut tokens = ValidationTokenConfig::default();
            tokens.sent(0).log(Arc::new(NoneTokenLog));
            let mut server = ServerConfig::new(listen.crypto.clone(), listen.token_key.clone());
            server
                .transport_config(Arc::new(listening_transport(&limits, &congestion, ETHERNET)))
                .validation_token_config(tokens)
                .time_source(listen.time_source.clone())
                // The endpoint admits before it queues, so quinn-proto's own bound is never the narrower.
                .max_incoming(limits.incoming + 1)
                .incoming_buffer_size(limits.incoming_bytes)
                .incoming_buffer_size_total(limits.incoming_bytes * limits.incoming as u64);
            Arc::new(server)
        });
        Self {
            endpoint: Arc::new(endpoint),
            server,
            authentication: listen.map(|listen| listen.authentication.clone()),
            longest_taken,
            datagram_limit: config.datagram_limit.clone(),
            last_accepted: None,
            last_connected: None,
            admission_seed: seed(&mut rng),
            limits,
            congestion,
            rng,
        }
    }

    pub(super) fn client(&mut self, config: &ConnectConfig, remote: SocketAddr) -> ClientConfig {
        let first_id = id(&mut self.rng);
        let longest = self.longest(remote);
        let last = self.last_connected.take().filter(|(length, _)| *length == longest);
        let (_, transport) = self.last_connected.insert(last.unwrap_or_else(|| {
            (longest, Arc::new(connecting_transport(&self.limits, &self.congestion, longest)))
        }));
        let mut client = ClientConfig::new(config.crypto.clone());
        client
            .transport_config(transport.clone())
            .token_store(Arc::new(NoneTokenStore))
            .initial_dst_cid_provider(Arc::new(move || first_id));
        client
    }

    /// What to take a connection from `remote` in with.
    pub(super) fn server_for(&mut self, remote: SocketAddr) -> Option<Arc<ServerConfig>> {
        let longest = self.longest(remote);
        let last = self.last_accepted.take().filter(|(length, _)| *length == longest);
        self.last_accepted = last.or_else(|| {
            let mut server = ServerConfig::clone(self.server.as_ref()?);
            server.transport_config(Arc::new(listening_transport(&self.limits, &self.congestion, longest)));
            Some((longest, Arc::new(server)))
        });
        self.last_accepted.as_ref().map(|(_, server)| server.clone())
    }

    /// Where the search for longer datagrams to `remote` ends.
    fn longest(&self, remote: SocketAddr) -> u16 {
        (self.datagram_limit)(remote).unwrap_or(ETHERNET).min(self.longest_taken)
    }
}

/// A stranger gets a few streams and a few bytes; the rest follows with the outcome.
fn listening_transport(
    limits: &Limits,
    congestion: &Arc<CongestionControl>,
    longest: u16,
) -> TransportConfig {
    let mut transport = transport(limits, congestion, longest);
    transport
        .max_concurrent_bidi_streams(limits.early_streams.into())
        .receive_window(limits.early_bytes.into());
    transport
}

/// The connecting side has verified the server before the first stream: full limits at once. It alone keeps
/// the tunnel alive, so that an idle one costs one exchange and not two.
fn connecting_transport(
    limits: &Limits,
    congestion: &Arc<CongestionControl>,
    longest: u16,
) -> TransportConfig {
    let mut transport = transport(limits, congestion, longest);
    transport
        .max_concurrent_bidi_streams(limits.streams_connecting.into())
        .receive_window(limits.connection_window.into())
        .keep_alive_interval(Some(limits.keep_alive));
    transport
}

fn transport(limits: &Limits, congestion: &Arc<CongestionControl>, longest: u16) -> TransportConfig {
    let idle = VarInt::try_from(limits.idle.as_millis()).unwrap_or(VarInt::MAX);
    let mut search = MtuDiscoveryConfig::default();
    search.upper_bound(longest);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(limits.stream_window.into())
        .send_window(limits.send_window)
        .max_idle_timeout(Some(IdleTimeout::from(idle)))
        .initial_mtu(SMALLEST)
        .mtu_discovery_config(Some(search))
        .congestion_controller_factory(congestion.clone());
    transport
}

fn seed(rng: &mut ChaCha20Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}

/// Length of the connection ids, in bytes: enough that guessing one is hopeless.
const ID_LENGTH: usize = 8;

fn id(rng: &mut ChaCha20Rng) -> ConnectionId {
    let mut bytes = [0; ID_LENGTH];
    rng.fill_bytes(&mut bytes);
    ConnectionId::new(&bytes)
}

/// Connection ids from the endpoint's seed.
struct Ids(ChaCha20Rng);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        id(&mut self.0)
    }

    fn cid_len(&self) -> usize {
        ID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
