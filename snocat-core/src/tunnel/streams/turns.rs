//! In which order streams write that have to wait for each other.
//!
//! All streams of a tunnel share the credit of the connection, and the memory for what is unacknowledged. When there is some
//! again, quinn-proto tells those that wait in the reverse order of their asking. Whoever is told first takes what there is: of
//! many busy streams some would get next to nothing. Here the one that has waited longest is told first.

use super::{StreamId, Tunnel};

impl Tunnel {
    /// Nothing of this stream is taken now. It keeps its place until something is.
    pub(super) fn wait_to_write(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.waits.is_none()
        {
            stream.waits = Some(self.waited);
            self.waited += 1;
        }
    }

    /// So many bytes of this stream were taken: next time it waits behind the others.
    pub(super) fn has_written(&mut self, id: StreamId, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.cutoff.has_written(bytes);
            stream.waits = None;
        }
    }

    /// These may write again.
    pub(in super::super) fn give_turns(&mut self, mut streams: Vec<StreamId>) {
        if self.is_closed() {
            return;
        }
        streams.sort_by_key(|id| self.streams.get(id).and_then(|stream| stream.waits));
        for id in streams {
            self.writable(id);
        }
    }
}
