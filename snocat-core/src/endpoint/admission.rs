//! Who may begin a connection, while nobody has proven anything (Protocol.md, "Before authentication").
//!
//! Strangers are counted in all and by network. These rules keep a crowd of them from shutting others out:
//!
//! - An address that is not validated has no rights: from a low number of strangers on, a source first has to show that it
//!   receives what is sent to it (Retry).
//! - What a network may have shrinks with the places that are left ([`Share`]). Sources that take all they can get therefore
//!   leave places to those that come with one attempt. A share of less than one place is a chance, drawn once a second,
//!   however often the source asks.
//! - Some places are kept for sources that have authenticated lately ([`Known`]).
//! - The fewer places are left, the sooner a stranger has to be done ([`Admission::time`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::hmac;

use super::TunnelId;
use crate::limits::Limits;

/// What has become of those who wanted to connect: since the endpoint started, and now.
///
/// Whoever is let in is a *stranger* until it has proven who it is or is gone. So at any time `admitted` is the sum
/// of `authenticated`, `refused` and `strangers`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdmissionCounts {
    /// Attempts that were let in.
    pub admitted: u64,
    /// Initials that were answered with a Retry: from [`Limits::retry_from`] or [`Limits::retry_from_per_source`]
    /// strangers on, a source first has to show that it receives what is sent to it. Who does comes back, and is
    /// counted again.
    pub retried: u64,
    /// Initials that were ignored because no place was left of [`Limits::unauthenticated`], or so few that a draw decides,
    /// or because [`Limits::incoming`] attempts waited to be accepted. A client repeats its Initial, and each counts.
    pub ignored_total: u64,
    /// Initials that were ignored because their source, or a network that it is in, had its share: of
    /// [`Limits::unauthenticated_per_source`], [`Limits::unauthenticated_per_56`] or [`Limits::unauthenticated_per_48`].
    pub ignored_source: u64,
    /// Strangers that are gone without having authenticated, whatever the reason: turned away, out of time, lost, or
    /// failed before there was a tunnel. Counted when the place is free again, up to [`Limits::farewell_time`] after
    /// the end.
    pub refused: u64,
    /// Strangers that have authenticated.
    pub authenticated: u64,
    /// Strangers at present: attempts that wait to be accepted, tunnels that have not authenticated, and those of them
    /// that have ended and still keep their place.
    pub strangers: usize,
    /// The most strangers that there ever were at the same time.
    pub peak: usize,
}

/// What becomes of an Initial.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Admit,
    /// Show first that you receive.
    Retry,
    /// No answer, there are too many: the client's retransmission is the queue.
    Ignore,
    /// No answer, there are too many of this source.
    IgnoreSource,
}

/// The connections of strangers.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Arc<Limits>,
    strangers: BTreeMap<TunnelId, IpAddr>,
    /// How many of them there are of each network.
    networks: BTreeMap<Network, usize>,
    /// The tunnels that have authenticated.
    members: BTreeMap<TunnelId, IpAddr>,
    known: Known,
    lots: Lots,
    counts: AdmissionCounts,
}

impl Admission {
    /// What is random is drawn from `seed`.
    pub(super) fn new(limits: Arc<Limits>, seed: &[u8; 32]) -> Self {
        Self {
            known: Known::new(limits.known_sources, limits.known_time),
            limits,
            strangers: BTreeMap::new(),
            networks: BTreeMap::new(),
            members: BTreeMap::new(),
            lots: Lots { key: hmac::Key::new(hmac::HMAC_SHA256, seed), start: None },
            counts: AdmissionCounts::default(),
        }
    }

    pub(super) fn counts(&self) -> AdmissionCounts {
        self.counts
    }

    /// Somebody wants to connect, while `waiting` attempts were admitted and have not begun yet. Whoever is
    /// admitted counts from here on.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        source: IpAddr,
        validated: bool,
        waiting: usize,
    ) -> Verdict {
        self.lots.start.get_or_insert(now);
        let verdict = self.judge(now, source, validated, waiting);
        let counts = &mut self.counts;
        match verdict {
            Verdict::Admit => {
                for network in Network::all_of(source) {
                    *self.networks.entry(network).or_default() += 1;
                }
                counts.admitted += 1;
                counts.strangers += 1;
                counts.peak = counts.peak.max(counts.strangers);
            }
            Verdict::Retry => counts.retried += 1,
            Verdict::Ignore => counts.ignored_total += 1,
            Verdict::IgnoreSource => counts.ignored_source += 1,
        }
        verdict
    }

    fn judge(&self, now: Instant, source: IpAddr, validated: bool, waiting: usize) -> Verdict {
        let limits = &self.limits;
        let total = self.counts.strangers;
        let known = self.known.contains(now, source);
        let reserve = limits.unauthenticated_reserve.min(limits.unauthenticated / 2);
        let places = if known { limits.unauthenticated } else { limits.unauthenticated - reserve };
        if total >= places || waiting >= limits.incoming {
            return Verdict::Ignore;
        }
        let here = |network| self.networks.get(&network).copied().unwrap_or(0);
        let share = |cap| Share::new(cap, total, limits.retry_from, places);
        let has_its_share =
            Network::all_of(source).any(|network| here(network) >= share(network.cap(limits)).places());
        let crowded = total >= limits.retry_from
            || Network::all_of(source).any(|network| here(network) >= network.retry_from(limits));
        if !validated && (crowded || has_its_share) {
            Verdict::Retry
        } else if has_its_share {
            Verdict::IgnoreSource
        } else if !known && !self.lots.draw(now, source, share(limits.unauthenticated_per_source)) {
            Verdict::Ignore
        } else {
            Verdict::Admit
        }
    }

    /// How long the authentication of one that begins now may take: from [`Limits::retry_from`] strangers on less and less.
    pub(super) fn time(&self) -> Duration {
        let limits = &self.limits;
        let (long, short) = (limits.authentication_time, limits.authentication_time_crowded);
        let share = Share::new(1000, self.counts.strangers, limits.retry_from, limits.unauthenticated);
        let left = u32::try_from(share.places()).unwrap_or(1000).min(1000);
        long - long.saturating_sub(short) * (1000 - left) / 1000
    }

    /// An attempt that was admitted has become a tunnel.
    pub(super) fn begun(&mut self, id: TunnelId, source: IpAddr) {
        self.strangers.insert(id, source);
    }

    /// An attempt that was admitted has come to nothing.
    pub(super) fn failed(&mut self, source: IpAddr) {
        self.release(source);
        self.counts.refused += 1;
    }

    /// The tunnel has authenticated. Once counts; later calls do nothing.
    pub(super) fn authenticated(&mut self, now: Instant, id: TunnelId) {
        if let Some(source) = self.strangers.remove(&id) {
            self.release(source);
            self.counts.authenticated += 1;
            self.members.insert(id, source);
            self.known.note(now, source);
        }
    }

    /// The tunnel is gone. That of a stranger counts, and once; the source of another is known from now on.
    pub(super) fn gone(&mut self, now: Instant, id: TunnelId) {
        if let Some(source) = self.strangers.remove(&id) {
            self.failed(source);
        }
        if let Some(source) = self.members.remove(&id) {
            self.known.note(now, source);
        }
    }

    fn release(&mut self, source: IpAddr) {
        self.counts.strangers -= 1;
        for network in Network::all_of(source) {
            if let Some(count) = self.networks.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    self.networks.remove(&network);
                }
            }
        }
    }
}

/// A network that strangers are counted by: an IPv4 address; an IPv6 /64, which is a source, a /56, which a customer has, and a
/// /48, which anybody can have.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Network {
    length: u8,
    address: IpAddr,
}

impl Network {
    fn new(source: IpAddr, length: u8) -> Self {
        let address = match source.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let host = 128 - u32::from(length);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> host << host))
            }
        };
        Self { length, address }
    }

    /// One subscriber.
    fn source(source: IpAddr) -> Self {
        Self::new(source, 64)
    }

    /// All that a source is in.
    fn all_of(source: IpAddr) -> impl Iterator<Item = Self> {
        let lengths: &[u8] = if source.to_canonical().is_ipv4() { &[64] } else { &[64, 56, 48] };
        lengths.iter().map(move |length| Self::new(source, *length))
    }

    fn cap(self, limits: &Limits) -> usize {
        match self.length {
            48 => limits.unauthenticated_per_48,
            56 => limits.unauthenticated_per_56,
            _ => limits.unauthenticated_per_source,
        }
    }

    /// From how many strangers on a source in it first has to show that it receives: far below the cap, or somebody who forges
    /// addresses of the network could use the cap up.
    fn retry_from(self, limits: &Limits) -> usize {
        match self.length {
            48 | 56 => self.cap(limits) / 4,
            _ => limits.retry_from_per_source,
        }
    }
}

/// What a network may have of the places for strangers: its cap while there are few strangers, and from some number on the
/// less the fewer places are left, down to nothing.
///
/// With 64 places of 1,024, from 256 strangers on it is a twelfth of the places that are left. If 18 sources take all they
/// can get, they have 34 each, and 410 are left; 256 sources have 4 each.
#[derive(Copy, Clone, Debug)]
struct Share {
    part: u64,
    of: u64,
}

impl Share {
    fn new(cap: usize, strangers: usize, from: usize, places: usize) -> Self {
        if strangers < from {
            return Self { part: cap as u64, of: 1 };
        }
        let (left, all) = (places.saturating_sub(strangers), places.saturating_sub(from));
        Self { part: cap as u64 * left as u64, of: all.max(1) as u64 }
    }

    /// In whole places, but one at least.
    fn places(self) -> usize {
        usize::try_from(self.part / self.of).unwrap_or(usize::MAX).max(1)
    }
}

/// How long a draw holds: a client waits as long before it repeats its first packet.
const DRAW: Duration = Duration::from_secs(1);

/// Draws chances. Nobody outside can foresee them.
#[derive(Debug)]
struct Lots {
    key: hmac::Key,
    start: Option<Instant>,
}

impl Lots {
    /// Whether a source has luck now, which one with a share of one place or more always has. All of an IPv6 /48 have it
    /// together, or they could go on asking from one address after the other.
    fn draw(&self, now: Instant, source: IpAddr, share: Share) -> bool {
        if share.part >= share.of {
            return true;
        }
        let network = Network::new(source, 48);
        let time = self.start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        let draw = time.as_secs() / DRAW.as_secs();
        let mut text = draw.to_be_bytes().to_vec();
        match network.address {
            IpAddr::V4(address) => text.extend(address.octets()),
            IpAddr::V6(address) => text.extend(address.octets()),
        }
        let tag = hmac::sign(&self.key, &text);
        let drawn = tag.as_ref().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        drawn % share.of < share.part
    }
}

/// Sources that have authenticated lately, or have had a tunnel: bounded, and the oldest is forgotten first.
#[derive(Debug)]
struct Known {
    most: usize,
    time: Duration,
    times: BTreeMap<Network, Instant>,
    order: BTreeSet<(Instant, Network)>,
}

impl Known {
    fn new(most: usize, time: Duration) -> Self {
        Self { most, time, times: BTreeMap::new(), order: BTreeSet::new() }
    }

    fn note(&mut self, now: Instant, source: IpAddr) {
        let source = Network::source(source);
        if let Some(before) = self.times.insert(source, now) {
            self.order.remove(&(before, source));
        }
        self.order.insert((now, source));
        if self.times.len() > self.most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.times.remove(&oldest);
        }
    }

    fn contains(&self, now: Instant, source: IpAddr) -> bool {
        let noted = self.times.get(&Network::source(source));
        noted.is_some_and(|noted| now.saturating_duration_since(*noted) <= self.time)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ids;
    use super::*;
    use quinn_proto::ConnectionHandle;

    /// Strangers, and a clock.
    struct World {
        ids: Ids,
        admission: Admission,
        now: Instant,
        next: usize,
    }

    impl World {
        fn new() -> Self {
            Self::with(Limits::default())
        }

        fn with(limits: Limits) -> Self {
            let admission = Admission::new(Arc::new(limits), &[7; 32]);
            Self { ids: Ids::default(), admission, now: start(), next: 0 }
        }

        fn judge(&self, source: IpAddr, validated: bool) -> Verdict {
            self.admission.judge(self.now, source, validated, 0)
        }

        fn decide(&mut self, source: IpAddr, validated: bool, waiting: usize) -> Verdict {
            self.admission.decide(self.now, source, validated, waiting)
        }

        /// So many strangers are let in.
        fn begin(&mut self, count: usize, source: IpAddr) -> Vec<TunnelId> {
            let ids = (0..count).map(|_| {
                self.next += 1;
                let id = self.ids.insert(ConnectionHandle(self.next));
                assert_eq!(self.admission.decide(self.now, source, true, 0), Verdict::Admit);
                self.admission.begun(id, source);
                id
            });
            ids.collect()
        }

        /// Each takes all it can get, in turns, until none gets any more. Returns what each has.
        fn crowd(&mut self, sources: &[IpAddr]) -> Vec<usize> {
            let mut has = vec![0; sources.len()];
            let mut more = true;
            while std::mem::take(&mut more) {
                for (source, has) in sources.iter().zip(&mut has) {
                    if self.judge(*source, true) == Verdict::Admit {
                        self.begin(1, *source);
                        *has += 1;
                        more = true;
                    }
                }
            }
            has
        }

        /// The source authenticates, and its tunnel ends.
        fn introduce(&mut self, source: IpAddr) {
            let id = self.begin(1, source)[0];
            self.admission.authenticated(self.now, id);
            self.admission.gone(self.now, id);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test has to begin at some time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn many(count: u32) -> Vec<IpAddr> {
        (0..count).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes())).collect()
    }

    #[test]
    fn a_source_is_asked_to_retry_from_its_sixteenth_stranger_on() {
        let mut world = World::new();
        world.begin(15, v4(1));
        assert_eq!(world.judge(v4(1), false), Verdict::Admit);
        world.begin(1, v4(1));
        assert_eq!(world.judge(v4(1), false), Verdict::Retry);
        assert_eq!(world.judge(v4(1), true), Verdict::Admit);
        assert_eq!(world.judge(v4(2), false), Verdict::Admit);
    }

    #[test]
    fn a_validated_source_has_at_most_sixty_four() {
        let mut world = World::new();
        let ids = world.begin(64, v4(1));
        assert_eq!(world.judge(v4(1), true), Verdict::IgnoreSource);
        assert_eq!(world.judge(v4(1), false), Verdict::Retry, "it may be forged");
        world.admission.gone(world.now, ids[0]);
        world.admission.gone(world.now, ids[0]);
        assert_eq!(world.judge(v4(1), true), Verdict::Admit);
        assert_eq!(world.admission.counts().strangers, 63);
    }

    #[test]
    fn a_56_and_a_48_have_caps_of_their_own() {
        let mut world = World::new();
        let source = |site: u16, subnet: u16| IpAddr::from([0x2001, 0xdb8, site, subnet, 0, 0, 0, 1]);
        let of_56: Vec<_> = (0..0x100).map(|subnet| source(1, subnet)).collect();
        assert_eq!(world.crowd(&of_56).iter().sum::<usize>(), 128);
        assert_eq!(world.judge(source(1, 0), true), Verdict::IgnoreSource);
        let of_48: Vec<_> = (0..=0xffff).step_by(0x100).map(|subnet| source(1, subnet)).collect();
        // Of 256 on, shares are smaller.
        assert_eq!(128 + world.crowd(&of_48).iter().sum::<usize>(), 256);
        assert_eq!(world.judge(source(1, 0xff00), true), Verdict::IgnoreSource);
        assert_eq!(world.judge(source(2, 0), true), Verdict::Admit);
    }

    /// Whoever forges addresses of a network does not shut out those who are in it.
    #[test]
    fn forged_addresses_do_not_take_all_that_a_network_may_have() {
        let mut world = World::new();
        let source = |site: u16, subnet: u16| IpAddr::from([0x2001, 0xdb8, site, subnet, 0, 0, 0, 1]);
        let mut forge = |subnets: std::ops::RangeInclusive<u16>| {
            for source in subnets.map(|subnet| source(1, subnet)) {
                while world.decide(source, false, 0) == Verdict::Admit {}
            }
            world.judge(source(1, 0), true)
        };
        assert_eq!(forge(0..=0xff), Verdict::Admit, "all of a /56");
        assert_eq!(forge(0..=0xffff), Verdict::Admit, "all of a /48");
    }

    #[test]
    fn attempts_count_for_their_source_before_they_have_begun() {
        let mut world = World::new();
        for waiting in 0..64 {
            assert_eq!(world.decide(v4(1), true, waiting), Verdict::Admit);
        }
        assert_eq!(world.judge(v4(1), true), Verdict::IgnoreSource);
        world.admission.failed(v4(1));
        assert_eq!(world.judge(v4(1), true), Verdict::Admit);
    }

    #[test]
    fn everybody_is_asked_from_256_on() {
        let mut world = World::new();
        for source in many(255) {
            world.begin(1, source);
        }
        assert_eq!(world.judge(v4(1), false), Verdict::Admit);
        world.begin(1, v4(2));
        assert_eq!(world.judge(v4(1), false), Verdict::Retry);
        assert_eq!(world.judge(v4(1), true), Verdict::Admit);
    }

    #[test]
    fn those_who_take_all_they_can_get_leave_places_to_others() {
        for (count, each, left) in [(1, 64, 832), (18, 32, 320), (64, 12, 121), (256, 3, 25)] {
            let mut world = World::new();
            let has = world.crowd(&many(count));
            let places = 1024 - 128 - has.iter().sum::<usize>();
            assert!(has.iter().all(|has| (each..each + 3).contains(has)), "{count}: {has:?}");
            assert!(places.abs_diff(left) <= 40, "{count}: {places} left");
            // Whoever has none yet has at least a good chance of one.
            let share = Share::new(64, 896 - places, 256, 896);
            assert!(2 * share.part > share.of, "{count}: {share:?}");
        }
    }

    #[test]
    fn a_draw_is_made_once_a_second_however_often_a_source_asks() {
        let start = start();
        let lots = Lots { key: hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), start: Some(start) };
        let quarter = Share { part: 16, of: 64 };
        let sources = many(1000);
        let at =
            |now: Duration| sources.iter().map(|source| lots.draw(start + now, *source, quarter)).collect();
        let first: Vec<bool> = at(Duration::ZERO);
        assert_eq!(first, at(Duration::from_millis(999)));
        assert_ne!(first, at(Duration::from_secs(1)));
        let lucky = first.iter().filter(|lucky| **lucky).count();
        assert!((200..300).contains(&lucky), "{lucky}");
        let site = |subnet: u16| IpAddr::from([0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1]);
        let luck = |source| lots.draw(start, source, quarter);
        assert!((0..100).all(|subnet| luck(site(subnet)) == luck(site(0))), "a /48 has one draw");
    }

    #[test]
    fn places_are_kept_for_sources_that_have_authenticated() {
        let mut world = World::new();
        world.introduce(v4(1));
        // More sources than places, which draw until there is none left for them.
        while world.admission.counts().strangers < 896 {
            world.now += DRAW;
            world.crowd(&many(2000));
        }
        assert_eq!(world.judge(v4(2), true), Verdict::Ignore);
        assert_eq!(world.judge(v4(1), true), Verdict::Admit);
        assert_eq!(world.judge(v4(1), false), Verdict::Retry, "it may be forged");
        world.now += Limits::default().known_time;
        assert_eq!(world.judge(v4(1), true), Verdict::Ignore, "that was long ago");
    }

    #[test]
    fn no_more_than_half_of_the_places_are_kept() {
        let mut world = World::with(Limits { unauthenticated: 10, ..Limits::default() });
        assert_eq!(world.crowd(&many(20)).iter().sum::<usize>(), 5);
    }

    #[test]
    fn what_is_known_of_sources_is_bounded_and_ages() {
        let mut known = Known::new(3, Duration::from_secs(60));
        let start = start();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (second, last) in [(0, 1), (1, 2), (2, 3), (3, 1), (4, 4)] {
            known.note(at(second), v4(last));
        }
        let found = |now: Instant| (1..=4).filter(|last| known.contains(now, v4(*last))).collect::<Vec<_>>();
        assert_eq!(found(at(4)), [1, 3, 4], "the oldest went");
        assert_eq!(found(at(63)), [1, 4]);
        assert_eq!(found(at(65)), Vec::<u8>::new());
        assert_eq!((known.times.len(), known.order.len()), (3, 3));
    }

    #[test]
    fn the_fewer_places_are_left_the_sooner_a_stranger_has_to_be_done() {
        let mut world = World::new();
        let mut times = Vec::new();
        for source in many(896) {
            times.push(world.admission.time());
            world.admission.decide(world.now, source, true, 0);
        }
        assert_eq!(times[255], Limits::default().authentication_time);
        assert!(times.is_sorted_by(|one, next| one >= next));
        let (last, least) = (times[895], Limits::default().authentication_time_crowded);
        assert!(last >= least && last < least * 2, "{last:?}");
    }

    #[test]
    fn attempts_are_ignored_while_as_many_wait_as_may() {
        let world = World::new();
        let most = Limits::default().incoming;
        assert_eq!(world.admission.judge(world.now, v4(1), true, most - 1), Verdict::Admit);
        assert_eq!(world.admission.judge(world.now, v4(1), true, most), Verdict::Ignore);
    }

    #[test]
    fn each_attempt_is_counted_for_what_has_become_of_it() {
        let mut world = World::new();
        let ids = world.begin(64, v4(1));
        world.decide(v4(1), true, 0);
        world.decide(v4(1), false, 0);
        world.decide(v4(2), true, usize::MAX);
        let full = AdmissionCounts {
            admitted: 64,
            retried: 1,
            ignored_total: 1,
            ignored_source: 1,
            strangers: 64,
            peak: 64,
            ..AdmissionCounts::default()
        };
        assert_eq!(world.admission.counts(), full);
        for id in &ids[..3] {
            world.admission.authenticated(world.now, *id);
            // Its end is that of a tunnel, not that of a stranger.
            world.admission.gone(world.now, *id);
        }
        world.admission.gone(world.now, ids[3]);
        world.decide(v4(2), false, 0);
        world.admission.failed(v4(2));
        let later = AdmissionCounts { admitted: 65, authenticated: 3, refused: 2, strangers: 60, ..full };
        assert_eq!(world.admission.counts(), later);
        assert!(world.admission.members.is_empty(), "nothing is kept of tunnels that are gone");
    }

    #[test]
    fn an_ipv6_source_is_its_64_and_a_mapped_address_is_ipv4() {
        let a: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let b: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        assert_eq!(Network::source(a), Network::source(b));
        assert_eq!(Network::source("::ffff:192.0.2.1".parse().unwrap()), Network::source(v4(1)));
    }
}
