//! What must be true, beside the system and without any protocol in it: who may authenticate and under which
//! name, where each stream wants to go, which bytes it carries and how it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use snocat_core::open::Header;
use snocat_core::sim::Host;
use snocat_core::{CloseReason, Code, Limits, StreamId, Ticket, TunnelId};

/// What holds, or why not.
pub type Check<T = ()> = Result<T, String>;

/// Says why something that must be true is not.
#[macro_export]
macro_rules! hold {
    ($condition:expr, $($words:tt)*) => {
        if !$condition {
            return Err(format!($($words)*));
        }
    };
}

/// A side of a tunnel.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The connecting one.
    Client,
    /// The listening one.
    Server,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// The peer.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// How a direction of a stream is read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As soon as there is something.
    Eager,
    /// Only when an operation says so.
    Asleep,
}

/// A tunnel at one side, in one life of its node.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Where.
    pub host: Host,
    /// How often the node was restarted before.
    pub life: u32,
    /// Its name there.
    pub id: TunnelId,
}

/// Where a tunnel stands at one side.
#[derive(Debug)]
pub enum Phase {
    /// Not there, or not known yet which one it is.
    Absent,
    /// Not authenticated.
    Stranger,
    /// Waits for a decision, since then.
    Claimed(Option<Ticket>, Duration),
    /// Authenticated.
    Established,
    /// Over, for this reason.
    Closed(CloseReason),
    /// Its node was killed.
    Killed,
}

/// One side of a tunnel.
#[derive(Debug)]
pub struct Party {
    /// Its name, once it is known.
    pub key: Option<Key>,
    /// Where it stands.
    pub phase: Phase,
    /// How many ports it has asked for.
    pub asked: u64,
    /// How many of these were refused.
    pub not_bound: u64,
    /// How many of the requests of the other side have arrived, or were too many.
    pub requests: u64,
    /// Bytes written into streams before it was authenticated.
    pub early: u64,
    /// Streams that it has opened before it was authenticated.
    pub early_streams: u64,
}

impl Party {
    fn new(key: Option<Key>) -> Self {
        let phase = if key.is_some() { Phase::Stranger } else { Phase::Absent };
        Self { key, phase, asked: 0, not_bound: 0, requests: 0, early: 0, early_streams: 0 }
    }

    /// Whether it is authenticated and not over.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Closed(_) | Phase::Killed)
    }
}

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// Which client.
    pub client: usize,
    /// Whether its credential proves anything, and whether it is good.
    pub method: Method,
    /// When it was begun.
    pub since: Duration,
    /// Whether the server has admitted it.
    pub admitted: bool,
    /// Its sides.
    pub parties: [Party; 2],
}

/// What must become of an authentication.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// The client is known.
    Token,
    /// The client is let in.
    None,
    /// The client is turned away.
    Refused,
}

impl Tunnel {
    /// A tunnel that a client has begun.
    pub fn new(client: usize, key: Key, method: Method, since: Duration) -> Self {
        let parties = [Party::new(Some(key)), Party::new(None)];
        Self { client, method, since, admitted: false, parties }
    }

    /// One side.
    pub fn party(&self, side: Side) -> &Party {
        &self.parties[side as usize]
    }

    /// One side.
    pub fn party_mut(&mut self, side: Side) -> &mut Party {
        &mut self.parties[side as usize]
    }
}

/// What a stream is at one side.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Seat {
    /// Not heard of.
    Absent,
    /// Opened there, at that time, and not answered.
    Asked(Duration),
    /// Offered there, at that time, and not answered.
    Offered(Duration),
    /// Agreed upon.
    Running,
    /// Over, or never to be.
    Over,
}

impl Seat {
    /// Whether the application has still to do with it.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Asked(_) | Self::Offered(_) | Self::Running)
    }
}

/// How a direction ended for its reader.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Well.
    Finished,
    /// Cut off.
    Reset(Code),
}

/// One direction of a stream.
#[derive(Debug)]
pub struct Direction {
    /// Bytes that are to be written.
    pub planned: u64,
    /// Bytes that were written.
    pub written: u64,
    /// Bytes that were read.
    pub read: u64,
    /// Whether it is to end when everything is written.
    pub closing: bool,
    /// Whether its writer has ended it.
    pub finished: bool,
    /// Whether its writer knows that everything has arrived.
    pub arrived: bool,
    /// The codes that its writer may have cut it off with.
    pub reset: Vec<Code>,
    /// Whether its writer has cut it off behind what it had written.
    pub kept: bool,
    /// The codes that its reader may have refused more with.
    pub stopped: Vec<Code>,
    /// Whether its reader has cut it off.
    pub cut: bool,
    /// How it ended for its reader.
    pub end: Option<End>,
    /// How it is read.
    pub pace: Pace,
    /// Whether its writer waits for a word that it may go on.
    pub blocked: bool,
    /// Whether its reader waits for a word that there is something.
    pub dry: bool,
}

impl Direction {
    fn new(planned: u64) -> Self {
        Self {
            planned,
            written: 0,
            read: 0,
            closing: false,
            finished: false,
            arrived: false,
            reset: Vec::new(),
            kept: false,
            stopped: Vec::new(),
            cut: false,
            end: None,
            pace: Pace::Eager,
            blocked: false,
            dry: true,
        }
    }

    /// Whether its writer may still write.
    pub fn is_writable(&self) -> bool {
        !self.finished && self.reset.is_empty()
    }

    /// Whether all that was written must be read before it is cut off.
    pub fn is_kept(&self) -> bool {
        self.kept && self.reset.len() == 1 && self.stopped.is_empty()
    }

    /// Whether its reader may still read.
    pub fn is_readable(&self) -> bool {
        self.end.is_none() && !self.cut
    }
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// In which tunnel.
    pub tunnel: usize,
    /// Who opened it.
    pub opener: Side,
    /// Its name, which is the same on both sides.
    pub id: StreamId,
    /// What its opener has said.
    pub header: Header,
    /// What it is at each side.
    pub seats: [Seat; 2],
    /// Since when its acceptor has had a part of what its opener has said, and waits for the rest.
    pub arriving: Option<Duration>,
    /// Why the acceptor may have ended it before its opener knew of its acceptance.
    pub refused: Vec<Code>,
    /// Whether the acceptor has accepted it.
    pub accepted: bool,
    /// Its directions, by their writers.
    pub directions: [Direction; 2],
}

impl Stream {
    /// A stream that was opened at that time.
    pub fn new(tunnel: usize, opener: Side, id: StreamId, header: Header, at: Duration, ahead: u64) -> Self {
        let mut seats = [Seat::Absent; 2];
        seats[opener as usize] = Seat::Asked(at);
        let mut directions = [0, 0].map(Direction::new);
        directions[opener as usize].planned = ahead;
        let (arriving, refused) = (None, Vec::new());
        Self { tunnel, opener, id, header, seats, arriving, refused, accepted: false, directions }
    }

    /// What it is at a side.
    pub fn seat(&self, side: Side) -> Seat {
        self.seats[side as usize]
    }

    /// The direction that a side writes.
    pub fn from(&mut self, writer: Side) -> &mut Direction {
        &mut self.directions[writer as usize]
    }

    /// Notes that a side has cut off both directions with this code, by itself.
    pub fn cut_by(&mut self, side: Side, code: Code) {
        self.from(side).reset.push(code);
        self.from(side.other()).stopped.push(code);
        self.from(side.other()).cut = true;
        if side != self.opener {
            self.refused.push(code);
        }
    }
}

/// All tunnels and streams of a run.
#[derive(Debug, Default)]
pub struct Model {
    /// The tunnels, as they were begun.
    pub tunnels: Vec<Tunnel>,
    /// The streams, as they were opened.
    pub streams: Vec<Stream>,
    /// Which tunnel and side a name means.
    pub keys: BTreeMap<Key, (usize, Side)>,
    /// Which stream a name means.
    pub ids: BTreeMap<(usize, StreamId), usize>,
}

impl Model {
    /// A tunnel more.
    pub fn begin(&mut self, tunnel: Tunnel) -> usize {
        let index = self.tunnels.len();
        if let Some(key) = tunnel.party(Side::Client).key {
            self.keys.insert(key, (index, Side::Client));
        }
        self.tunnels.push(tunnel);
        index
    }

    /// A stream more.
    pub fn open(&mut self, stream: Stream) -> usize {
        let index = self.streams.len();
        self.ids.insert((stream.tunnel, stream.id), index);
        self.streams.push(stream);
        index
    }

    /// The streams of a tunnel.
    pub fn streams_of(&mut self, tunnel: usize) -> impl Iterator<Item = &mut Stream> {
        self.streams.iter_mut().filter(move |stream| stream.tunnel == tunnel)
    }

    /// A side of a tunnel is gone, and all its streams there with it.
    pub fn gone(&mut self, tunnel: usize, side: Side, phase: Phase) {
        self.tunnels[tunnel].party_mut(side).phase = phase;
        for stream in self.streams_of(tunnel) {
            stream.seats[side as usize] = Seat::Over;
        }
    }

    /// The bytes of one direction of a tunnel that were written and not read, of streams that are being read.
    pub fn unread(&self, tunnel: usize, writer: Side) -> u64 {
        let live = self.streams.iter().filter(|stream| stream.tunnel == tunnel);
        let live = live.filter(|stream| stream.seat(writer).is_live() && stream.refused.is_empty());
        let directions = live.map(|stream| &stream.directions[writer as usize]);
        directions
            .filter(|way| way.is_readable() && way.reset.is_empty() && way.stopped.is_empty())
            .map(|way| way.written - way.read)
            .sum()
    }
}

/// Limits so small that a scenario meets all of them.
pub fn tight() -> Limits {
    Limits {
        authentication_time: Duration::from_secs(4),
        early_streams: 3,
        early_bytes: 8 * 1024,
        early_bytes_outside: 4 * 1024,
        authentication_time_crowded: Duration::from_secs(2),
        unauthenticated: 6,
        unauthenticated_per_source: 1,
        unauthenticated_reserve: 2,
        retry_from: 2,
        retry_from_per_source: 1,
        incoming: 4,
        streams: 8,
        streams_listening: 2,
        streams_connecting: 4,
        stream_window: 4 * 1024,
        gap_bytes: 3 * 1024,
        cork_frames: 2,
        cork_bytes: 2 * 1024,
        connection_window: 8 * 1024,
        send_window: 12 * 1024,
        stalled_bytes: 8 * 1024,
        header_time: Duration::from_secs(2),
        dial_time: Duration::from_secs(3),
        answer_time: Duration::from_secs(6),
        bindings: 2,
        keep_alive: Duration::from_secs(5),
        idle: Duration::from_secs(15),
        ..Limits::default()
    }
}
