//! Every limit of the protocol, in one place, with its default and its reason (Protocol.md, "Limits").

use std::time::Duration;

/// What a tunnel, and all tunnels of an endpoint together, may cost.
///
/// The defaults are the numbers of Protocol.md. A limit is a promise about memory and time: whatever a peer
/// sends, neither grows past what follows from these fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from the first packet to the outcome of the authentication; longer ends the tunnel.
    pub authentication_time: Duration,
    /// Bidirectional streams, stream 0 among them, that an unauthenticated peer may open.
    pub early_streams: u32,
    /// Bytes, over all streams, that an unauthenticated peer may send.
    pub early_bytes: u32,
    /// The part of `early_bytes` that the connecting side spends outside stream 0, so that a second message
    /// of an authentication method still finds credit.
    pub early_bytes_outside: u32,
    /// Unauthenticated connections of one endpoint.
    pub unauthenticated: usize,
    /// Unauthenticated connections of one validated source (an IPv4 address, an IPv6 /64).
    pub unauthenticated_per_source: usize,
    /// From this many unauthenticated connections on, a source must first show that it receives (Retry).
    pub retry_from: usize,
    /// The same for the connections of one source.
    pub retry_from_per_source: usize,
    /// Connection attempts that wait to be accepted. Above this an Initial is ignored: the retransmission of
    /// the client is the queue.
    pub incoming: usize,
    /// How long an unauthenticated connection that has ended keeps its place, so that its peer can be told again.
    pub farewell_time: Duration,
    /// Bytes kept for one such attempt, beside its first datagram, which is no longer than `datagram_bytes`.
    pub incoming_bytes: u64,

    /// Streams that the peer may have open at once, at the very most.
    pub streams: u32,
    /// What the listening side announces of them after authentication; doubled whenever half are in use,
    /// because every allowed stream costs map entries, used or not.
    pub streams_listening: u32,
    /// What the connecting side announces from its transport parameters on.
    pub streams_connecting: u32,
    /// Unread bytes of one stream: 84 Mbit/s for one visitor at a round trip of 100 ms.
    ///
    /// Not more, because quinn-proto 0.11.19 keeps at most 1,024 pieces of a stream and ends the *connection* at
    /// one more. Frames as long as a datagram are not merged: 1 MiB of them are some 730 pieces, and 904 where a path takes
    /// 1,200 bytes only; 4 MiB are nearly 3,000. Longer datagrams would allow more, but the window is announced before their
    /// length is known, and a path may become narrow at any time.
    pub stream_window: u32,
    /// The longest datagram, in bytes of UDP payload (1,200 to 65,527): what this side tells the peer that it takes, and
    /// what it sends at the very most. How long they become is found out for each path.
    ///
    /// Whoever receives must have room for one; the drivers' buffers take any. A peer's datagram is kept as a
    /// whole while a byte of it is unread; but beyond 32 KiB, or one and a half times what is unread, quinn-proto copies the
    /// bytes of a stream into memory of their own, whatever this limit says.
    ///
    /// Not more, because more does not pay: the payload of a jumbo frame saves 30 % of the processor time of 1,452 bytes on a
    /// loopback that takes any length; 16,376, 32,753 and 65,507 bytes save no more, being fewer in a batch, which is at
    /// most 65,507 bytes. And a path that takes more is seldom a path: see the driver's `interface`.
    pub datagram_bytes: u16,
    /// Unread bytes of all streams that move.
    pub connection_window: u32,
    /// Unacknowledged bytes that are kept for sending again.
    pub send_window: u64,
    /// Unread bytes of stalled streams, on top of `connection_window`. Beyond it the stream that has stalled
    /// longest is reset.
    pub stalled_bytes: u64,
    /// How long the bytes of a stream may lie unread until it counts as stalled.
    pub stall_time: Duration,
    /// Length of a stream's header block.
    pub header_bytes: usize,
    /// Time for a header to arrive in full.
    pub header_time: Duration,
    /// Time for a decision over an offered stream: the acceptor dials before it answers.
    pub dial_time: Duration,
    /// Time for the peer's answer to a stream that this side opened: its `header_time` and `dial_time`, and
    /// the way there and back.
    pub answer_time: Duration,
    /// Payload of one frame on stream 0.
    pub frame_bytes: usize,
    /// Bindings one side may ask for in a tunnel.
    pub bindings: usize,
    /// Interval of the keep-alives, which the connecting side alone sends. NAT bindings die after 30 s.
    pub keep_alive: Duration,
    /// Silence after which a tunnel is lost.
    pub idle: Duration,
    /// Silence after which it is lost when something else says, too, that the peer is gone
    /// ([`Tunnel::probe`](crate::Tunnel::probe)). Long enough for several attempts to reach it.
    pub probe_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: u32 = 1024;
        const MIB: u32 = 1024 * KIB;
        Self {
            authentication_time: Duration::from_secs(10),
            early_streams: 4,
            early_bytes: 16 * KIB,
            early_bytes_outside: 8 * KIB,
            unauthenticated: 1024,
            unauthenticated_per_source: 64,
            retry_from: 256,
            retry_from_per_source: 16,
            incoming: 1024,
            farewell_time: Duration::from_secs(1),
            incoming_bytes: 64 * u64::from(KIB),
            streams: 8192,
            streams_listening: 64,
            streams_connecting: 1024,
            stream_window: MIB,
            datagram_bytes: 8972,
            connection_window: 16 * MIB,
            send_window: 16 * u64::from(MIB),
            stalled_bytes: 256 * u64::from(MIB),
            stall_time: Duration::from_secs(1),
            header_bytes: 4096,
            header_time: Duration::from_secs(5),
            dial_time: Duration::from_secs(10),
            answer_time: Duration::from_secs(20),
            frame_bytes: 4096,
            bindings: 64,
            keep_alive: Duration::from_secs(12),
            idle: Duration::from_secs(30),
            probe_time: Duration::from_secs(2),
        }
    }
}
