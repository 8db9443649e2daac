//! What can be measured, and in which figures it results.

use crate::load::{self, Work};
use crate::path;
use crate::system::System;

/// Bytes in one direction, seen from the visitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bulk {
    /// How many visitors.
    pub visitors: usize,
    /// From them, and not to them.
    pub up: bool,
}

impl Bulk {
    /// All that is measured.
    pub const ALL: [Self; 4] = [
        Self { visitors: 1, up: false },
        Self { visitors: 1, up: true },
        Self { visitors: 8, up: false },
        Self { visitors: 8, up: true },
    ];

    /// The same with one visitor.
    pub fn of_one(self) -> Self {
        Self { visitors: 1, ..self }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match (self.visitors, self.up) {
            (1, false) => "bulk-1-down",
            (1, true) => "bulk-1-up",
            (_, false) => "bulk-8-down",
            (_, true) => "bulk-8-up",
        }
    }

    /// What its visitors do.
    pub fn work(self) -> Work {
        if self.up { load::UP } else { load::DOWN }
    }
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Bytes a second, and what a GiB costs.
    Bulk(Bulk),
    /// 64 bytes there and back, over an open connection.
    PingPong,
    /// Connect, 64 bytes there and back, close: one after another.
    Connect,
    /// The same with 64 workers.
    Workers,
    /// How evenly the visitors of one tunnel are served: all send, or all are sent to.
    Fair {
        /// From them, and not to them.
        up: bool,
    },
    /// What a busy tunnel does to another of the same server.
    Quiet,
    /// What idle connections cost in memory.
    Memory,
    /// What idle tunnels cost in memory and packets.
    Tunnels,
    /// Ten thousand tunnels on one server.
    TenThousand,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Bulk(Bulk::ALL[0]),
        Self::Bulk(Bulk::ALL[1]),
        Self::Bulk(Bulk::ALL[2]),
        Self::Bulk(Bulk::ALL[3]),
        Self::PingPong,
        Self::Connect,
        Self::Workers,
        Self::Fair { up: false },
        Self::Fair { up: true },
        Self::Quiet,
        Self::Memory,
        Self::Tunnels,
        Self::TenThousand,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bulk(bulk) => bulk.name(),
            Self::PingPong => "ping-pong",
            Self::Connect => "connect",
            Self::Workers => "connect-64",
            Self::Fair { up: false } => "fair-64-down",
            Self::Fair { up: true } => "fair-64-up",
            Self::Quiet => "quiet",
            Self::Memory => "memory",
            Self::Tunnels => "tunnels",
            Self::TenThousand => "ten-thousand",
        }
    }

    /// Whether it is about traffic, and not about what lies idle.
    pub fn is_traffic(self) -> bool {
        !matches!(self, Self::Memory | Self::Tunnels | Self::TenThousand)
    }

    /// Whether it is about those who share something.
    pub fn is_about_neighbours(self) -> bool {
        matches!(self, Self::Fair { .. } | Self::Quiet)
    }

    /// Whether it takes so long that it has to be asked for.
    pub fn is_long(self) -> bool {
        self == Self::TenThousand
    }

    /// Whether this system has what is measured.
    pub fn suits(self, system: System) -> bool {
        match (self, system) {
            // One stream, no TCP.
            (Self::Bulk(Bulk { visitors: 1, .. }) | Self::PingPong, System::Quinn) => true,
            (_, System::Quinn) => false,
            (Self::Memory, _) => system != System::Direct,
            (Self::Tunnels | Self::TenThousand, _) => System::OURS.contains(&system),
            (Self::Fair { .. }, System::Relay) => false,
            _ => true,
        }
    }
}

/// The two sides of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Where visitors are.
    Server,
    /// Where the target is.
    Client,
}

/// One number that results from a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// MB/s, of all visitors together.
    Rate(Bulk),
    /// Processor seconds of server and client per GiB.
    Cpu(Bulk),
    /// Microseconds.
    PingP50,
    /// Microseconds.
    PingP99,
    /// Microseconds.
    ConnectP50,
    /// Microseconds.
    ConnectP99,
    /// Connections a second.
    Workers,
    /// Jain's index of what the visitors of one tunnel carry: 1 if it is the same for all.
    Fairness {
        /// From them, and not to them.
        up: bool,
    },
    /// Microseconds through a tunnel, while another is idle.
    QuietP99,
    /// Microseconds through a tunnel, while another is busy.
    BesideBusyP99,
    /// KiB before the first visitor.
    Idle(Side),
    /// KiB for each idle connection.
    PerConnection(Side),
    /// KiB after all have been closed.
    AfterConnections(Side),
    /// KiB of a server before its first tunnel.
    NoTunnels,
    /// KiB of the server for each idle tunnel.
    PerTunnel,
    /// KiB of the server after all have been closed.
    AfterTunnels,
    /// Datagrams of an idle tunnel a minute, both ways together.
    Packets,
    /// Of ten thousand tunnels, those that have stayed.
    ManyStayed,
    /// Percent of a processor that their server uses.
    ManyCpu,
    /// KiB of their server for each.
    ManyMemory,
    /// Microseconds through one of them.
    ManyPingP50,
    /// Microseconds through one of them.
    ManyConnectP50,
    /// Microseconds through a tunnel that has a server for itself, at the same time.
    AlonePingP50,
    /// Microseconds through a tunnel that has a server for itself, at the same time.
    AloneConnectP50,
    /// On the path.
    Path(path::Figure),
}

impl Figure {
    /// All of them, in the order of tables.
    pub fn all() -> Vec<Self> {
        let sides = [Side::Server, Side::Client];
        let mut all: Vec<_> =
            Bulk::ALL.into_iter().flat_map(|bulk| [Self::Rate(bulk), Self::Cpu(bulk)]).collect();
        all.extend([Self::PingP50, Self::PingP99, Self::ConnectP50, Self::ConnectP99, Self::Workers]);
        all.extend([false, true].map(|up| Self::Fairness { up }));
        all.extend([Self::QuietP99, Self::BesideBusyP99]);
        all.extend(
            [Self::Idle, Self::PerConnection, Self::AfterConnections].iter().flat_map(|of| sides.map(of)),
        );
        all.extend([Self::NoTunnels, Self::PerTunnel, Self::AfterTunnels, Self::Packets]);
        all.extend([
            Self::ManyStayed,
            Self::ManyCpu,
            Self::ManyMemory,
            Self::ManyPingP50,
            Self::ManyConnectP50,
            Self::AlonePingP50,
            Self::AloneConnectP50,
        ]);
        all.extend(path::Figure::all().map(Self::Path));
        all
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate(bulk) => bulk.name(),
            Self::Cpu(Bulk { visitors: 1, up: false }) => "bulk-1-down, CPU",
            Self::Cpu(Bulk { visitors: 1, up: true }) => "bulk-1-up, CPU",
            Self::Cpu(Bulk { up: false, .. }) => "bulk-8-down, CPU",
            Self::Cpu(Bulk { up: true, .. }) => "bulk-8-up, CPU",
            Self::PingP50 => "ping-pong p50",
            Self::PingP99 => "ping-pong p99",
            Self::ConnectP50 => "connect p50",
            Self::ConnectP99 => "connect p99",
            Self::Workers => "connect-64",
            Self::Fairness { up: false } => "fair-64-down, Jain",
            Self::Fairness { up: true } => "fair-64-up, Jain",
            Self::QuietP99 => "quiet p99, alone",
            Self::BesideBusyP99 => "quiet p99, beside busy",
            Self::Idle(Side::Server) => "idle server",
            Self::Idle(Side::Client) => "idle client",
            Self::PerConnection(Side::Server) => "per connection, server",
            Self::PerConnection(Side::Client) => "per connection, client",
            Self::AfterConnections(Side::Server) => "after connections, server",
            Self::AfterConnections(Side::Client) => "after connections, client",
            Self::NoTunnels => "server without tunnels",
            Self::PerTunnel => "per tunnel, server",
            Self::AfterTunnels => "after tunnels, server",
            Self::Packets => "packets of a tunnel",
            Self::ManyStayed => "ten thousand, stayed",
            Self::ManyCpu => "ten thousand, CPU",
            Self::ManyMemory => "ten thousand, each",
            Self::ManyPingP50 => "ten thousand, ping p50",
            Self::ManyConnectP50 => "ten thousand, conn. p50",
            Self::AlonePingP50 => "one beside them, ping p50",
            Self::AloneConnectP50 => "one beside them, conn. p50",
            Self::Path(figure) => figure.name(),
        }
    }

    /// Its unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Rate(_) => "MB/s",
            Self::Cpu(_) => "s/GiB",
            Self::PingP50 | Self::PingP99 | Self::ConnectP50 | Self::ConnectP99 => "µs",
            Self::QuietP99 | Self::BesideBusyP99 | Self::ManyPingP50 | Self::ManyConnectP50 => "µs",
            Self::AlonePingP50 | Self::AloneConnectP50 => "µs",
            Self::Fairness { .. } | Self::ManyStayed => "",
            Self::ManyCpu => "%",
            Self::Workers => "/s",
            Self::Packets => "/min",
            Self::Path(figure) => figure.unit(),
            _ => "KiB",
        }
    }

    /// Whether more is better.
    pub fn more_is_better(self) -> bool {
        match self {
            Self::Path(figure) => figure.more_is_better(),
            _ => matches!(self, Self::Rate(_) | Self::Workers | Self::Fairness { .. } | Self::ManyStayed),
        }
    }
}

/// What was measured.
pub type Figures = Vec<(Figure, f64)>;
