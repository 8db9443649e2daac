//! TCP connections: two ends that write into each other's inbox, and end as the system's do.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

use snocat_driver::Direction;
use snocat_driver::core::sim::Chance;

use super::sockets::Kind;
use super::state::State;

pub(super) struct Connection {
    pub(super) remote: SocketAddr,
    /// The number of the other end; it may be closed.
    peer: u64,
    inbox: VecDeque<u8>,
    /// Nothing comes behind what is in the inbox.
    finished: bool,
    /// This end has said that it sends no more.
    shut: bool,
    reset: bool,
    resets_on_close: bool,
}

impl Connection {
    pub(super) fn is_readable(&self) -> bool {
        !self.inbox.is_empty() || self.finished || self.reset
    }
}

pub(super) struct Listener {
    waiting: VecDeque<u64>,
}

impl Listener {
    pub(super) fn is_ready(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl State {
    pub(super) fn listen_tcp(&mut self, host: IpAddr, wanted: SocketAddr) -> io::Result<u64> {
        if (1..self.machines.reserved_ports).contains(&wanted.port()) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let local = self.place(host, wanted, |kind| matches!(kind, Kind::Listener(_)))?;
        Ok(self.insert(Kind::Listener(Listener { waiting: VecDeque::new() }), local))
    }

    /// Connects a host to an address, if somebody listens there.
    pub(super) fn connect_tcp(&mut self, host: IpAddr, to: SocketAddr) -> io::Result<u64> {
        let ip = if to.ip().is_loopback() { host } else { to.ip() };
        let remote = SocketAddr::new(ip, to.port());
        let listening = self.sockets.iter().find_map(|(number, socket)| {
            (matches!(socket.kind, Kind::Listener(_)) && socket.local == remote).then_some(*number)
        });
        let Some(listener) = listening else { return Err(io::ErrorKind::ConnectionRefused.into()) };
        let local = self.place(host, SocketAddr::new(host, 0), |kind| !matches!(kind, Kind::Udp(_)))?;
        let end = |remote| {
            let inbox = VecDeque::new();
            let (finished, shut, reset, resets_on_close) = (false, false, false, false);
            Kind::Tcp(Connection { remote, peer: 0, inbox, finished, shut, reset, resets_on_close })
        };
        let near = self.insert(end(remote), local);
        let far = self.insert(end(local), remote);
        for (number, peer) in [(near, far), (far, near)] {
            if let Some(connection) = self.tcp(number) {
                connection.peer = peer;
            }
        }
        if let Some(listener) = self.listener(listener) {
            listener.waiting.push_back(far);
        }
        self.stir(listener, Direction::Read);
        Ok(near)
    }

    pub(super) fn accept_tcp(&mut self, number: u64) -> io::Result<(u64, SocketAddr)> {
        if self.whim(20) {
            // EMFILE; the connection goes on waiting.
            return Err(io::Error::from_raw_os_error(24));
        }
        let may_try = self.may_try(number, Direction::Read);
        let waiting = self
            .listener(number)
            .and_then(|listener| if may_try { listener.waiting.pop_front() } else { None });
        let Some(accepted) = waiting else { return Err(self.would_block(number, Direction::Read)) };
        let remote = self.tcp(accepted).map(|connection| connection.remote);
        remote.map(|remote| (accepted, remote)).ok_or(io::ErrorKind::ConnectionAborted.into())
    }

    pub(super) fn read_tcp(&mut self, number: u64, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if !self.may_try(number, Direction::Read) {
            return Err(self.would_block(number, Direction::Read));
        }
        self.read_tcp_at_once(number, buffer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => self.would_block(number, Direction::Read),
            _ => error,
        })
    }

    /// Reads without asking the reactor.
    pub(super) fn read_tcp_at_once(&mut self, number: u64, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let most = self.piece();
        let Some(connection) = self.tcp(number) else { return Err(io::ErrorKind::NotConnected.into()) };
        if !connection.inbox.is_empty() {
            let spare = buffer.capacity() - buffer.len();
            let count = connection.inbox.len().min(spare).min(most);
            buffer.extend(connection.inbox.drain(..count));
            let peer = connection.peer;
            self.note(&[1, number, count as u64]);
            self.stir(peer, Direction::Write);
            return Ok(count);
        }
        if connection.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if connection.finished {
            return Ok(0);
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// What one operation moves at most.
    fn piece(&mut self) -> usize {
        if self.whim(100) { self.rng.below(3) as usize + 1 } else { self.machines.tcp_piece }
    }

    /// Room in the inbox of the other end; none is needed if that is closed.
    fn room(&mut self, number: u64) -> usize {
        let buffer = self.machines.tcp_buffer;
        let peer = self.tcp(number).map_or(0, |connection| connection.peer);
        self.tcp(peer).map_or(usize::MAX, |peer| buffer.saturating_sub(peer.inbox.len()))
    }

    pub(super) fn is_writable(&mut self, number: u64) -> bool {
        self.room(number) > 0 || self.tcp(number).is_none_or(|connection| connection.reset)
    }

    pub(super) fn write_tcp(&mut self, number: u64, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let may_try = self.may_try(number, Direction::Write);
        let most = self.piece();
        let room = self.room(number).min(most);
        let Some(connection) = self.tcp(number) else { return Err(io::ErrorKind::NotConnected.into()) };
        if connection.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if connection.shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let peer = connection.peer;
        if room == 0 || !may_try {
            return Err(self.would_block(number, Direction::Write));
        }
        let bytes = buffers.iter().flat_map(|buffer| buffer.iter().copied()).take(room);
        let count = match self.tcp(peer) {
            Some(peer) => {
                let before = peer.inbox.len();
                peer.inbox.extend(bytes);
                peer.inbox.len() - before
            }
            // The other end is closed: the answer is RST.
            None => {
                let count = bytes.count();
                self.reset_tcp(number);
                count
            }
        };
        self.note(&[2, number, count as u64]);
        self.stir(peer, Direction::Read);
        Ok(count)
    }

    pub(super) fn is_reset(&mut self, number: u64) -> bool {
        self.tcp(number).is_none_or(|connection| connection.reset)
    }

    pub(super) fn shut_tcp(&mut self, number: u64) -> io::Result<()> {
        let fails = self.machines.failing_shutdowns;
        if fails > 0 && self.rng.happens(Chance::per_mille(fails)) {
            let peer = self.tcp(number).map(|connection| connection.peer);
            for end in [number].into_iter().chain(peer) {
                self.reset_tcp(end);
            }
        }
        let connection = self.tcp(number).filter(|connection| !connection.reset);
        let Some(connection) = connection else { return Err(io::ErrorKind::NotConnected.into()) };
        connection.shut = true;
        let peer = connection.peer;
        self.finish_tcp(peer);
        Ok(())
    }

    pub(super) fn set_reset_on_close(&mut self, number: u64, resets: bool) -> io::Result<()> {
        let Some(connection) = self.tcp(number) else { return Err(io::ErrorKind::NotConnected.into()) };
        connection.resets_on_close = resets;
        Ok(())
    }

    fn finish_tcp(&mut self, number: u64) {
        if let Some(connection) = self.tcp(number) {
            connection.finished = true;
            self.note(&[3, number]);
            self.stir(number, Direction::Read);
        }
    }

    fn reset_tcp(&mut self, number: u64) {
        if let Some(connection) = self.tcp(number) {
            connection.reset = true;
            self.note(&[4, number]);
            self.stir(number, Direction::Read);
            self.stir(number, Direction::Write);
        }
    }

    pub(super) fn close_tcp(&mut self, number: u64) {
        let Some(connection) = self.tcp(number) else { return };
        let peer = connection.peer;
        let over = connection.reset || (connection.shut && connection.finished);
        // As Linux does: unread bytes make an ordinary close a reset.
        let resets = connection.resets_on_close || !connection.inbox.is_empty();
        self.sockets.remove(&number);
        if !over && resets {
            self.reset_tcp(peer);
        } else if !over {
            self.finish_tcp(peer);
        }
        // Whoever waits for room learns that nobody reads any more.
        self.stir(peer, Direction::Write);
    }

    pub(super) fn close_listener(&mut self, number: u64) {
        let waiting = self.listener(number).map(|listener| std::mem::take(&mut listener.waiting));
        self.sockets.remove(&number);
        for connection in waiting.into_iter().flatten() {
            let _it_exists = self.set_reset_on_close(connection, true);
            self.close_tcp(connection);
        }
    }
}
