//! What all sockets have in common.

use std::net::{IpAddr, SocketAddr};

use snocat_driver::Direction;

use super::ready::Ready;
use super::state::State;
use super::tcp::{Connection, Listener};
use super::udp::Udp;

/// The first port that is given to those who ask for none.
const EPHEMERAL: u16 = 49_152;

pub(super) enum Kind {
    Udp(Udp),
    Tcp(Connection),
    Listener(Listener),
}

pub(super) struct Socket {
    pub(super) kind: Kind,
    pub(super) local: SocketAddr,
    read: Ready,
    write: Ready,
}

impl Socket {
    pub(super) fn ready(&self, direction: Direction) -> &Ready {
        match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }

    pub(super) fn ready_mut(&mut self, direction: Direction) -> &mut Ready {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    pub(super) fn name(&self) -> String {
        let local = self.local;
        match &self.kind {
            Kind::Udp(_) => format!("UDP {local}"),
            Kind::Tcp(connection) => format!("TCP {local} to {}", connection.remote),
            Kind::Listener(_) => format!("TCP listener {local}"),
        }
    }
}

impl State {
    pub(super) fn insert(&mut self, kind: Kind, local: SocketAddr) -> u64 {
        let number = self.number();
        let socket = Socket { kind, local, read: Ready::default(), write: Ready::default() };
        self.sockets.insert(number, socket);
        // A reactor looks at what it is given.
        if self.machines.remembers_readiness {
            self.stir(number, Direction::Read);
            self.stir(number, Direction::Write);
        }
        number
    }

    pub(super) fn udp(&mut self, number: u64) -> Option<&mut Udp> {
        match &mut self.sockets.get_mut(&number)?.kind {
            Kind::Udp(udp) => Some(udp),
            _ => None,
        }
    }

    pub(super) fn tcp(&mut self, number: u64) -> Option<&mut Connection> {
        match &mut self.sockets.get_mut(&number)?.kind {
            Kind::Tcp(connection) => Some(connection),
            _ => None,
        }
    }

    pub(super) fn listener(&mut self, number: u64) -> Option<&mut Listener> {
        match &mut self.sockets.get_mut(&number)?.kind {
            Kind::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    /// Whether an operation in this direction would not block now.
    pub(super) fn is_ready(&mut self, number: u64, direction: Direction) -> bool {
        let Some(socket) = self.sockets.get(&number) else { return true };
        match (&socket.kind, direction) {
            (Kind::Udp(udp), Direction::Read) => udp.is_readable(),
            (Kind::Udp(udp), Direction::Write) => udp.has_room(0),
            (Kind::Tcp(connection), Direction::Read) => connection.is_readable(),
            (Kind::Tcp(_), Direction::Write) => self.is_writable(number),
            (Kind::Listener(listener), _) => listener.is_ready(),
        }
    }

    /// The address to bind: that of the host, at a port that is free.
    pub(super) fn place(
        &self,
        host: IpAddr,
        wanted: SocketAddr,
        is_kind: fn(&Kind) -> bool,
    ) -> std::io::Result<SocketAddr> {
        if !wanted.ip().is_unspecified() && !wanted.ip().is_loopback() && wanted.ip() != host {
            return Err(std::io::ErrorKind::AddrNotAvailable.into());
        }
        let free = |port: &u16| {
            let address = SocketAddr::new(host, *port);
            !self.sockets.values().any(|socket| is_kind(&socket.kind) && socket.local == address)
        };
        let port = match wanted.port() {
            0 => (EPHEMERAL..).find(free),
            port => Some(port).filter(free),
        };
        port.map(|port| SocketAddr::new(host, port)).ok_or(std::io::ErrorKind::AddrInUse.into())
    }
}
