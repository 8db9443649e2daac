//! Congestion control: CUBIC as quinn-proto has it, except that it lets the end of a connection pass.
//!
//! quinn-proto holds CONNECTION_CLOSE back as it holds stream data back, for as long as there is such data. But
//! a connection that is closed takes no acknowledgements in any more, so the window would never open again: a
//! side that ends a tunnel in the middle of a transfer would go without a word.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::{Connection, RttEstimator};

/// Lets one more packet pass, whatever is in flight: call it right before the connection is closed.
pub(crate) fn let_the_end_pass(connection: &Connection) {
    if let Ok(control) = connection.congestion_state().clone_box().into_any().downcast::<Control>() {
        control.ending.store(true, Ordering::Relaxed);
    }
}

/// Makes the congestion control of a path.
#[derive(Debug)]
pub(super) struct Congestion;

impl ControllerFactory for Congestion {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::new(CubicConfig::default()).build(now, current_mtu);
        Box::new(Control { inner, ending: Arc::default() })
    }
}

struct Control {
    inner: Box<dyn Controller>,
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
    }

    /// Nor is there pacing in a window as large as this.
    fn window(&self) -> u64 {
        if self.ending.load(Ordering::Relaxed) { u64::MAX } else { self.inner.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), ending: self.ending.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
