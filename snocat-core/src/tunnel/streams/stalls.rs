//! Bytes that lie unread: what makes the connection's window grow, and which stream has to go when it cannot.
//!
//! A stream is *stalled* once it has had unread bytes for one stall time without a break, whether nobody reads
//! it or somebody slowly does: both keep bytes in the connection's window. Only one that nobody has read for that
//! long is ever ended for it, and only when the peer says that it is stuck.

use super::super::window::Adjust;
use super::{Deadline, Event, Notices, Stage, StreamId, Tunnel};
use crate::code::Code;

impl Tunnel {
    pub(in super::super) fn forget_notice(
        &mut self,
        id: StreamId,
        notice: impl Fn(&mut Notices) -> &mut bool,
    ) {
        if let Some(stream) = self.streams.get_mut(&id) {
            *notice(&mut stream.notices) = false;
        }
    }

    pub(super) fn notify_readable(&mut self, id: StreamId) {
        self.note_unread(id);
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.read_done
            && !std::mem::replace(&mut stream.notices.readable, true)
        {
            self.events.push_back(Event::Readable { stream: id });
        }
    }

    pub(super) fn note_unread(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.read_done {
            return;
        }
        if stream.unread_since.is_none() {
            stream.unread_since = Some(self.now);
            stream.moved = self.now;
        }
        if !std::mem::replace(&mut stream.watched, true) {
            self.deadlines.insert((self.now + self.limits.stall_time, Deadline::Stall(id)));
        }
    }

    /// Looks, one stall time after bytes came, whether some have lain there ever since. One look at a time is
    /// planned for a stream, so that reading costs nothing.
    pub(in super::super) fn look_at_unread(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.watched = false;
        let Some(since) = stream.unread_since else { return };
        let due = since + self.limits.stall_time;
        if due > self.now {
            stream.watched = true;
            self.deadlines.insert((due, Deadline::Stall(id)));
            return;
        }
        if stream.stalled.is_some() {
            return;
        }
        stream.stalled = Some(stream.moved);
        // One that waits for its decision makes the window larger, but it has a deadline of its own.
        if !matches!(stream.stage, Stage::Offered) {
            self.stalled.insert((stream.moved, id));
        }
        let adjust = self.window.stall();
        if adjust.set.is_some() {
            // What the peer has said about the smaller window is no longer true.
            self.peer_blocked = self.connection.stats().frame_rx.data_blocked;
        }
        self.adjust(&adjust);
    }

    /// An offered stream that had stalled is the application's from here on.
    pub(super) fn stalled_offer_accepted(&mut self, id: StreamId) {
        if let Some(moved) = self.streams.get(&id).and_then(|stream| stream.stalled) {
            self.stalled.insert((moved, id));
        }
    }

    /// If the window has no room left to grow and the peer says that it is stuck, ends the stream that nobody has
    /// read for longest. Many stalled streams with few bytes each are no reason to end any.
    pub(in super::super) fn relieve(&mut self) {
        if !self.window.is_raised() {
            return;
        }
        let blocked = self.connection.stats().frame_rx.data_blocked;
        if blocked == self.peer_blocked {
            return;
        }
        if self.window.is_full() {
            let Some(longest) = self.longest_unread() else { return };
            self.end_stalled(longest);
        }
        self.peer_blocked = blocked;
        // Without anything to tell it would get a byte, and say the same again.
        if self.window.take_unannounced() {
            self.announce();
        }
    }

    /// The stalled stream that was read least lately, if that is a stall time ago; otherwise it is looked for again
    /// then.
    fn longest_unread(&mut self) -> Option<StreamId> {
        while let Some(&(at, id)) = self.stalled.first() {
            let moved = self.streams.get(&id).map_or(at, |stream| stream.moved);
            if moved == at {
                let due = at + self.limits.stall_time;
                if due <= self.now {
                    return Some(id);
                }
                self.deadlines.insert((due, Deadline::Relief));
                return None;
            }
            // It was read since: its place is further back.
            self.stalled.remove(&(at, id));
            self.stalled.insert((moved, id));
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.stalled = Some(moved);
            }
        }
        None
    }

    /// Ends a stream whose bytes nobody reads, because the tunnel has no room left for them.
    fn end_stalled(&mut self, id: StreamId) {
        tracing::debug!(tunnel = %self.id, stream = %id, "reset a stalled stream");
        self.reset_half(id, Code::STALLED);
        self.stop_half(id, Code::STALLED);
        self.remove(id);
        self.events.push_back(Event::Stalled { stream: id });
    }

    /// The application has read `bytes`; `drained` says that nothing is left.
    pub(super) fn was_read(&mut self, id: StreamId, bytes: u64, drained: bool) {
        if drained {
            self.unstall(id);
        } else if let Some(stream) = self.streams.get_mut(&id)
            && bytes > 0
        {
            stream.moved = self.now;
        }
        let adjust = self.window.read(bytes);
        self.adjust(&adjust);
    }

    /// Nothing of the stream lies unread any more.
    pub(super) fn unstall(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.unread_since = None;
        if let Some(at) = stream.stalled.take() {
            self.stalled.remove(&(at, id));
            self.window.unstall();
        }
    }

    /// Tells the peer of all the credit there is. quinn-proto waits for an eighth of the window, and stalled
    /// streams may hold more of it than that leaves.
    pub(super) fn announce(&mut self) {
        if self.window.is_raised() {
            self.adjust(&Adjust { set: None, announce: true });
        }
    }

    fn adjust(&mut self, adjust: &Adjust) {
        if !self.is_established() {
            return;
        }
        if let Some(bytes) = adjust.set {
            self.set_window(bytes);
            self.transmit_due = true;
        }
        if adjust.announce {
            // Growing is what quinn-proto announces at once; the byte is taken back by the next read.
            let target = self.window.target();
            self.set_window(target + 1);
            self.set_window(target);
            self.transmit_due = true;
        }
    }
}
