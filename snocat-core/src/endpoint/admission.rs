//! Who may begin a connection, while nobody has proven anything (Protocol.md, "Before authentication").
//!
//! Strangers are counted in all and by source. Addresses that are not validated must not be able to lock
//! others out: from a low number on, a source first has to show that it receives what is sent to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

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
    /// Initials that were ignored because there were [`Limits::unauthenticated`] strangers, or
    /// [`Limits::incoming`] of them waited to be accepted. A client repeats its Initial, and each counts.
    pub ignored_total: u64,
    /// Initials that were ignored because there were [`Limits::unauthenticated_per_source`] strangers of their source.
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
    sources: BTreeMap<IpAddr, usize>,
    counts: AdmissionCounts,
}

impl Admission {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        let counts = AdmissionCounts::default();
        Self { limits, strangers: BTreeMap::new(), sources: BTreeMap::new(), counts }
    }

    pub(super) fn counts(&self) -> AdmissionCounts {
        self.counts
    }

    /// Somebody wants to connect, while `waiting` attempts were admitted and have not begun yet. Whoever is
    /// admitted counts from here on.
    pub(super) fn decide(&mut self, source: IpAddr, validated: bool, waiting: usize) -> Verdict {
        let verdict = self.judge(source, validated, waiting);
        let counts = &mut self.counts;
        match verdict {
            Verdict::Admit => {
                *self.sources.entry(prefix(source)).or_default() += 1;
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

    fn judge(&self, source: IpAddr, validated: bool, waiting: usize) -> Verdict {
        let limits = &self.limits;
        let total = self.counts.strangers;
        let here = self.sources.get(&prefix(source)).copied().unwrap_or(0);
        if total >= limits.unauthenticated || waiting >= limits.incoming {
            Verdict::Ignore
        } else if !validated && (total >= limits.retry_from || here >= limits.retry_from_per_source) {
            Verdict::Retry
        } else if validated && here >= limits.unauthenticated_per_source {
            Verdict::IgnoreSource
        } else {
            Verdict::Admit
        }
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
    pub(super) fn authenticated(&mut self, id: TunnelId) {
        if let Some(source) = self.strangers.remove(&id) {
            self.release(source);
            self.counts.authenticated += 1;
        }
    }

    /// The tunnel is gone. That of a stranger counts, and once.
    pub(super) fn gone(&mut self, id: TunnelId) {
        if let Some(source) = self.strangers.remove(&id) {
            self.failed(source);
        }
    }

    fn release(&mut self, source: IpAddr) {
        self.counts.strangers -= 1;
        let source = prefix(source);
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

/// One subscriber: an IPv4 address, an IPv6 /64.
fn prefix(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ids;
    use super::*;
    use quinn_proto::ConnectionHandle;

    struct World {
        admission: Admission,
        ids: Ids,
        next: usize,
    }

    impl World {
        fn new() -> Self {
            Self { admission: Admission::new(Arc::new(Limits::default())), ids: Ids::default(), next: 0 }
        }

        fn begin(&mut self, count: usize, source: IpAddr) -> Vec<TunnelId> {
            (0..count)
                .map(|_| {
                    self.next += 1;
                    let id = self.ids.insert(ConnectionHandle(self.next));
                    assert_eq!(self.admission.decide(source, true, 0), Verdict::Admit);
                    self.admission.begun(id, source);
                    id
                })
                .collect()
        }
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_source_is_asked_to_retry_from_its_sixteenth_stranger_on() {
        let mut world = World::new();
        world.begin(15, v4(1));
        assert_eq!(world.admission.judge(v4(1), false, 0), Verdict::Admit);
        world.begin(1, v4(1));
        assert_eq!(world.admission.judge(v4(1), false, 0), Verdict::Retry);
        assert_eq!(world.admission.judge(v4(1), true, 0), Verdict::Admit);
        assert_eq!(world.admission.judge(v4(2), false, 0), Verdict::Admit);
    }

    #[test]
    fn a_validated_source_has_at_most_sixty_four() {
        let mut world = World::new();
        let ids = world.begin(64, v4(1));
        assert_eq!(world.admission.judge(v4(1), true, 0), Verdict::IgnoreSource);
        world.admission.gone(ids[0]);
        world.admission.gone(ids[0]);
        assert_eq!(world.admission.judge(v4(1), true, 0), Verdict::Admit);
        assert_eq!(world.admission.counts().strangers, 63);
    }

    #[test]
    fn attempts_count_for_their_source_before_they_have_begun() {
        let mut world = World::new();
        for waiting in 0..64 {
            assert_eq!(world.admission.decide(v4(1), true, waiting), Verdict::Admit);
        }
        assert_eq!(world.admission.judge(v4(1), true, 64), Verdict::IgnoreSource);
        world.admission.failed(v4(1));
        assert_eq!(world.admission.judge(v4(1), true, 63), Verdict::Admit);
    }

    #[test]
    fn everybody_is_asked_from_256_on_and_ignored_from_1024_on() {
        let mut world = World::new();
        for last in 0..=255 {
            world.begin(1, v4(last));
        }
        let other = IpAddr::from([198, 51, 100, 1]);
        assert_eq!(world.admission.judge(other, false, 0), Verdict::Retry);
        assert_eq!(world.admission.judge(other, true, 0), Verdict::Admit);
        for last in 0..=255 {
            world.begin(3, v4(last));
        }
        assert_eq!(world.admission.judge(other, true, 0), Verdict::Ignore);
    }

    #[test]
    fn attempts_are_ignored_while_as_many_wait_as_may() {
        let world = World::new();
        let most = Limits::default().incoming;
        assert_eq!(world.admission.judge(v4(1), true, most - 1), Verdict::Admit);
        assert_eq!(world.admission.judge(v4(1), true, most), Verdict::Ignore);
    }

    #[test]
    fn each_attempt_is_counted_for_what_has_become_of_it() {
        let mut world = World::new();
        let ids = world.begin(64, v4(1));
        world.admission.decide(v4(1), true, 0);
        world.admission.decide(v4(1), false, 0);
        world.admission.decide(v4(2), true, usize::MAX);
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
            world.admission.authenticated(*id);
            // Its end is that of a tunnel, not that of a stranger.
            world.admission.gone(*id);
        }
        world.admission.gone(ids[3]);
        world.admission.decide(v4(2), false, 0);
        world.admission.failed(v4(2));
        let later = AdmissionCounts { admitted: 65, authenticated: 3, refused: 2, strangers: 60, ..full };
        assert_eq!(world.admission.counts(), later);
    }

    #[test]
    fn an_ipv6_source_is_its_64_and_a_mapped_address_is_ipv4() {
        let a: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let b: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        assert_eq!(prefix(a), prefix(b));
        assert_eq!(prefix("::ffff:192.0.2.1".parse().unwrap()), v4(1));
    }
}
