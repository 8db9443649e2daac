//! Hosts, the links between them and the datagrams on their way, under virtual time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;

use super::link::{Copies, Link, LinkConfig};
use super::rng::Rng;
use super::trace::{Recorder, Trace};
use crate::quic::{EcnCodepoint, TimeSource};

/// Names a host of a network.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub(super) usize);

impl Host {
    /// Its number, counted from 0.
    pub const fn index(self) -> usize {
        self.0
    }
}

/// The time of a simulation, for those who are not told it as an argument. It starts in September 2001.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, elapsed: Duration) {
        self.0.store(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000) + self.elapsed()
    }
}

/// A datagram that has arrived.
#[derive(Debug)]
pub struct Arrival {
    /// Where.
    pub to: Host,
    /// From which address.
    pub source: SocketAddr,
    /// Its congestion mark.
    pub ecn: Option<EcnCodepoint>,
    /// Its payload.
    pub data: BytesMut,
}

#[derive(Debug)]
struct Flying {
    source: SocketAddr,
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    data: BytesMut,
}

/// Hosts and the links between them. Whoever drives it tells it what is sent, and takes out what arrives.
#[derive(Debug)]
pub struct Network {
    clock: Clock,
    rng: Rng,
    addresses: Vec<SocketAddr>,
    by_address: BTreeMap<SocketAddr, Host>,
    links: BTreeMap<(Host, Host), Link>,
    /// In whose queue a direction waits that has none of its own.
    shared: BTreeMap<(Host, Host), (Host, Host)>,
    /// By arrival, then by number.
    flying: BTreeMap<(Duration, u64), Flying>,
    next: u64,
    recorder: Recorder,
}

impl Network {
    /// A network without hosts. All that is random in it comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            clock: Clock::default(),
            rng: Rng::new(seed),
            addresses: Vec::new(),
            by_address: BTreeMap::new(),
            links: BTreeMap::new(),
            shared: BTreeMap::new(),
            flying: BTreeMap::new(),
            next: 0,
            recorder: Recorder::new(),
        }
    }

    /// A host more.
    pub fn add(&mut self, address: SocketAddr) -> Host {
        let host = Host(self.addresses.len());
        self.addresses.push(address);
        self.by_address.insert(address, host);
        host
    }

    /// Where a host is reached.
    pub fn address(&self, host: Host) -> Option<SocketAddr> {
        self.addresses.get(host.0).copied()
    }

    /// Gives a host another address, as a NAT does that has forgotten it. What is on its way to the old one is
    /// lost.
    pub fn rebind(&mut self, host: Host, address: SocketAddr) {
        if let Some(old) = self.addresses.get_mut(host.0) {
            self.by_address.remove(old);
            *old = address;
            self.by_address.insert(address, host);
        }
    }

    /// Makes both directions between two hosts like this.
    pub fn connect(&mut self, one: Host, other: Host, config: &LinkConfig) {
        *self.link(one, other) = config.clone();
        *self.link(other, one) = config.clone();
    }

    /// One direction, to change it from now on. Without faults until then.
    pub fn link(&mut self, from: Host, to: Host) -> &mut LinkConfig {
        // Drawn from the two hosts, so that it does not matter who sends first.
        let seed = self.rng.clone().draw() ^ super::rng::mix((from.0 as u64) << 32 | to.0 as u64);
        let link =
            self.links.entry((from, to)).or_insert_with(|| Link::new(LinkConfig::default(), Rng::new(seed)));
        &mut link.config
    }

    /// Has one direction wait in the queue of another, for its rate, as those do that meet at a router. All else stays its own.
    pub fn share(&mut self, direction: (Host, Host), behind: (Host, Host)) {
        self.shared.insert(direction, behind);
    }

    /// Sends one datagram.
    pub fn send(&mut self, from: Host, destination: SocketAddr, ecn: Option<EcnCodepoint>, data: &[u8]) {
        if let Some(source) = self.address(from) {
            self.send_as(source, from, destination, ecn, data);
        }
    }

    /// Sends one datagram that claims to come from `source`. It takes the way of `from`'s; what answers it does not.
    pub fn send_as(
        &mut self,
        source: SocketAddr,
        from: Host,
        destination: SocketAddr,
        ecn: Option<EcnCodepoint>,
        data: &[u8],
    ) {
        let now = self.clock.elapsed();
        let to = self.by_address.get(&destination).copied();
        let copies = match to {
            Some(to) => self.carry(now, (from, to), data.len()).unwrap_or_default(),
            None => Copies::default(),
        };
        let arrivals = copies.iter().flatten().map(|(at, _)| *at);
        self.recorder.sent(now, from.0, to.map(Host::index), data, arrivals);
        for (at, flipped) in copies.into_iter().flatten() {
            let mut data = BytesMut::from(data);
            if let Some(bit) = flipped
                && let Some(byte) = usize::try_from(bit / 8).ok().and_then(|index| data.get_mut(index))
            {
                *byte ^= 1 << (bit % 8);
            }
            self.flying.insert((at, self.next), Flying { source, destination, ecn, data });
            self.next += 1;
        }
    }

    fn carry(&mut self, now: Duration, direction: (Host, Host), length: usize) -> Option<Copies> {
        let behind = self.shared.get(&direction).copied().unwrap_or(direction);
        for (from, to) in [direction, behind] {
            let _made_if_missing = self.link(from, to);
        }
        let lost = self.links.get_mut(&direction)?.loses();
        let sent = self.links.get_mut(&behind)?.leaves(now, length as u64)?;
        if lost { None } else { Some(self.links.get_mut(&direction)?.carry(sent, length)) }
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Duration> {
        self.flying.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next datagram that has arrived by now. One to an address that nobody has any more is lost.
    pub fn receive(&mut self) -> Option<Arrival> {
        while self.next_arrival().is_some_and(|at| at <= self.clock.elapsed()) {
            let (_, Flying { source, destination, ecn, data }) = self.flying.pop_first()?;
            if let Some(&to) = self.by_address.get(&destination) {
                return Some(Arrival { to, source, ecn, data });
            }
        }
        None
    }

    /// Datagrams that are on their way.
    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The clock of this network.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Lets time pass, never back.
    pub fn advance_to(&mut self, elapsed: Duration) {
        self.clock.set(self.clock.elapsed().max(elapsed));
    }

    /// What was sent so far, as hashes.
    pub fn trace(&self) -> Trace {
        self.recorder.trace()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Chance;

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 1))
    }

    fn pair(seed: u64, config: &LinkConfig) -> (Network, Host, Host) {
        let mut network = Network::new(seed);
        let (one, other) = (network.add(address(1)), network.add(address(2)));
        network.connect(one, other, config);
        (network, one, other)
    }

    #[test]
    fn a_datagram_arrives_after_the_delay_and_tells_its_source() {
        let delay = Duration::from_millis(10);
        let (mut network, one, other) = pair(1, &LinkConfig::delay(delay));
        network.send(one, address(2), None, b"hello");
        assert!(network.receive().is_none());
        assert_eq!(network.next_arrival(), Some(delay));
        network.advance_to(delay);
        let arrival = network.receive().unwrap();
        assert_eq!((arrival.to, arrival.source, &arrival.data[..]), (other, address(1), &b"hello"[..]));
        assert_eq!(network.clock().elapsed(), delay);
    }

    #[test]
    fn what_is_on_its_way_to_an_address_that_is_given_up_is_lost() {
        let (mut network, one, other) = pair(1, &LinkConfig::default());
        network.send(one, address(2), None, b"old");
        network.rebind(other, address(3));
        network.send(one, address(2), None, b"nobody");
        network.send(one, address(3), None, b"new");
        assert_eq!(network.receive().unwrap().data, b"new"[..]);
        assert!(network.receive().is_none() && network.in_flight() == 0);
    }

    #[test]
    fn a_forged_datagram_takes_the_way_of_its_sender_and_tells_another_source() {
        let delay = Duration::from_millis(10);
        let (mut network, one, other) = pair(1, &LinkConfig::delay(delay));
        network.send_as(address(9), one, address(2), None, b"hello");
        network.advance_to(delay);
        let arrival = network.receive().unwrap();
        assert_eq!((arrival.to, arrival.source), (other, address(9)));
    }

    #[test]
    fn exactly_one_bit_is_flipped_and_each_direction_is_its_own() {
        let corrupt = LinkConfig { corrupt: Chance::ALWAYS, ..LinkConfig::default() };
        let (mut network, one, other) = pair(1, &LinkConfig::default());
        *network.link(one, other) = corrupt;
        network.send(one, address(2), None, &[0; 100]);
        network.send(other, address(1), None, &[0; 100]);
        let ones = |arrival: Arrival| arrival.data.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert_eq!(network.receive().map(ones), Some(1));
        assert_eq!(network.receive().map(ones), Some(0));
    }

    #[test]
    fn two_directions_that_share_a_queue_wait_for_each_other() {
        let rate = LinkConfig { rate: Some(1000), queue: 150, ..LinkConfig::default() };
        let (mut network, one, other) = pair(1, &rate);
        let third = network.add(address(3));
        network.share((third, other), (one, other));
        network.send(one, address(2), None, &[0; 100]);
        network.send(third, address(2), None, &[0; 50]);
        network.send(third, address(2), None, &[0; 50]);
        network.advance_to(Duration::from_secs(1));
        let arrivals: Vec<_> =
            std::iter::from_fn(|| network.receive()).map(|arrival| arrival.source).collect();
        assert_eq!(arrivals, [address(1), address(3)], "the third finds the queue full");
    }

    #[test]
    fn the_trace_is_that_of_the_seed() {
        let trace = |seed, last: &[u8]| {
            let (mut network, one, _) = pair(seed, &LinkConfig::mobile());
            (0..50).for_each(|_| network.send(one, address(2), None, b"same"));
            network.send(one, address(2), None, last);
            network.trace()
        };
        assert_eq!(trace(1, b"a"), trace(1, b"a"));
        assert_eq!(trace(1, b"a").schedule, trace(1, b"b").schedule);
        assert_ne!(trace(1, b"a").bytes, trace(1, b"b").bytes);
        assert_ne!(trace(1, b"a").schedule, trace(2, b"a").schedule);
    }
}
