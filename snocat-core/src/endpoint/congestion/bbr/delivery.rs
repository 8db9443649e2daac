//! How fast a path delivers: a sample with each acknowledgement (draft-ietf-ccwg-bbr, "delivery rate samples").
//!
//! When something is sent, what was delivered until then is put down. When it is acknowledged, the difference is what the path
//! has delivered meanwhile, over the longer of the times that sending and delivering took. So what a peer acknowledges in a
//! burst, or too early, never looks faster than it was sent.
//!
//! quinn-proto tells of batches when they are sent and of packets when they are acknowledged, and knows packets again
//! only by the time at which they were sent. What is sent within a sixteenth of a round trip therefore has one record, which
//! bounds their number: a sample spans a little more than a round trip, and is as true. What is acknowledged behind something newer gives
//! none.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::bandwidth::Bandwidth;

/// Records at most: four round trips at their usual distance.
const RECORDS: usize = 64;
/// How many of them a round trip has.
const RECORDS_A_ROUND: u32 = 16;
/// Without an acknowledgement for so long, beyond two round trips, nothing was under way that tells of the path. A peer delays
/// an acknowledgement by 25 ms (RFC 9000, section 18.2).
const SILENCE: Duration = Duration::from_millis(25);

/// What one acknowledgement tells.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) bandwidth: Bandwidth,
    /// Between the sending of the newest packet and its acknowledgement.
    pub(super) rtt: Duration,
    /// Bytes that are acknowledged with it.
    pub(super) acknowledged: u64,
    /// Bytes still under way.
    pub(super) in_flight: u64,
    /// Whether the application, and not the path, may have been what limited it.
    pub(super) app_limited: bool,
    /// Whether what was sent in the last round trip is now acknowledged.
    pub(super) ends_round: bool,
}

/// What was known when something was sent.
#[derive(Clone, Debug)]
struct Record {
    sent: Instant,
    /// When that was sent which had been acknowledged last.
    first_sent: Instant,
    delivered: u64,
    delivered_at: Instant,
    app_limited: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Delivery {
    records: VecDeque<Record>,
    /// Bytes acknowledged so far.
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    in_flight: u64,
    rtt: Duration,
    /// What is sent until so much is delivered does not show what the path can do.
    limited_until: u64,
    /// A round ends with the acknowledgement of what was sent after so much was delivered.
    round_ends: u64,
    acknowledged: u64,
    newest: Option<Instant>,
}

impl Delivery {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            records: VecDeque::new(),
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            in_flight: 0,
            rtt: Duration::ZERO,
            limited_until: 0,
            round_ends: 0,
            acknowledged: 0,
            newest: None,
        }
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(super) fn sent(&mut self, now: Instant, bytes: u64) {
        if self.in_flight == 0 {
            (self.delivered_at, self.first_sent) = (now, now);
        }
        self.in_flight = self.in_flight.saturating_add(bytes);
        let silent = now.saturating_duration_since(self.delivered_at) > SILENCE + 2 * self.rtt;
        let app_limited = silent || self.delivered < self.limited_until;
        if self.records.back().is_some_and(|last| {
            last.app_limited == app_limited
                && now.saturating_duration_since(last.sent) < self.rtt / RECORDS_A_ROUND
        }) {
            return;
        }
        if self.records.len() == RECORDS {
            // The round trip has become longer: every second one will do.
            let mut keep = false;
            self.records.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.records.push_back(Record {
            sent: now,
            first_sent: self.first_sent,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            app_limited,
        });
    }

    pub(super) fn acknowledged(&mut self, sent: Instant, bytes: u64, rtt: Duration) {
        self.acknowledged = self.acknowledged.saturating_add(bytes);
        self.newest = self.newest.max(Some(sent));
        self.rtt = rtt;
    }

    /// All that one acknowledgement covers has been told. `None` if that says nothing.
    pub(super) fn sample(&mut self, now: Instant, in_flight: u64, app_limited: bool) -> Option<Sample> {
        self.in_flight = in_flight;
        let acknowledged = std::mem::take(&mut self.acknowledged);
        self.delivered = self.delivered.saturating_add(acknowledged);
        self.delivered_at = now;
        if app_limited {
            self.limited_until = self.delivered.saturating_add(in_flight).saturating_add(1);
        }
        let newest = self.newest.take()?;
        let at = self.records.partition_point(|record| record.sent <= newest).checked_sub(1)?;
        self.records.drain(..at);
        let record = self.records.front().cloned()?;
        if in_flight == 0 {
            // An idle tunnel keeps nothing.
            self.records = VecDeque::new();
        }
        self.first_sent = self.first_sent.max(newest);

        let ends_round = record.delivered >= self.round_ends;
        if ends_round {
            self.round_ends = self.delivered;
        }
        let sending = newest.saturating_duration_since(record.first_sent);
        let delivering = now.saturating_duration_since(record.delivered_at);
        Some(Sample {
            bandwidth: Bandwidth::of(self.delivered - record.delivered, sending.max(delivering)),
            rtt: now.saturating_duration_since(newest),
            acknowledged,
            in_flight,
            app_limited: record.app_limited,
            ends_round,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "any instant will do, to begin at")]

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    impl Delivery {
        pub(in super::super) fn records(&self) -> usize {
            self.records.len()
        }
    }

    /// Sends a packet of 1,000 bytes each millisecond, and has each acknowledged after so many.
    fn steady(delivery: &mut Delivery, start: Instant, packets: u32, round_trip: u32) -> Vec<Sample> {
        let mut samples = Vec::new();
        for tick in 0..packets + round_trip {
            let now = start + tick * MS;
            if let Some(sent) = tick.checked_sub(round_trip) {
                delivery.acknowledged(start + sent * MS, 1000, round_trip * MS);
                let in_flight = u64::from(packets.min(tick) - sent) * 1000 - 1000;
                samples.extend(delivery.sample(now, in_flight, false));
            }
            if tick < packets {
                delivery.sent(now, 1000);
            }
        }
        samples
    }

    #[test]
    fn a_steady_path_gives_its_bandwidth_once_a_round_is_complete() {
        let start = Instant::now();
        let samples = steady(&mut Delivery::new(start), start, 500, 20);
        let expected = Bandwidth::of(1000, MS);
        assert!(samples[40..].iter().all(|sample| sample.bandwidth == expected), "{samples:?}");
        assert!(samples.iter().all(|sample| sample.bandwidth <= expected && sample.rtt == 20 * MS));
        let rounds = samples.iter().filter(|sample| sample.ends_round).count();
        assert!((23..=26).contains(&rounds), "{rounds} rounds of 20 packets, and a little more");
    }

    #[test]
    fn acknowledgements_in_a_burst_do_not_look_faster_than_what_was_sent() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        for tick in 0..50 {
            delivery.sent(start + tick * MS, 1000);
        }
        let now = start + 50 * MS;
        for tick in 0..50 {
            delivery.acknowledged(start + tick * MS, 1000, 50 * MS);
            let sample = delivery.sample(now, 49_000 - 1000 * u64::from(tick), false).unwrap();
            assert!(sample.bandwidth <= Bandwidth::of(1000, MS), "{sample:?}");
        }
    }

    #[test]
    fn what_an_idle_application_sends_is_known_as_such_and_what_comes_after_is_not() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        delivery.sent(start, 1000);
        delivery.acknowledged(start, 1000, MS);
        assert!(!delivery.sample(start + MS, 0, true).unwrap().app_limited);
        for (tick, limited) in [(10, true), (20, false)] {
            let sent = start + tick * MS;
            delivery.sent(sent, 1000);
            delivery.acknowledged(sent, 1000, MS);
            let sample = delivery.sample(sent + MS, 0, false).unwrap();
            assert_eq!(sample.app_limited, limited);
            assert_eq!(sample.bandwidth, Bandwidth::of(1000, MS), "the pause does not count");
        }
    }

    #[test]
    fn records_are_few_and_none_is_left_when_all_is_acknowledged() {
        let start = Instant::now();
        let mut delivery = Delivery::new(start);
        for tick in 0..10_000 {
            delivery.sent(start + tick * MS, 1000);
            assert!(delivery.records() <= RECORDS);
        }
        delivery.acknowledged(start, 1000, MS);
        let sample = delivery.sample(start + 10_000 * MS, 9_999_000, false).unwrap();
        assert_eq!(sample.bandwidth, Bandwidth::of(1000, 10_000 * MS), "the oldest is still there");
        delivery.acknowledged(start + 9_999 * MS, 1000, MS);
        assert!(delivery.sample(start + 10_000 * MS, 0, false).is_some());
        assert_eq!(delivery.records.capacity(), 0);
    }
}
