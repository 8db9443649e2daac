//! What can be measured on the path, and in which figures it results.

use crate::measure::Bulk;
use crate::place::Where;
use crate::system::System;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// How long a new visitor waits.
    FirstByte,
    /// What a busy tunnel does to a quiet one of the same server.
    Quiet,
    /// How much of the bottleneck is used.
    Goodput(Bulk),
    /// Beside one TCP connection in the same direction.
    Neighbour(Direction),
    /// Two of the same kind in the same direction.
    Pair(Direction),
}

/// Seen from the visitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To them.
    Down,
    /// From them.
    Up,
}

impl Direction {
    const BOTH: [Self; 2] = [Self::Down, Self::Up];

    /// One visitor.
    pub fn of_one(self) -> Bulk {
        Bulk { visitors: 1, up: self == Self::Up }
    }
}

impl Measure {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let one = [Self::FirstByte, Self::Quiet].into_iter();
        let goodput = Bulk::ALL.map(Self::Goodput);
        let [neighbour, pair] = [Self::Neighbour, Self::Pair].map(|of| Direction::BOTH.map(of));
        one.chain(goodput).chain(neighbour).chain(pair)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstByte => "first-byte",
            Self::Quiet => "quiet",
            Self::Goodput(Bulk { visitors: 1, up: false }) => "goodput-1-down",
            Self::Goodput(Bulk { visitors: 1, up: true }) => "goodput-1-up",
            Self::Goodput(Bulk { up: false, .. }) => "goodput-8-down",
            Self::Goodput(Bulk { up: true, .. }) => "goodput-8-up",
            Self::Neighbour(Direction::Down) => "neighbour-down",
            Self::Neighbour(Direction::Up) => "neighbour-up",
            Self::Pair(Direction::Down) => "pair-down",
            Self::Pair(Direction::Up) => "pair-up",
        }
    }

    /// Whether this system has what is measured, in this place.
    pub fn suits(self, system: System, place: Where) -> bool {
        match (self, system) {
            (_, System::Relay) => false,
            (Self::Goodput(bulk), System::Quinn) => bulk.visitors == 1,
            (Self::Goodput(_), _) => true,
            _ if place == Where::LossyPath => false,
            (_, System::Quinn) => false,
            (Self::Neighbour(_), System::Direct) => false,
            _ => true,
        }
    }
}

/// One number that results from a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Milliseconds of 64 bytes there and back over an open connection of TCP.
    RoundTrip,
    /// Milliseconds from the visitor's connect to the first byte of the target's answer.
    FirstP50,
    /// The same.
    FirstP99,
    /// Milliseconds of a quiet visitor's message there and back, p99: alone, and beside a busy tunnel.
    QuietP99 { busy: bool },
    /// What arrives, as a share of the bottleneck.
    Goodput(Bulk),
    /// The same, beside one TCP connection.
    Beside(Direction),
    /// What that one gets.
    Tcp(Direction),
    /// Of two, both together.
    Both(Direction),
    /// Jain's index of the two.
    Jain(Direction),
    /// Packets that the path delivered late, in a hundred: the worst measure of a round.
    Late,
    /// How late the latest was, in milliseconds.
    Latest,
    /// Packets that found the queue full, in a hundred.
    Overflowed,
    /// Packets that were lost by chance, in a hundred.
    Lost,
    /// Packets that were lost by accident in one measure.
    Strays,
}

impl Figure {
    /// All of them, in the order of tables.
    pub fn all() -> impl Iterator<Item = Self> {
        let first = [Self::RoundTrip, Self::FirstP50, Self::FirstP99].into_iter();
        let quiet = [false, true].map(|busy| Self::QuietP99 { busy });
        let shares = Direction::BOTH.into_iter().flat_map(|way| [Self::Beside(way), Self::Tcp(way)]);
        let pairs = Direction::BOTH.into_iter().flat_map(|way| [Self::Both(way), Self::Jain(way)]);
        let conditions = [Self::Late, Self::Latest, Self::Overflowed, Self::Lost, Self::Strays];
        first.chain(quiet).chain(Bulk::ALL.map(Self::Goodput)).chain(shares).chain(pairs).chain(conditions)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundTrip => "round trip",
            Self::FirstP50 => "first byte p50",
            Self::FirstP99 => "first byte p99",
            Self::QuietP99 { busy: false } => "quiet p99, alone",
            Self::QuietP99 { busy: true } => "quiet p99, beside busy",
            Self::Goodput(bulk) => Measure::Goodput(bulk).name(),
            Self::Beside(way) => Measure::Neighbour(way).name(),
            Self::Tcp(Direction::Down) => "neighbour-down, TCP",
            Self::Tcp(Direction::Up) => "neighbour-up, TCP",
            Self::Both(way) => Measure::Pair(way).name(),
            Self::Jain(Direction::Down) => "pair-down, Jain's index",
            Self::Jain(Direction::Up) => "pair-up, Jain's index",
            Self::Late => "path: packets late",
            Self::Latest => "path: the latest by",
            Self::Overflowed => "path: queue full",
            Self::Lost => "path: packets lost",
            Self::Strays => "path: packets astray",
        }
    }

    /// Its unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::RoundTrip | Self::FirstP50 | Self::FirstP99 | Self::QuietP99 { .. } | Self::Latest => "ms",
            Self::Goodput(_) | Self::Beside(_) | Self::Tcp(_) | Self::Both(_) => "× path",
            Self::Jain(_) | Self::Strays => "",
            Self::Late | Self::Overflowed | Self::Lost => "%",
        }
    }

    /// Whether more is better.
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::Goodput(_) | Self::Beside(_) | Self::Tcp(_) | Self::Both(_) | Self::Jain(_))
    }
}
