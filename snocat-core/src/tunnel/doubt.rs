//! A peer that its own host says is gone: when that is believed.
//!
//! Anybody on the way can forge what a host says (an ICMP message), so by itself it ends nothing. The tunnel asks the peer for
//! a sign of life meanwhile. It is lost if there is none and the attempts are refused as well.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{CloseReason, ClosedBy, Deadline, Phase, Role, Tunnel, varint};
use crate::code::Code;
use crate::endpoint::let_the_end_pass;

/// The peer's host has said that the peer is gone.
#[derive(Debug)]
pub(super) struct Doubt {
    /// Datagrams that had come from the peer before. One more is a sign of life.
    heard: u64,
    first: Instant,
    last: Instant,
}

/// What follows from a doubt.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The peer lives, or nobody says any longer that it is gone.
    Dismissed,
    /// It is too early to tell.
    Open,
    /// The peer is gone.
    Confirmed,
}

impl Doubt {
    const fn new(now: Instant, heard: u64) -> Self {
        Self { heard, first: now, last: now }
    }

    /// The peer's host says so again.
    const fn repeat(&mut self, now: Instant) {
        self.last = now;
    }

    /// Decides, when so many datagrams have come from the peer, and it has had `patience` to send one.
    fn judge(&self, now: Instant, heard: u64, patience: Duration) -> Verdict {
        if heard != self.heard {
            Verdict::Dismissed
        } else if now < self.first + patience {
            Verdict::Open
        } else if self.last >= self.first + patience / 2 {
            Verdict::Confirmed
        } else {
            // The attempts were not refused: the network is down, and only the idle time ends the tunnel.
            Verdict::Dismissed
        }
    }
}

impl Tunnel {
    /// Takes in that the peer's host says that nothing listens at the peer's address: an ICMP message, port unreachable.
    /// What a router says about the way, such as host unreachable, is no reason to call this.
    ///
    /// Anybody on the way can forge it, so by itself it ends nothing. The tunnel asks the peer for a sign of life, and again
    /// each [`Limits::probe_interval`](crate::Limits::probe_interval). The tunnel is lost if there is none for
    /// [`Limits::probe_time`](crate::Limits::probe_time) and this is called again meanwhile, because the attempts are refused as
    /// well. If they are not, the network is down, and only the idle time ends the tunnel.
    ///
    /// An attempt to connect that has heard nothing from the peer is given up after
    /// [`Limits::refusal_time`](crate::Limits::refusal_time).
    pub fn probe(&mut self, now: Instant) {
        let heard = self.datagrams_heard();
        let is_asked = match self.phase {
            Phase::Established => true,
            Phase::Handshake(Role::Connecting { .. }) => heard == 0,
            _ => false,
        };
        if !is_asked {
            return;
        }
        self.touch(now);
        match &mut self.doubt {
            Some(doubt) => doubt.repeat(self.now),
            None => {
                self.doubt = Some(Doubt::new(self.now, heard));
                self.ask_for_life();
            }
        }
    }

    /// Looks whether the sign of life has come.
    pub(super) fn look_for_life(&mut self) {
        let Some(doubt) = &self.doubt else { return };
        let patience = if self.is_established() {
            // Several attempts must have had the time to reach the peer, however far away it is.
            self.limits.probe_time.max(self.connection.rtt() * 8)
        } else {
            Duration::ZERO
        };
        match doubt.judge(self.now, self.datagrams_heard(), patience) {
            Verdict::Dismissed => self.doubt = None,
            Verdict::Open => self.ask_for_life(),
            Verdict::Confirmed => {
                let_the_end_pass(&self.connection);
                self.connection.close(self.now, varint(Code::TIMEOUT), Bytes::new());
                self.closed(CloseReason { by: ClosedBy::Idle, code: Code::TIMEOUT, text: String::new() });
                self.collect_endpoint_events();
            }
        }
    }

    /// Asks the peer for a sign of life, and plans the look whether it came.
    fn ask_for_life(&mut self) {
        let interval = if self.is_established() {
            self.connection.ping();
            self.limits.probe_interval
        } else {
            self.limits.refusal_time
        };
        self.deadlines.insert((self.now + interval, Deadline::Probe));
    }

    fn datagrams_heard(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    fn a_doubt_is_confirmed_by_silence_and_repetition_together() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut doubt = Doubt::new(start, 7);
        assert_eq!(doubt.judge(at(9), 7, PATIENCE), Verdict::Open);
        assert_eq!(doubt.judge(at(9), 8, PATIENCE), Verdict::Dismissed, "a sign of life");
        assert_eq!(doubt.judge(at(10), 7, PATIENCE), Verdict::Dismissed, "it was said only once");
        doubt.repeat(at(5));
        assert_eq!(doubt.judge(at(10), 7, PATIENCE), Verdict::Confirmed);
        assert_eq!(doubt.judge(at(10), 8, PATIENCE), Verdict::Dismissed);
    }
}
