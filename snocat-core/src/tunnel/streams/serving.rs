//! Whether anything serves the streams that the peer offers: if nothing does, the peer learns it at once.

use std::time::Instant;

use super::{Deadline, Event, Stage, Stream, StreamId, Tunnel};
use crate::code::{Code, Refusal};

/// Whether this side serves the streams that its peer offers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Serving {
    /// Offers wait for a decision as long as a target may take to answer ([`Limits::dial_time`](crate::Limits::dial_time)).
    Yes,
    /// The application has not begun to serve yet. After [`Limits::serve_time`](crate::Limits::serve_time) this becomes
    /// [`No`](Self::No).
    NotYet,
    /// Offers are refused at once with [`Code::NOT_SERVED`].
    No,
}

pub(super) fn not_served() -> Refusal {
    Refusal::new(Code::NOT_SERVED, "this side serves no streams")
}

impl Tunnel {
    /// Says whether this side serves the streams that the peer offers; a tunnel begins with [`Serving::Yes`].
    pub fn set_serving(&mut self, now: Instant, serving: Serving) {
        if self.serving == serving || self.is_closed() {
            return;
        }
        self.serving = serving;
        self.deadlines.retain(|(_, deadline)| *deadline != Deadline::Serving);
        match serving {
            // Nothing follows from it now.
            Serving::Yes => {}
            Serving::NotYet => {
                self.touch(now);
                self.wait_for_service();
            }
            Serving::No => {
                self.touch(now);
                self.refuse_offers();
            }
        }
    }

    /// Gives the application, once there is a tunnel, the time to begin to serve.
    pub(in crate::tunnel) fn wait_for_service(&mut self) {
        if self.serving == Serving::NotYet && self.is_established() {
            self.deadlines.insert((self.now + self.limits.serve_time, Deadline::Serving));
        }
    }

    fn refuse_offers(&mut self) {
        let offered =
            |(id, stream): (&StreamId, &Stream)| matches!(stream.stage, Stage::Offered).then_some(*id);
        for id in self.streams.iter().filter_map(offered).collect::<Vec<_>>() {
            let _it_is_an_offer = self.refuse(self.now, id, not_served());
            self.events.push_back(Event::OpenCancelled { stream: id });
        }
    }
}
