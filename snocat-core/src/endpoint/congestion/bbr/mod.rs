//! A congestion control modelled on BBRv3 (draft-ietf-ccwg-bbr), within what quinn-proto lets one do.
//!
//! It measures what the path delivers and how long its way is without a queue, and has the product of the two under way. Now and
//! then it looks whether there is more of the one or less of the other.
//!
//! The draft paces, and has its window as a bound. quinn-proto paces by itself, at 1.25 windows a round trip, so here the
//! window is all there is: what the draft does by a rate is done by the window that leads to it. [`phase`] has which that is.
//!
//! It trusts a peer with nothing: what counts is what was sent and is acknowledged, over the time that sending it took. A peer that
//! acknowledges what it has not received gets as much as from any other congestion control.

mod bandwidth;
mod bounds;
mod delivery;
mod min_rtt;
mod phase;
mod round;

use std::any::Any;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::Controller;

use self::bandwidth::{Bandwidth, MaxBandwidth};
use self::bounds::Bounds;
use self::delivery::Delivery;
use self::min_rtt::MinRtt;
use self::phase::Phase;
use self::round::{Loss, Round};

/// What a path begins with, as TCP does (RFC 6928).
const INITIAL_WINDOW: u64 = 14_720;
/// Packets under way at least: fewer, and a lost one is not noticed by those behind it.
const LEAST: u64 = 4;
/// Far below the 4 GiB from which on quinn-proto does not pace any more.
const MOST: u64 = 1 << 30;

fn percent(value: u64, percent: u64) -> u64 {
    (value / 100).saturating_mul(percent).saturating_add(value % 100 * percent / 100)
}

#[derive(Clone, Debug)]
pub(super) struct Bbr {
    delivery: Delivery,
    max_bandwidth: MaxBandwidth,
    min_rtt: MinRtt,
    round: Round,
    loss: Loss,
    bounds: Bounds,
    phase: Phase,
    /// The least round trip since it was last looked for. The queue that others keep is in it.
    shared_rtt: Duration,
    /// Whether the last look for more lost packets.
    overflowed: bool,
    window: u64,
    mtu: u64,
}

impl Bbr {
    pub(super) fn new(now: Instant, mtu: u16) -> Self {
        Self {
            delivery: Delivery::new(now),
            max_bandwidth: MaxBandwidth::default(),
            min_rtt: MinRtt::default(),
            round: Round::EMPTY,
            loss: Loss::default(),
            bounds: Bounds::NONE,
            phase: Phase::BEGINNING,
            shared_rtt: Duration::MAX,
            overflowed: false,
            window: INITIAL_WINDOW,
            mtu: mtu.into(),
        }
    }

    fn bandwidth(&self) -> Bandwidth {
        let known = self.max_bandwidth.get();
        self.bounds.bandwidth().map_or(known, |bound| known.min(bound))
    }

    /// All that one acknowledgement covers has been told.
    fn acknowledged(&mut self, now: Instant, in_flight: u64, app_limited: bool) {
        let Some(sample) = self.delivery.sample(now, in_flight, app_limited) else { return };
        let look = self.min_rtt.update(now, sample.rtt);
        self.shared_rtt = self.shared_rtt.min(sample.rtt);
        self.round.add(&sample);
        self.max_bandwidth.update(sample.bandwidth, sample.app_limited);
        self.step(now, &sample, look);

        let wanted = self.wanted();
        let grown = self.window.saturating_add(sample.acknowledged).min(wanted);
        let is_beginning = matches!(self.phase, Phase::Startup { .. });
        self.window = if is_beginning { grown.max(self.window) } else { grown };
        self.window = self.window.clamp(LEAST * self.mtu, MOST);
    }
}

impl Controller for Bbr {
    fn on_sent(&mut self, now: Instant, bytes: u64, _: u64) {
        self.delivery.sent(now, bytes);
    }

    fn on_ack(&mut self, _: Instant, sent: Instant, bytes: u64, _: bool, rtt: &RttEstimator) {
        self.delivery.acknowledged(sent, bytes, rtt.get());
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _: Option<u64>) {
        self.acknowledged(now, in_flight, app_limited);
    }

    fn on_congestion_event(&mut self, _: Instant, _: Instant, is_persistent: bool, lost_bytes: u64) {
        if lost_bytes == 0 {
            self.loss.mark();
        }
        self.loss.add(lost_bytes);
        if is_persistent {
            self.window = LEAST * self.mtu;
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.window = self.window.max(LEAST * self.mtu);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests;
