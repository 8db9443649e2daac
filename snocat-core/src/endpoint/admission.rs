//! Who may begin a connection, while nobody has proven anything (Protocol.md, "Before authentication").
//!
//! Strangers are counted in all and by source. Addresses that are not validated must not be able to lock
//! others out: from a low number on, a source first has to show that it receives what is sent to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::TunnelId;
use crate::limits::Limits;

/// What becomes of an Initial.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Admit,
    /// Show first that you receive.
    Retry,
    /// No answer: the client's retransmission is the queue.
    Ignore,
}

/// The connections of strangers.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Arc<Limits>,
    strangers: BTreeMap<TunnelId, IpAddr>,
    sources: BTreeMap<IpAddr, usize>,
}

impl Admission {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self { limits, strangers: BTreeMap::new(), sources: BTreeMap::new() }
    }

    /// `waiting` attempts were admitted and have not begun yet.
    pub(super) fn judge(&self, source: IpAddr, validated: bool, waiting: usize) -> Verdict {
        let limits = &self.limits;
        let total = self.strangers.len() + waiting;
        let here = self.sources.get(&prefix(source)).copied().unwrap_or(0);
        if total >= limits.unauthenticated || waiting >= limits.incoming {
            Verdict::Ignore
        } else if !validated && (total >= limits.retry_from || here >= limits.retry_from_per_source) {
            Verdict::Retry
        } else if validated && here >= limits.unauthenticated_per_source {
            Verdict::Ignore
        } else {
            Verdict::Admit
        }
    }

    /// An attempt of `source` was admitted. It counts from here on, before it has begun.
    pub(super) fn admitted(&mut self, source: IpAddr) {
        *self.sources.entry(prefix(source)).or_default() += 1;
    }

    /// An attempt that was admitted has come to nothing.
    pub(super) fn failed(&mut self, source: IpAddr) {
        let source = prefix(source);
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    /// An attempt that was admitted has become a tunnel.
    pub(super) fn begun(&mut self, id: TunnelId, source: IpAddr) {
        self.strangers.insert(id, source);
    }

    /// The tunnel has authenticated, or is gone. Once counts; later calls do nothing.
    pub(super) fn ended(&mut self, id: TunnelId) {
        if let Some(source) = self.strangers.remove(&id) {
            self.failed(source);
        }
    }

    pub(super) fn total(&self) -> usize {
        self.strangers.len()
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
                    self.admission.admitted(source);
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
        assert_eq!(world.admission.judge(v4(1), true, 0), Verdict::Ignore);
        world.admission.ended(ids[0]);
        world.admission.ended(ids[0]);
        assert_eq!(world.admission.judge(v4(1), true, 0), Verdict::Admit);
        assert_eq!(world.admission.total(), 63);
    }

    #[test]
    fn attempts_count_for_their_source_before_they_have_begun() {
        let mut world = World::new();
        for _ in 0..64 {
            world.admission.admitted(v4(1));
        }
        assert_eq!(world.admission.judge(v4(1), true, 64), Verdict::Ignore);
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
        assert_eq!(world.admission.judge(other, true, 1024 - 256), Verdict::Ignore);
    }

    #[test]
    fn an_ipv6_source_is_its_64_and_a_mapped_address_is_ipv4() {
        let a: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let b: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        assert_eq!(prefix(a), prefix(b));
        assert_eq!(prefix("::ffff:192.0.2.1".parse().unwrap()), v4(1));
    }
}
