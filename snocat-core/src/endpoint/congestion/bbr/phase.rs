//! What the window is for, and when that changes.
//!
//! ```text
//! Startup ──▶ Down ──▶ Cruise ──▶ Up
//!              ▲ ▲                 │
//!              │ └─────────────────┘
//!           ProbeRtt ◀── from all but Startup, if no round trip was short for long
//! ```

use std::time::{Duration, Instant};

use super::bandwidth::Bandwidth;
use super::delivery::Sample;
use super::round::Round;
use super::{Bbr, LEAST, percent};

/// What may be under way on top, as time at the bandwidth: two programs with timers of a millisecond need it to keep a path busy.
const SLACK: Duration = Duration::from_millis(2);
/// The same in packets, at least: a peer acknowledges every second one.
const SLACK_PACKETS: u64 = 3;

/// How long what is known is used before looking for more; up to so much longer, drawn from what was delivered, so that two
/// tunnels do not look at the same time.
const CYCLE: Duration = Duration::from_secs(2);
/// In microseconds.
const CYCLE_SPREAD: u64 = 1_000_000;

/// Growth of a round that is some, in percent; rounds without any that end the beginning.
const GROWTH: u64 = 125;
const ROUNDS_WITHOUT_GROWTH: u32 = 3;

/// With how many packets more it begins to look for more.
const FIRST_STEP: u64 = 4;
/// The most that it adds, in percent of what is known. What a look finds depends on who else looks at that moment. With 125, the shares
/// of eight tunnels differ by a third. With 50, a newcomer beside three others takes more than half a minute to come level.
const MOST_MORE: u64 = 75;

/// Rounds until CUBIC has regained what one loss took from it, in percent of the packets in its window: it gives up 0.3 of
/// them, and adds 0.53 in a round (RFC 9438, section 4.3).
const REGAIN: u64 = 57;
/// The longest wait for that, so that a fast path is not left unused. The draft waits at most 63 rounds, for Reno: at 50 ms three
/// seconds, after which CUBIC keeps a fifth of 100 Mbit/s on a queue of 2 ms. After six it keeps a third.
const MOST_WAIT: Duration = Duration::from_secs(6);

/// How long little is under way, to look for the shortest round trip (`BBR.ProbeRTTDuration`).
const PROBE_RTT: Duration = Duration::from_millis(200);
/// So little, in percent of what is known. The draft has a half. But a tunnel that began when there was a queue knows too much by that
/// queue: a half moves it so little that others do not notice, and then they do not look at the same time.
const PROBE_RTT_WINDOW: u64 = 25;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Doubles, until the bandwidth does not follow.
    Startup { grown_to: Bandwidth, rounds_without_growth: u32 },
    /// Lets the queue go that was made. With the window with which more was looked for, until it is known whether that filled the
    /// path.
    Down { first_round: bool, looked: Option<u64> },
    /// Uses what is known.
    Cruise { until: Instant },
    /// Looks for more: adds bytes that double with each round. With the round trip of its first round.
    Up { more: u64, rtt: Option<Duration> },
    /// Looks for the shortest round trip. The time and the round that it takes count from when no more than wanted is under
    /// way: a queue of seconds takes seconds to drain.
    ProbeRtt { until: Option<Instant>, first_round: bool },
}

impl Phase {
    pub(super) const BEGINNING: Self = Self::Startup { grown_to: Bandwidth::ZERO, rounds_without_growth: 0 };
}

impl Bbr {
    /// The window that the phase wants.
    pub(super) fn wanted(&self) -> u64 {
        let alone = self.bandwidth().during(self.min_rtt.get());
        match self.phase {
            Phase::Startup { .. } => alone.saturating_mul(2).saturating_add(self.slack()),
            Phase::Down { .. } => alone.saturating_add(self.slack()).min(self.bounds.using()),
            Phase::Cruise { .. } => self.shared().saturating_add(self.slack()).min(self.bounds.using()),
            Phase::Up { more, .. } => {
                let more = more.min(percent(self.shared(), MOST_MORE));
                self.shared().saturating_add(self.slack()).saturating_add(more).min(self.bounds.looking())
            }
            Phase::ProbeRtt { .. } => percent(alone, PROBE_RTT_WINDOW),
        }
    }

    /// What keeps the bandwidth beside others that have filled the queue; at most twice what it needs alone.
    fn shared(&self) -> u64 {
        self.bandwidth().during(self.shared_rtt.min(2 * self.min_rtt.get()))
    }

    /// Whether the path limits what is sent, and not the application. Nor does an application limit it that has more under way than
    /// the path needs: a peer's flow control holds it back, and its queue is as long as that allows.
    fn limits(&self, sample: &Sample) -> bool {
        !sample.app_limited || sample.in_flight > self.bandwidth().during(self.min_rtt.get())
    }

    fn slack(&self) -> u64 {
        self.bandwidth().during(SLACK).max(SLACK_PACKETS * self.mtu)
    }

    /// A sample has been taken. `look` says that it is time to look for the shortest round trip.
    pub(super) fn step(&mut self, now: Instant, sample: &Sample, look: bool) {
        let may_look = !matches!(self.phase, Phase::Startup { .. } | Phase::ProbeRtt { .. });
        if look && may_look && self.limits(sample) {
            self.phase = Phase::ProbeRtt { until: None, first_round: true };
        }
        if sample.ends_round {
            let round = std::mem::replace(&mut self.round, Round::EMPTY);
            let full = self.loss.judge(&round, self.mtu);
            let limits = self.limits(sample);
            self.end_round(&round, full, limits);
        }
        match self.phase {
            Phase::Down { first_round: false, .. } if sample.in_flight <= self.wanted() => {
                self.phase = Phase::Cruise { until: now + self.cycle() };
            }
            Phase::Cruise { until } if now >= until => {
                self.bounds.forget_low();
                self.loss.learn(self.mtu);
                self.phase = Phase::Up { more: FIRST_STEP * self.mtu, rtt: None };
            }
            Phase::ProbeRtt { until: None, .. }
                if sample.in_flight <= self.wanted().max(LEAST * self.mtu) =>
            {
                self.phase = Phase::ProbeRtt { until: Some(now + PROBE_RTT), first_round: true };
            }
            Phase::ProbeRtt { until: Some(until), first_round: false } if now >= until => self.let_go(None),
            _ => {}
        }
    }

    fn end_round(&mut self, round: &Round, full: bool, limits: bool) {
        match self.phase {
            Phase::Startup { mut grown_to, mut rounds_without_growth } => {
                let known = self.max_bandwidth.get();
                if known >= grown_to.percent(GROWTH) {
                    (grown_to, rounds_without_growth) = (known, 0);
                } else if limits && round.least_rtt > self.min_rtt.get() * 5 / 4 {
                    // Without a queue it is not the path that holds the bandwidth down, but what is lost while the length
                    // of datagrams is searched for, or a peer that takes no more.
                    rounds_without_growth += 1;
                }
                self.phase = Phase::Startup { grown_to, rounds_without_growth };
                if full {
                    self.found(round);
                } else if rounds_without_growth == ROUNDS_WITHOUT_GROWTH {
                    self.let_go(Some(self.window));
                }
            }
            // What is lost in its first round was sent before.
            Phase::Up { more, rtt: None } => self.phase = Phase::Up { more, rtt: Some(round.least_rtt) },
            Phase::Up { .. } if full => self.found(round),
            Phase::Up { more, rtt: Some(rtt) } => {
                if self.bounds.looking() <= self.window {
                    self.bounds.raise(more);
                }
                // The growth of the queue, and not that of the bandwidth, ends it: so those who have little add as many bytes
                // as those who have much, and come level with them.
                let queue = (self.min_rtt.get() / 4).max(SLACK);
                if round.least_rtt > rtt.saturating_add(queue) || more > 4 * percent(self.shared(), MOST_MORE)
                {
                    self.let_go(Some(self.window));
                } else {
                    self.phase = Phase::Up { more: more.saturating_mul(2), rtt: Some(rtt) };
                }
            }
            Phase::Down { first_round: true, looked } => {
                if let Some(window) = looked.filter(|_| full) {
                    self.bounds.found(window, round);
                    self.overflowed = true;
                }
                self.loss.rest();
                self.phase = Phase::Down { first_round: false, looked: None };
            }
            Phase::Down { .. } | Phase::Cruise { .. } if full => {
                self.bounds.narrowed(self.max_bandwidth.get(), self.window, round);
            }
            Phase::Down { .. } | Phase::Cruise { .. } => {}
            Phase::ProbeRtt { until, .. } => {
                self.phase = Phase::ProbeRtt { until, first_round: until.is_none() };
            }
        }
    }

    /// Looking for more has filled the path.
    fn found(&mut self, round: &Round) {
        self.bounds.found(self.window, round);
        self.let_go(None);
        self.overflowed = true;
    }

    fn let_go(&mut self, looked: Option<u64>) {
        self.max_bandwidth.advance();
        self.overflowed = false;
        // Others that have the same control drain the queue at the same time. What is left then was filled by somebody else.
        if matches!(self.phase, Phase::Startup { .. } | Phase::ProbeRtt { .. }) {
            self.shared_rtt = Duration::MAX;
        }
        self.phase = Phase::Down { first_round: true, looked };
    }

    /// A look that made the queue overflow has cost others a loss, too: CUBIC gets the time to regain that. With many tunnels
    /// the window is small, and so is the wait: they come level soon.
    fn cycle(&self) -> Duration {
        let drawn = self.delivery.delivered().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let spread = Duration::from_micros((drawn * CYCLE_SPREAD) >> 24);
        if !self.overflowed {
            return CYCLE + spread;
        }
        let rounds = percent(self.window / self.mtu, REGAIN);
        let wait = self.min_rtt.get().saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
        wait.clamp(CYCLE, MOST_WAIT) + spread
    }
}
