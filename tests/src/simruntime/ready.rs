//! The readiness of one direction of a socket, as a reactor tells it.

use std::task::{Context, Poll, Waker};

use snocat_driver::Direction;

use super::state::{Event, State};

/// One direction of a socket.
#[derive(Default)]
pub(super) struct Ready {
    /// The reactor has told that it is ready, and nothing has shown since that it is not.
    pub(super) known: bool,
    /// Whoever waits: one task alone.
    pub(super) waker: Option<Waker>,
    /// The reactor is about to look.
    coming: bool,
}

impl State {
    /// Something has become of a socket, so that it may be ready.
    pub(super) fn stir(&mut self, socket: u64, direction: Direction) {
        let remembers = self.machines.remembers_readiness;
        let Some(ready) = self.sockets.get_mut(&socket).map(|socket| socket.ready_mut(direction)) else {
            return;
        };
        if ready.coming || !(remembers || ready.waker.is_some()) {
            return;
        }
        ready.coming = true;
        let after = self.moment();
        self.schedule(after, Event::Reactor(socket, direction));
    }

    /// The reactor looks at a socket.
    pub(super) fn react(&mut self, socket: u64, direction: Direction) {
        let remembers = self.machines.remembers_readiness;
        let is_ready = self.is_ready(socket, direction);
        let Some(ready) = self.sockets.get_mut(&socket).map(|socket| socket.ready_mut(direction)) else {
            return;
        };
        ready.coming = false;
        if remembers || is_ready {
            ready.known = true;
            ready.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Whether an operation is to be tried at all: tokio does not try one on a socket that is not known to be
    /// ready.
    pub(super) fn may_try(&self, socket: u64, direction: Direction) -> bool {
        let known = self.sockets.get(&socket).is_some_and(|socket| socket.ready(direction).known);
        known || !self.machines.remembers_readiness
    }

    /// An operation would have blocked.
    pub(super) fn would_block(&mut self, socket: u64, direction: Direction) -> std::io::Error {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.ready_mut(direction).known = false;
        }
        std::io::ErrorKind::WouldBlock.into()
    }

    pub(super) fn poll_ready(
        &mut self,
        socket: u64,
        direction: Direction,
        context: &Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        let remembers = self.machines.remembers_readiness;
        let is_ready = self.is_ready(socket, direction);
        let Some(ready) = self.sockets.get_mut(&socket).map(|socket| socket.ready_mut(direction)) else {
            return Poll::Ready(Err(std::io::ErrorKind::NotConnected.into()));
        };
        if ready.known {
            // async-io asks its reactor anew each time.
            ready.known = remembers;
            return Poll::Ready(Ok(()));
        }
        ready.waker = Some(context.waker().clone());
        if is_ready && !remembers {
            self.stir(socket, direction);
        }
        Poll::Pending
    }
}
