//! Every limit of the protocol, in one place, with its default and its reason (Protocol.md, "Limits").

use std::time::Duration;

/// What a tunnel, and all tunnels of an endpoint together, may cost.
///
/// The defaults are the numbers of Protocol.md. A limit is a promise about memory and time: whatever a peer
/// sends, neither grows past what follows from these fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from the first packet to the outcome of the authentication; longer ends the tunnel. The connecting side gives
    /// the handshake so long, and then the listening side so long and `farewell_time` on top: the side that decides says
    /// itself that its time is over.
    pub authentication_time: Duration,
    /// The same for one that begins where no place is left for unauthenticated connections. In between it is in between: the
    /// places come free the sooner the fewer there are. Some ten round trips of a bad path, and not enough for a person
    /// who types a password.
    pub authentication_time_crowded: Duration,
    /// Bidirectional streams, stream 0 among them, that an unauthenticated peer may open.
    pub early_streams: u32,
    /// Bytes, over all streams, that an unauthenticated peer may send.
    pub early_bytes: u32,
    /// The part of `early_bytes` that the connecting side spends outside stream 0, so that a second message
    /// of an authentication method still finds credit.
    pub early_bytes_outside: u32,
    /// STREAM and CRYPTO frames that an unauthenticated peer may send, and datagrams. However short it is, quinn-proto keeps a
    /// piece of up to 112 bytes for each frame that lies beyond a gap, and as much again for each packet that it answers.
    pub early_frames: u32,
    /// Unauthenticated connections of one endpoint.
    pub unauthenticated: usize,
    /// Unauthenticated connections of one validated source (an IPv4 address, an IPv6 /64), while there are fewer than
    /// `retry_from` in all. From there on it is less, in proportion to the places that are left.
    pub unauthenticated_per_source: usize,
    /// The same for all sources of an IPv6 /56, which is what one customer has, and may use as 256 sources.
    pub unauthenticated_per_56: usize,
    /// The same for all sources of an IPv6 /48: 65,536 sources, which anybody can rent.
    pub unauthenticated_per_48: usize,
    /// The part of `unauthenticated`, at most a half of it, that is kept for sources that have authenticated lately.
    pub unauthenticated_reserve: usize,
    /// Sources that are remembered for having authenticated; the oldest are forgotten first. Each takes some 150 bytes.
    pub known_sources: usize,
    /// How long they are remembered, from their authentication and from the end of their tunnel on.
    pub known_time: Duration,
    /// From this many unauthenticated connections on, a source must first show that it receives (Retry).
    pub retry_from: usize,
    /// The same for the connections of one source. For those of an IPv6 /56 and /48 it is a quarter of what they may have.
    pub retry_from_per_source: usize,
    /// Connection attempts that wait to be accepted. Above this an Initial is ignored: the retransmission of
    /// the client is the queue.
    pub incoming: usize,
    /// How long an unauthenticated connection that has ended keeps its place, so that its peer can be told again.
    pub farewell_time: Duration,
    /// Bytes of datagrams kept for one such attempt, beside its first datagram, which is no longer than `datagram_bytes`: the
    /// rest of a long ClientHello, and some that come again. Of the shortest datagrams each byte costs ten.
    pub incoming_bytes: u64,

    /// Streams that the peer may have open at once, at the very most.
    pub streams: u32,
    /// What the listening side announces of them after authentication; doubled whenever half are in use,
    /// because every allowed stream costs map entries, used or not.
    pub streams_listening: u32,
    /// What the connecting side announces from its transport parameters on.
    pub streams_connecting: u32,
    /// Unread bytes of one stream: 168 Mbit/s for one visitor at a round trip of 100 ms.
    ///
    /// Not more, because of how quinn-proto 0.11.19 keeps what is unread: as pieces, one for each STREAM frame. When there
    /// are more than 2,048 it merges those that are shorter than twice the average, and ends the *connection* if more than
    /// 1,024 are left: because of what lies between them, or because of gaps. 2 MiB in full frames are some 1,810 pieces
    /// where a path takes 1,200 bytes only, so that no loss, whatever its rhythm, comes to that. With 2.75 MiB the loss of
    /// every second datagram does. Longer datagrams would allow more, but the window is announced before their length is
    /// known, and a path may become narrow at any time. What frames that are not full add is bounded by `cork_frames`.
    pub stream_window: u32,
    /// Memory for what is read of one stream from beyond a gap, where a datagram is missing, so that its loss does not hold up
    /// the credit for a round trip. It counts what is allocated: the bytes, and 192 more for each piece. So it takes a whole
    /// `stream_window` in full frames. All streams of a tunnel together have eight times that.
    pub gap_bytes: u32,
    /// STREAM frames of a stream that have come since it was last read empty, from which on the peer is asked to cork it: to
    /// hold short writes back until there are `cork_bytes` of them.
    ///
    /// Up to 512 short frames do no harm: these, and as many again that are on their way before the request is there, which at
    /// a round trip of 40 ms are 6,400 a second. For let *f* be the length of a full frame. What comes later consists of runs of
    /// at least 4,096 bytes, each of them full frames and at most one that is not. If *f* is above 2,048, a run has more than
    /// 1,365 bytes a frame, and all of them in 2 MiB, with the 512, are no more than 2,048. If it is less, a run has two full
    /// frames or more, so 2/3 *f* a frame. When there are more than 2,048, at least 1,537 of them are of runs, and the
    /// merging keeps only what is longer than 1,537 / 1,024 × 2/3 *f*: nothing. Later ones meet nothing but runs.
    ///
    /// quinn-proto also merges when all it keeps alive, the whole datagram for each frame, exceeds what is unread by 32 KiB and by
    /// one and a half times. Runs never make it so: of datagrams of 8,972 bytes they use almost half at the least. The 512
    /// may, but then there are not 1,024 pieces yet.
    ///
    /// What this does not hold off is a rhythm that puts more than 1,792 frames on their way within one round trip, of a
    /// stream that nobody reads: seen at 50,000 writes a second and 40 ms, not at 25,000. Nor a peer that does not heed the
    /// request, but that tunnel is its own.
    pub cork_frames: u32,
    /// Bytes of short writes that are held back of a stream that the peer has asked to cork: what a peer can make this side
    /// keep, for each stream, on top of the windows.
    pub cork_bytes: usize,
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
    /// Time for an application to begin to serve streams, once there is a tunnel; what the peer offers before that waits.
    /// Long enough for a task to start on a busy machine, and so short that a peer learns soon that nothing serves here.
    pub serve_time: Duration,
    /// Time for the peer's answer to a stream that this side opened: its `header_time` and `dial_time`, and
    /// the way there and back.
    pub answer_time: Duration,
    /// Payload of one frame on stream 0.
    pub frame_bytes: usize,
    /// Bindings one side may have in a tunnel: those it has asked for and that were not refused.
    pub bindings: usize,
    /// Bindings one side may ask for in a tunnel, those that are refused among them: the ids of all are remembered, so that
    /// one that is used twice is noticed.
    pub binding_requests: usize,
    /// Interval of the keep-alives, which the connecting side alone sends. NAT bindings die after 30 s.
    pub keep_alive: Duration,
    /// Silence after which a tunnel is lost.
    pub idle: Duration,
    /// Silence after which it is lost while the peer's own host says that the peer is gone
    /// ([`Tunnel::probe`](crate::Tunnel::probe)). As long as a router takes to dial in: it may have the peer's address, and
    /// refuse what it does not forward yet.
    pub probe_time: Duration,
    /// Interval of the attempts to reach the peer meanwhile: a server that was restarted is met within it.
    pub probe_interval: Duration,
    /// Time between two stateless resets, with which a server that was restarted ends the tunnels of the one before it. Of all
    /// its clients, a thousand a second can be told. A reset is shorter than what it answers, so it is of no use to flood others.
    pub reset_interval: Duration,
    /// Silence after which an attempt to connect is given up when the peer's host has said that nothing listens there.
    pub refusal_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: u32 = 1024;
        const MIB: u32 = 1024 * KIB;
        Self {
            authentication_time: Duration::from_secs(10),
            authentication_time_crowded: Duration::from_secs(3),
            early_streams: 4,
            early_bytes: 16 * KIB,
            early_bytes_outside: 8 * KIB,
            early_frames: 512,
            unauthenticated: 1024,
            unauthenticated_per_source: 64,
            unauthenticated_per_56: 128,
            unauthenticated_per_48: 256,
            unauthenticated_reserve: 128,
            known_sources: 4096,
            known_time: Duration::from_secs(3600),
            retry_from: 256,
            retry_from_per_source: 16,
            incoming: 1024,
            farewell_time: Duration::from_secs(1),
            incoming_bytes: 8 * u64::from(KIB),
            streams: 8192,
            streams_listening: 64,
            streams_connecting: 1024,
            stream_window: 2 * MIB,
            gap_bytes: 5 * MIB / 2,
            cork_frames: 256,
            cork_bytes: 4096,
            datagram_bytes: 8972,
            connection_window: 16 * MIB,
            send_window: 16 * u64::from(MIB),
            stalled_bytes: 256 * u64::from(MIB),
            stall_time: Duration::from_secs(1),
            header_bytes: 4096,
            header_time: Duration::from_secs(5),
            dial_time: Duration::from_secs(10),
            serve_time: Duration::from_secs(1),
            answer_time: Duration::from_secs(20),
            frame_bytes: 4096,
            bindings: 64,
            binding_requests: 1024,
            keep_alive: Duration::from_secs(12),
            idle: Duration::from_secs(30),
            probe_time: Duration::from_secs(10),
            probe_interval: Duration::from_secs(1),
            reset_interval: Duration::from_millis(1),
            refusal_time: Duration::from_millis(500),
        }
    }
}
