//! The whole control on a path made of two numbers: so many bytes in a millisecond, and a round trip.

#![expect(clippy::disallowed_methods, reason = "any instant will do, to begin at")]

use std::collections::VecDeque;

use quickcheck::quickcheck;

use super::*;

const MTU: u64 = 1200;
const FIRST_MTU: u16 = 1200;
const MS: Duration = Duration::from_millis(1);

/// Sends whatever the window takes, or so much, and acknowledges it in turn.
struct Path {
    bbr: Bbr,
    now: Instant,
    /// Packets that it delivers in a millisecond.
    rate: u64,
    round_trip: u32,
    flying: VecDeque<(Instant, Instant)>,
    delivered: u64,
}

impl Path {
    fn new(rate: u64, round_trip: u32) -> Self {
        let now = Instant::now();
        let bbr = Bbr::new(now, FIRST_MTU);
        Self { bbr, now, rate, round_trip, flying: VecDeque::new(), delivered: 0 }
    }

    /// Lets so many milliseconds pass. In each of them the application has so many packets.
    fn run(&mut self, time: u32, packets: u64) -> u64 {
        let before = self.delivered;
        for _ in 0..time {
            let mut left = packets;
            while left > 0 && (self.flying.len() as u64 + 1) * MTU < self.bbr.window() {
                self.bbr.delivery.sent(self.now, MTU);
                self.flying.push_back((self.now, self.now + self.round_trip * MS));
                left -= 1;
            }
            self.now += MS;
            let mut acknowledged = 0;
            while acknowledged < self.rate && self.flying.front().is_some_and(|(_, at)| *at <= self.now) {
                if let Some((sent, _)) = self.flying.pop_front() {
                    self.bbr.delivery.acknowledged(sent, MTU, self.round_trip * MS);
                    acknowledged += 1;
                }
            }
            self.delivered += acknowledged;
            if acknowledged > 0 {
                let in_flight = self.flying.len() as u64 * MTU;
                self.bbr.acknowledged(self.now, in_flight, left == 0);
            }
            assert!(self.bbr.window() >= LEAST * self.bbr.mtu, "{:?}", self.bbr);
        }
        self.delivered - before
    }

    fn fill(&mut self, time: u32) -> u64 {
        self.run(time, u64::MAX)
    }

    /// Until it has looked for more, and has just begun to use what it found.
    fn rest(&mut self) {
        while !matches!(self.bbr.phase, Phase::Up { .. }) {
            self.fill(1);
        }
        while !matches!(self.bbr.phase, Phase::Cruise { .. }) {
            self.fill(1);
        }
    }

    fn lose(&mut self, bytes: u64, is_persistent: bool) {
        self.bbr.on_congestion_event(self.now, self.now, is_persistent, bytes);
    }
}

#[test]
fn it_fills_a_path_within_a_second_and_leaves_the_queue_short() {
    let mut path = Path::new(20, 50);
    path.fill(1000);
    let delivered = path.fill(10_000);
    assert!(delivered > 190_000, "{delivered} of 200,000");
    path.rest();
    let volume = 20 * 50 * MTU;
    let window = path.bbr.window();
    assert!((volume..volume * 3 / 2).contains(&window), "{window} of {volume}");
}

#[test]
fn a_tunnel_that_is_idle_or_slow_keeps_what_it_knows() {
    let mut path = Path::new(20, 50);
    path.fill(3000);
    let known = path.bbr.bandwidth();
    path.run(60_000, 0);
    path.run(60_000, 1);
    assert!(path.bbr.bandwidth() >= known.percent(95), "{:?} of {known:?}", path.bbr.bandwidth());
    assert!(path.fill(1000) > 18 * 1000, "at once");
}

#[test]
fn a_path_that_becomes_narrow_is_followed() {
    let mut path = Path::new(100, 50);
    path.fill(5000);
    path.rate = 10;
    path.fill(20_000);
    let volume = 10 * 50 * MTU;
    assert!(path.bbr.window() < volume * 2, "{} of {volume}", path.bbr.window());
}

#[test]
fn a_path_that_becomes_wide_is_followed() {
    let mut path = Path::new(10, 50);
    path.fill(5000);
    path.rate = 100;
    path.fill(10_000);
    assert!(path.fill(1000) > 95 * 1000);
}

#[test]
fn nothing_arrives_any_more() {
    let mut path = Path::new(20, 50);
    path.fill(3000);
    path.lose(100 * MTU, true);
    assert_eq!(path.bbr.window(), LEAST * MTU);
    path.fill(500);
    assert!(path.fill(1000) > 18 * 1000, "it is back");
}

#[test]
fn a_mark_and_much_loss_make_the_window_smaller_and_a_little_loss_does_not() {
    for (lost, marked, smaller) in [(9 * MTU, false, false), (150 * MTU, false, true), (0, true, true)] {
        let mut path = Path::new(20, 50);
        path.rest();
        path.fill(200);
        let before = path.bbr.window();
        for _ in 0..5 {
            if marked {
                path.lose(0, false);
            } else if lost > 0 {
                path.lose(lost, false);
            }
            path.fill(50);
        }
        assert_eq!(path.bbr.window() < before, smaller, "{lost} {marked}");
    }
}

#[test]
fn longer_datagrams_raise_the_least_window() {
    let mut bbr = Bbr::new(Instant::now(), 1200);
    bbr.on_mtu_update(8972);
    assert!(bbr.window() >= LEAST * 8972);
}

quickcheck! {
    /// Whatever is acknowledged, and when: no overflow, and never a window of nothing or without an end.
    fn no_peer_breaks_it(steps: Vec<(u8, u32, u64)>) -> bool {
        let mut now = Instant::now();
        let mut sent = now;
        let mut bbr = Bbr::new(now, 1200);
        steps.into_iter().all(|(what, time, bytes)| {
            match what % 6 {
                0 => { bbr.delivery.sent(now, bytes); sent = now; }
                1 => bbr.delivery.acknowledged(sent, bytes, Duration::from_nanos(time.into())),
                2 => bbr.acknowledged(now, bytes, time % 2 == 0),
                3 => bbr.on_congestion_event(now, sent, time % 2 == 0, bytes),
                4 => bbr.on_mtu_update(u16::try_from(bytes % 65_528).unwrap().max(FIRST_MTU)),
                _ => now += Duration::from_micros(time.into()),
            }
            (LEAST * 1200..=MOST).contains(&bbr.window()) && bbr.delivery.records() <= 64
        })
    }
}
