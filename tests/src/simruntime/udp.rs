//! UDP sockets: with batches, buffers that are full, and what ICMP says.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit};
use snocat_driver::core::quic;
use snocat_driver::core::sim::{Arrival, Host, LinkConfig};
use snocat_driver::{Direction, Icmp};

use super::sockets::Kind;
use super::state::{Event, State};

/// Bytes that wait to be read; what does not fit is lost.
const INBOX: usize = 1 << 20;
/// A batch goes through the system as if it were one datagram.
const LONGEST_BATCH: usize = 65_507;

pub(super) struct Udp {
    host: Host,
    inbox: VecDeque<Arrival>,
    waiting: usize,
    /// Bytes that were sent and have not left the machine.
    leaving: usize,
    buffer: usize,
    watches: bool,
    said: VecDeque<Icmp>,
    /// What ICMP has said is told by the next operation.
    failed: bool,
    refuses_batches: bool,
}

impl Udp {
    pub(super) fn is_readable(&self) -> bool {
        self.failed || !self.inbox.is_empty()
    }

    /// One datagram always fits into an empty buffer.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.leaving == 0 || self.leaving + bytes <= self.buffer
    }

    fn error(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.failed) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(())
    }
}

impl State {
    pub(super) fn bind_udp(&mut self, host: IpAddr, wanted: SocketAddr, watches: bool) -> io::Result<u64> {
        let local = self.place(host, wanted, |kind| matches!(kind, Kind::Udp(_)))?;
        let host = self.network.add(local);
        let others: Vec<Host> = self.hosts.keys().copied().collect();
        for other in others {
            self.network.connect(host, other, &self.machines.link);
        }
        let udp = Udp {
            host,
            inbox: VecDeque::new(),
            waiting: 0,
            leaving: 0,
            buffer: self.machines.udp_buffer,
            watches,
            said: VecDeque::new(),
            failed: false,
            refuses_batches: self.machines.refuses_batches,
        };
        let number = self.insert(Kind::Udp(udp), local);
        self.hosts.insert(host, number);
        Ok(number)
    }

    pub(super) fn set_links(&mut self, link: &LinkConfig) {
        self.machines.link = link.clone();
        let hosts: Vec<Host> = self.hosts.keys().copied().collect();
        for one in &hosts {
            for other in hosts.iter().filter(|other| *other > one) {
                self.network.connect(*one, *other, link);
            }
        }
    }

    pub(super) fn send_udp(&mut self, number: u64, batch: &Transmit<'_>) -> io::Result<()> {
        let may_try = self.may_try(number, Direction::Write) && !self.whim(5);
        let longest = self.machines.longest;
        let Some(udp) = self.udp(number) else { return Err(io::ErrorKind::NotConnected.into()) };
        udp.error()?;
        if !may_try || !udp.has_room(batch.contents.len()) {
            let blocked = self.would_block(number, Direction::Write);
            // In case it was a whim.
            self.stir(number, Direction::Write);
            return Err(blocked);
        }
        let size = batch.segment_size.unwrap_or(batch.contents.len()).max(1);
        if udp.refuses_batches && batch.contents.len() > size {
            // EIO, as from an interface that cannot do what was promised.
            return Err(io::Error::from_raw_os_error(5));
        }
        if size > longest || batch.contents.len() > LONGEST_BATCH {
            // EMSGSIZE, as from an interface that takes less than it has said.
            return Err(io::Error::from_raw_os_error(90));
        }
        udp.leaving += batch.contents.len();
        let from = udp.host;
        let ecn = batch.ecn.and_then(|ecn| quic::EcnCodepoint::from_bits(ecn as u8));
        for datagram in batch.contents.chunks(size) {
            *self.sent.entry(number).or_default() += 1;
            if let Some(said) = self.outage {
                self.told(number, said);
                continue;
            }
            self.network.send(from, batch.destination, ecn, datagram);
            let is_there =
                |number: &u64| self.sockets.get(number).is_some_and(|to| to.local == batch.destination);
            if !self.hosts.values().any(is_there) {
                self.told(number, Icmp::PortUnreachable(batch.destination.ip()));
            }
        }
        let after = self.moment();
        self.schedule(after, Event::Left(number, batch.contents.len()));
        Ok(())
    }

    pub(super) fn tell(&mut self, host: IpAddr, said: Icmp) {
        let sockets = self.sockets.iter().filter(|(_, socket)| socket.local.ip() == host);
        let numbers: Vec<u64> = sockets.map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.told(number, said));
    }

    /// ICMP has something to say about a datagram.
    fn told(&mut self, sender: u64, said: Icmp) {
        if let Some(udp) = self.udp(sender)
            && udp.watches
        {
            udp.said.push_back(said);
            udp.failed = true;
            self.stir(sender, Direction::Read);
        }
    }

    pub(super) fn left_udp(&mut self, number: u64, bytes: usize) {
        if let Some(udp) = self.udp(number) {
            udp.leaving -= bytes;
            self.stir(number, Direction::Write);
        }
    }

    /// A datagram has arrived at its host.
    pub(super) fn arrive(&mut self) {
        let Some(arrival) = self.network.receive() else { return };
        let Some(&number) = self.hosts.get(&arrival.to) else { return };
        let Some(udp) = self.udp(number) else { return };
        if udp.waiting + arrival.data.len() > INBOX {
            return;
        }
        udp.waiting += arrival.data.len();
        udp.inbox.push_back(arrival);
        self.stir(number, Direction::Read);
    }

    pub(super) fn receive_udp(
        &mut self,
        number: u64,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> io::Result<usize> {
        let may_try = self.may_try(number, Direction::Read);
        let batches = self.machines.segments;
        let Some(udp) = self.udp(number) else { return Err(io::ErrorKind::NotConnected.into()) };
        if !may_try {
            return Err(self.would_block(number, Direction::Read));
        }
        udp.error()?;
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some(first) = udp.inbox.front() else { break };
            let (source, stride, ecn) = (first.source, first.data.len(), first.ecn);
            *meta = RecvMeta::default();
            (meta.addr, meta.stride) = (source, stride);
            meta.ecn = ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
            for _ in 0..batches {
                let fits = |next: &Arrival| {
                    next.source == source
                        && next.ecn == ecn
                        && next.data.len() <= stride
                        && meta.len + next.data.len() <= buffer.len()
                };
                if !udp.inbox.front().is_some_and(fits) {
                    break;
                }
                let Some(next) = udp.inbox.pop_front() else { break };
                buffer[meta.len..meta.len + next.data.len()].copy_from_slice(&next.data);
                meta.len += next.data.len();
                udp.waiting -= next.data.len();
                // Only the last of a batch may be shorter.
                if next.data.len() < stride {
                    break;
                }
            }
            count += 1;
        }
        if count == 0 {
            return Err(self.would_block(number, Direction::Read));
        }
        Ok(count)
    }

    pub(super) fn said_udp(&mut self, number: u64) -> Option<Icmp> {
        self.udp(number)?.said.pop_front()
    }

    pub(super) fn close_udp(&mut self, number: u64) {
        let host = self.udp(number).map(|udp| udp.host);
        self.sockets.remove(&number);
        if let Some(host) = host {
            self.hosts.remove(&host);
        }
    }
}
