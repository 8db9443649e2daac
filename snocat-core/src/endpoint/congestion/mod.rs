//! Congestion control: which one a path gets, and what quinn-proto needs of any: it lets the end of a connection pass, and
//! long datagrams do not stand in the way of short ones.
//!
//! quinn-proto holds CONNECTION_CLOSE back as it holds stream data back, for as long as there is such data. But
//! a connection that is closed takes no acknowledgements in any more, so the window would never open again: a
//! side that ends a tunnel in the middle of a transfer would go without a word.
//!
//! And quinn-proto sends a packet only if one of full length would fit into the window. In a window of two datagrams, which is
//! what CUBIC begins with where they are long, nothing fits beside a probe that is on its way: while the length is searched
//! for, every small thing to say would wait for a whole round trip.

mod bbr;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::{Connection, RttEstimator};

use self::bbr::Bbr;

/// How much a tunnel may have on its way: what it takes for congestion, and what it does then. Each side chooses for what it
/// sends; the peer does not learn of it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CongestionControl {
    /// Modelled on BBRv3 (draft-ietf-ccwg-bbr): measures what the path delivers and how long its way is without a queue, and
    /// has that much under way. Loss counts from 2 % on.
    #[default]
    Bbr,
    /// RFC 9438, as most TCP has it: sends more until something is lost. Each loss counts as congestion.
    Cubic,
}

/// Lets one more packet pass, whatever is in flight: call it right before the connection is closed.
pub(crate) fn let_the_end_pass(connection: &Connection) {
    if let Ok(control) = connection.congestion_state().clone_box().into_any().downcast::<Control>() {
        control.ending.store(true, Ordering::Relaxed);
    }
}

impl ControllerFactory for CongestionControl {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner: Box<dyn Controller> = match *self {
            Self::Bbr => Box::new(Bbr::new(now, current_mtu)),
            Self::Cubic => Arc::new(CubicConfig::default()).build(now, current_mtu),
        };
        Box::new(Control { inner, least: 0, ending: Arc::default() })
    }
}

/// Datagrams that are longer than those of Ethernet are rare, and their paths fast.
const LONG: u16 = 1472;
/// How many of those the window holds at least: a probe, one that is composed, and two that are on their way. TCP begins with
/// ten.
const WINDOW: u64 = 4;

struct Control {
    inner: Box<dyn Controller>,
    /// The window where datagrams are long, at least.
    least: u64,
    /// Shared by the clones: quinn-proto gives nothing but clones away.
    ending: Arc<AtomicBool>,
}

impl Controller for Control {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
        self.least = if new_mtu > LONG { WINDOW * u64::from(new_mtu) } else { 0 };
    }

    /// Nor is there pacing in a window as large as this.
    fn window(&self) -> u64 {
        if self.ending.load(Ordering::Relaxed) { u64::MAX } else { self.inner.window().max(self.least) }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), least: self.least, ending: self.ending.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
