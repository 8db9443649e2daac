//! What quinn-proto would keep without a bound for a peer that sends much of little: the tunnel ends instead.

use super::Tunnel;
use crate::code::{Code, Refusal};

/// Connection ids that the peer has retired and that were not replaced yet. It knows of eight at a time.
const CONNECTION_IDS: u64 = 64;

impl Tunnel {
    /// quinn-proto answers each connection id that the peer retires with a new one, and keeps those that it cannot send. A
    /// peer that acknowledges nothing could make it keep any number.
    pub(super) fn check_connection_ids(&mut self) {
        let stats = self.connection.stats();
        let unsent = stats.frame_rx.retire_connection_id.saturating_sub(stats.frame_tx.new_connection_id);
        if unsent > CONNECTION_IDS {
            self.close_with(Refusal::new(Code::LIMIT, "connection ids are retired before they are used"));
        }
    }

    /// A stranger that sends its few bytes in many frames makes quinn-proto keep a piece for each, and one that sends nothing
    /// but pings the packets that answer them.
    pub(super) fn check_early_frames(&mut self) {
        if !self.is_strangers() {
            return;
        }
        let stats = self.connection.stats();
        let frames = stats.frame_rx.crypto + stats.frame_rx.stream;
        if frames.max(stats.udp_rx.datagrams) > self.limits.early_frames.into() {
            self.close_with(Refusal::new(Code::LIMIT, "too many frames before the outcome"));
        }
    }
}
