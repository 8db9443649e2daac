//! Names of tunnels that are never reused: the slot of a connection and the generation of that slot.

use std::fmt;

use quinn_proto::ConnectionHandle;

/// Names a tunnel of one endpoint. A stale one is caught; it never names another tunnel.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId {
    slot: usize,
    generation: u64,
}

impl TunnelId {
    /// A small number that no other living tunnel of the endpoint has, for tables of the caller's.
    pub fn slot(self) -> usize {
        self.slot
    }
}

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// Which generation lives in each slot.
#[derive(Debug, Default)]
pub(super) struct Ids {
    slots: Vec<Option<u64>>,
    next: u64,
}

impl Ids {
    pub(super) fn insert(&mut self, handle: ConnectionHandle) -> TunnelId {
        let generation = self.next;
        self.next += 1;
        let slot = handle.0;
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, None);
        }
        if let Some(entry) = self.slots.get_mut(slot) {
            *entry = Some(generation);
        }
        TunnelId { slot, generation }
    }

    pub(super) fn get(&self, handle: ConnectionHandle) -> Option<TunnelId> {
        let generation = (*self.slots.get(handle.0)?)?;
        Some(TunnelId { slot: handle.0, generation })
    }

    pub(super) fn handle(&self, id: TunnelId) -> Option<ConnectionHandle> {
        let handle = ConnectionHandle(id.slot);
        (self.get(handle) == Some(id)).then_some(handle)
    }

    pub(super) fn remove(&mut self, id: TunnelId) {
        if let Some(entry) = self.slots.get_mut(id.slot)
            && *entry == Some(id.generation)
        {
            *entry = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_an_earlier_tenant_of_the_slot_is_caught() {
        let mut ids = Ids::default();
        let first = ids.insert(ConnectionHandle(3));
        ids.remove(first);
        let second = ids.insert(ConnectionHandle(3));
        assert_eq!(ids.handle(first), None);
        assert_eq!(ids.handle(second), Some(ConnectionHandle(3)));
        ids.remove(first);
        assert_eq!(ids.get(ConnectionHandle(3)), Some(second));
    }

    #[test]
    fn a_slot_nobody_has_used_has_no_id() {
        assert_eq!(Ids::default().get(ConnectionHandle(7)), None);
    }
}
