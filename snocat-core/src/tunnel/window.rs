//! How much the peer may send in all, so that streams nobody reads never block those that move.
//!
//! quinn-proto gives connection credit back only when the application reads: a few visitors that stop
//! reading would stop the whole tunnel. So the window grows by one stream window for each stream that stalls,
//! up to a bound, and shrinks again while the application reads.
//!
//! Shrinking leaves a debt in quinn-proto that later reads pay. It happens in steps of at most what was just
//! read: the debt stays below one read, and a visitor that reads a byte a second cannot make the window
//! grow again and again.

/// What to do with quinn-proto's window.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Adjust {
    /// Set it to this many bytes.
    pub(super) set: Option<u64>,
    /// Tell the peer at once. quinn-proto waits for an eighth of the window, most of which stalled streams may
    /// hold.
    pub(super) announce: bool,
}

/// The connection's receive window.
#[derive(Debug)]
pub(super) struct Window {
    base: u64,
    step: u64,
    extra: u64,
    stalled: u64,
    target: u64,
    unannounced: u64,
}

impl Window {
    /// `base` bytes for streams that move, `step` more for each that stalls, at most `extra` more in all.
    pub(super) fn new(base: u64, step: u64, extra: u64) -> Self {
        Self { base, step, extra, stalled: 0, target: base, unannounced: 0 }
    }

    /// Whether one more stalled stream would exceed the bound.
    pub(super) fn is_full(&self) -> bool {
        (self.stalled + 1).saturating_mul(self.step) > self.extra
    }

    /// Whether it is larger than what the streams that move have.
    pub(super) fn is_raised(&self) -> bool {
        self.target != self.base
    }

    /// Whether bytes were read that the peer has not been told of. Asking counts as telling.
    pub(super) fn take_unannounced(&mut self) -> bool {
        std::mem::take(&mut self.unannounced) > 0
    }

    /// One stream more is stalled. Returns the new window.
    pub(super) fn stall(&mut self) -> Adjust {
        self.stalled += 1;
        if self.wanted() <= self.target {
            return Adjust::default();
        }
        self.target = self.wanted();
        Adjust { set: Some(self.target), announce: false }
    }

    /// One stream fewer is stalled. The window follows as bytes are read.
    pub(super) fn unstall(&mut self) {
        self.stalled = self.stalled.saturating_sub(1);
    }

    /// The application has read `bytes`.
    pub(super) fn read(&mut self, bytes: u64) -> Adjust {
        if !self.is_raised() {
            return Adjust::default();
        }
        let shrink = (self.target - self.wanted()).min(bytes);
        self.target -= shrink;
        self.unannounced += bytes;
        let announce = self.unannounced >= self.base / 8;
        if announce {
            self.unannounced = 0;
        }
        Adjust { set: (shrink > 0).then_some(self.target), announce }
    }

    /// The window in force.
    pub(super) fn target(&self) -> u64 {
        self.target
    }

    fn wanted(&self) -> u64 {
        self.base + self.stalled.saturating_mul(self.step).min(self.extra)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bytes: u64) -> Adjust {
        Adjust { set: Some(bytes), announce: false }
    }

    #[test]
    fn each_stalled_stream_adds_one_step_up_to_the_bound() {
        let mut window = Window::new(160, 40, 100);
        assert_eq!(window.stall(), set(200));
        assert_eq!(window.stall(), set(240));
        assert!(window.is_full());
        assert_eq!(window.stall(), set(260));
        assert_eq!(window.stall(), Adjust::default());
    }

    #[test]
    fn it_shrinks_no_faster_than_bytes_are_read() {
        let mut window = Window::new(160, 40, 100);
        let _ = window.stall();
        window.unstall();
        assert_eq!(window.target(), 200);
        assert_eq!(window.read(15), set(185));
        assert_eq!(window.read(100), Adjust { set: Some(160), announce: true });
        assert_eq!(window.read(100), Adjust::default());
    }

    #[test]
    fn a_visitor_that_reads_one_byte_at_a_time_gains_nothing() {
        let mut window = Window::new(160, 40, 100);
        for _ in 0..1000 {
            let _ = window.stall();
            assert_eq!(window.target(), 200);
            window.unstall();
            let _ = window.read(1);
        }
    }

    #[test]
    fn credit_is_announced_by_the_base_however_large_the_window_is() {
        let mut window = Window::new(160, 40, 1000);
        for _ in 0..20 {
            let _ = window.stall();
        }
        assert!(!window.read(19).announce);
        assert!(window.read(1).announce);
        assert!(!window.take_unannounced());
        assert!(!window.read(1).announce);
        assert!(window.take_unannounced());
    }
}
