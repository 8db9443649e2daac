//! What nodes tell, compared with what must be true.

use std::net::SocketAddr;

use snocat_core::auth::{Claim, Outcome};
use snocat_core::{BindingId, CloseReason, ClosedBy, Code, Event, Refusal, StreamId, Ticket};

use super::act::{admitted_name, binding_address};
use super::run::Run;
use super::streams::refusal;
use super::*;
use crate::hold;
use crate::model::{Check, End, Key, Method, Phase, Seat};

impl Run<'_> {
    /// One event of a tunnel.
    pub(super) fn event(&mut self, key: Key, event: Event) -> Check {
        self.note_stranger(key, &event)?;
        if let Event::AuthRequested { ticket, claim } = event {
            return self.claimed(key, ticket, &claim);
        }
        let Some(&(index, side)) = self.model.keys.get(&key) else {
            return match event {
                Event::Closed(reason) => self.stranger_closed(key, &reason),
                event => Err(format!("a stranger has {event:?}")),
            };
        };
        hold!(
            !self.model.tunnels[index].party(side).is_over(),
            "{event:?} after the end of tunnel {index} for {side:?}"
        );
        match event {
            Event::Connected => {
                hold!(self.config.hold && side == Side::Client, "tunnel {index} was not to wait");
                let now = self.world.now();
                self.with(index, side, |tunnel| tunnel.authenticate(now));
                Ok(())
            }
            Event::Authenticated(outcome) => self.authenticated(index, side, &outcome),
            Event::Closed(reason) => self.closed(index, side, reason),
            Event::BindingRequested { binding, port, address } => {
                // Those in between were too many.
                let number = u64::from(port);
                let next = self.model.tunnels[index].party(side).requests;
                hold!(number >= next, "binding {number} was asked for in place of {next}");
                hold!(address == binding_address(number), "binding {number} was asked for as {address}");
                self.model.tunnels[index].party_mut(side).requests = number + 1;
                self.bound(index, side, binding, number)
            }
            Event::BindingAnswered { binding, result } => {
                let number = binding.to_string().parse::<u64>().unwrap_or(u64::MAX);
                hold!(
                    number < self.model.tunnels[index].party(side).asked,
                    "an answer to binding {number}, which nobody asked for"
                );
                let most = self.limits_of(side.other()).bindings as u64;
                let result = result.map_err(|refusal| refusal.code);
                let too_many = number >= most && result == Err(Code::LIMIT);
                hold!(
                    too_many || result == binding_answer(number),
                    "binding {number} was answered with {result:?}"
                );
                self.model.tunnels[index].party_mut(side).not_bound += u64::from(result.is_err());
                self.count("bound");
                Ok(())
            }
            Event::OpenRequested { stream, header } => {
                let Some(&number) = self.model.ids.get(&(index, stream)) else {
                    return Err(format!("stream {stream} of tunnel {index}, which nobody opened"));
                };
                let own = &self.model.streams[number];
                hold!(own.opener == side.other(), "stream {number} is offered to its opener");
                hold!(own.seat(side) == Seat::Absent, "stream {number} is offered twice");
                hold!(own.header == header, "stream {number} is offered as {header:?}");
                hold!(
                    self.model.tunnels[index].party(side).is_up(),
                    "stream {number} is offered before the outcome"
                );
                self.model.streams[number].seats[side as usize] = Seat::Offered(self.world.elapsed());
                match self.config.answers {
                    Timing::Late if !self.healing => Ok(()),
                    _ => self.answer(number, true),
                }
            }
            Event::StreamsAvailable => Ok(()),
            Event::Readable { stream }
            | Event::Writable { stream }
            | Event::Accepted { stream }
            | Event::Finished { stream }
            | Event::OpenCancelled { stream }
            | Event::Stalled { stream }
            | Event::Refused { stream, .. }
            | Event::Reset { stream, .. }
            | Event::Stopped { stream, .. } => self.stream_event(index, side, stream, event),
            event => Err(format!("nothing is known of {event:?}")),
        }
    }

    fn claimed(&mut self, key: Key, ticket: Ticket, claim: &Claim) -> Check {
        let index = claim.name.as_ref().and_then(|name| name.as_str().strip_prefix('t')?.parse().ok());
        let Some(tunnel) = index.and_then(|index: usize| self.model.tunnels.get_mut(index)) else {
            return Err(format!("nobody asked for the name of {claim:?}"));
        };
        let index = index.unwrap_or(0);
        let expected = match tunnel.method {
            Method::Token => ("token", Some(format!("c{}", tunnel.client))),
            Method::None => ("none", None),
            Method::Refused => return Err(format!("a wrong credential was taken: {claim:?}")),
        };
        hold!(
            (claim.method.as_str(), claim.proven.identity.clone()) == expected,
            "{claim:?} of tunnel {index}"
        );
        let party = tunnel.party_mut(Side::Server);
        hold!(matches!(party.phase, Phase::Absent), "tunnel {index} asks twice");
        party.key = Some(key);
        party.phase = Phase::Claimed(Some(ticket), self.world.elapsed());
        self.model.keys.insert(key, (index, Side::Server));
        match self.config.decisions {
            Timing::Late if !self.healing => Ok(()),
            _ => self.decide(index, true),
        }
    }

    fn authenticated(&mut self, index: usize, side: Side, outcome: &Outcome) -> Check {
        let tunnel = &mut self.model.tunnels[index];
        hold!(tunnel.admitted, "tunnel {index} is authenticated and nobody has admitted it");
        let (method, identity) = match tunnel.method {
            Method::Token => ("token", Some(format!("c{}", tunnel.client))),
            _ => ("none", None),
        };
        let expected = Outcome {
            name: admitted_name(index).parse().map_err(|_| "a name that is none")?,
            attributes: [("index".to_owned(), index.to_string())].into(),
            method: method.to_owned(),
            proven: outcome.proven.clone(),
        };
        hold!(outcome.proven.is_some() == (side == Side::Server), "{outcome:?} for {side:?}");
        let identity = identity.filter(|_| side == Side::Server);
        hold!(outcome.identity() == identity.as_deref(), "{outcome:?} is not of {identity:?}");
        hold!(*outcome == expected, "the outcome of tunnel {index} is {outcome:?} for {side:?}");
        let party = tunnel.party_mut(side);
        hold!(matches!(party.phase, Phase::Stranger | Phase::Claimed(None, _)), "tunnel {index} is up twice");
        party.phase = Phase::Established;
        self.count(if side == Side::Client { "authenticated" } else { "admitted" });
        Ok(())
    }

    fn bound(&mut self, index: usize, side: Side, binding: BindingId, number: u64) -> Check {
        let now = self.world.now();
        let result = binding_answer(number).map_err(|code| Refusal::new(code, "taken"));
        self.with(index, side, |tunnel| tunnel.answer_binding(now, binding, result));
        Ok(())
    }

    // ---- ends of tunnels

    fn stranger_closed(&mut self, key: Key, reason: &CloseReason) -> Check {
        hold!(key.host == self.server, "a tunnel that no client has begun: {reason:?}");
        self.plausible(None, Side::Server, reason)
    }

    fn closed(&mut self, index: usize, side: Side, reason: CloseReason) -> Check {
        self.plausible(Some(index), side, &reason)?;
        self.read_rests(index, side)?;
        self.model.gone(index, side, Phase::Closed(reason));
        Ok(())
    }

    /// Whether a tunnel may have ended for this reason.
    fn plausible(&mut self, index: Option<usize>, side: Side, reason: &CloseReason) -> Check {
        self.count(match reason.by {
            ClosedBy::Local => "closed by this side",
            ClosedBy::Peer => "closed by the peer",
            ClosedBy::Idle => "lost by silence",
            ClosedBy::Reset => "lost by a reset",
            _ => "failed",
        });
        let of = || format!("tunnel {index:?} ended for {side:?}: {reason:?}");
        let tunnel = index.map(|index| &self.model.tunnels[index]);
        let up = tunnel.is_some_and(|tunnel| tunnel.party(side).is_up());
        let by_application = ["as asked", "not this one", "healed"].contains(&reason.text.as_str());
        match reason.by {
            ClosedBy::Local | ClosedBy::Peer if by_application => {}
            ClosedBy::Local | ClosedBy::Peer => {
                let refused = tunnel.is_none_or(|tunnel| tunnel.method == Method::Refused);
                match reason.code {
                    // That of the listening side ends the tunnel of a client which knows already.
                    Code::TIMEOUT => {
                        let limits = self.limits_of(side);
                        let time = limits.authentication_time.min(limits.authentication_time_crowded);
                        let late = self.world.elapsed() >= time;
                        let late = late || reason.by == ClosedBy::Peer;
                        hold!(!up || reason.by == ClosedBy::Peer, "{}", of());
                        let forged = self.anonymous && index.is_none();
                        hold!(late && (self.faults || forged || self.may_be_late()), "{}", of());
                    }
                    // Whatever the reason, it cannot be told before the handshake is done.
                    Code::CLOSED => hold!(reason.by == ClosedBy::Peer && !up, "{}", of()),
                    Code::AUTH_REFUSED => hold!(refused && !up, "{}", of()),
                    _ => return Err(of()),
                }
            }
            ClosedBy::Idle => hold!(self.faults, "{}", of()),
            // A peer that has forgotten a tunnel may have closed it.
            ClosedBy::Reset => {
                let other = tunnel.map(|tunnel| tunnel.party(side.other()));
                hold!(self.faults || other.is_none_or(|other| other.is_over()), "{}", of());
            }
            // One flipped bit makes a version negotiation of a packet of version 1.
            ClosedBy::PeerHandshake(None) if !up && self.faults => {}
            // Two lives of a server may answer one handshake.
            ClosedBy::Transport if !up && self.lives[&self.server] > 1 => {}
            // And so may a server that has forgotten a stranger whose client has not heard of its end.
            ClosedBy::Transport if !up && self.has_refused() && answered_twice(&reason.text) => {}
            // A Retry is for one address; and to a flipped bit that makes one of something else, quinn-proto does
            // not say no before it looks at the rest.
            ClosedBy::Transport if !up && self.faults => {
                // And it counts a RESET_STREAM twice that is sent twice before the stream is taken in.
                let known = ["Retry Token", "client sent Retry", "more data than permitted"];
                hold!(known.iter().any(|known| reason.text.contains(known)), "{}", of());
            }
            _ => return Err(of()),
        }
        Ok(())
    }

    /// Whether an authentication may take too long though nothing is lost: nobody decides, or there were more
    /// strangers than the server deals with. That others connect in a client's name is no reason.
    fn may_be_late(&self) -> bool {
        self.config.decisions == Timing::Late || self.is_overrun()
    }

    // ---- streams

    fn stream_event(&mut self, index: usize, side: Side, stream: StreamId, event: Event) -> Check {
        let Some(&number) = self.model.ids.get(&(index, stream)) else {
            return Err(format!("{event:?} in tunnel {index}, where nobody opened it"));
        };
        let now = self.world.elapsed();
        let limits = self.limits_of(side);
        let own = &mut self.model.streams[number];
        let seat = own.seat(side);
        let of = format!("stream {number}, which is {seat:?} for {side:?}");
        match event {
            // A notice may come after the end: it was true when it was made.
            Event::Readable { .. } | Event::Writable { .. } if seat == Seat::Over => Ok(()),
            Event::Readable { .. } => {
                hold!(seat == Seat::Running, "{event:?} of {of}");
                own.from(side.other()).dry = false;
                self.pump(number, side.other())
            }
            Event::Writable { .. } => {
                hold!(matches!(seat, Seat::Running | Seat::Asked(_)), "{event:?} of {of}");
                own.from(side).blocked = false;
                self.write(number, side)
            }
            Event::Finished { .. } => {
                hold!(own.from(side).finished && !own.from(side).arrived, "{event:?} of {of}");
                own.from(side).arrived = true;
                self.count("finished");
                Ok(())
            }
            Event::Stopped { code, .. } => self.stopped(number, side, code),
            Event::Reset { code, .. } => {
                let way = own.from(side.other());
                hold!(way.reset.contains(&code), "a reset with {code} of {of}");
                hold!(way.is_readable(), "a reset after the end of {of}");
                hold!(!way.is_kept(), "{event:?} of {of}, which was to fail behind its bytes");
                way.end = Some(End::Reset(code));
                self.count("reset by the peer");
                Ok(())
            }
            Event::Accepted { .. } => {
                hold!(matches!(seat, Seat::Asked(_)) && own.accepted, "{event:?} of {of}");
                own.seats[side as usize] = Seat::Running;
                Ok(())
            }
            Event::Refused { refusal: said, .. } => {
                let Seat::Asked(at) = seat else { return Err(format!("a refusal of {of}")) };
                let in_time = now < at + limits.answer_time;
                let by_acceptor = own.refused.contains(&said.code)
                    && (own.accepted || said == refusal(number) || said.code != refusal(number).code);
                // Who cuts a stream off before it has arrived is told so; without a reason there is no refusal.
                let mut own_codes = own.from(side).reset.iter();
                let by_itself = own_codes
                    .any(|code| *code == said.code || *code == Code::NONE && said.code == Code::INTERNAL);
                let too_late = said.code == Code::TIMEOUT && !in_time;
                hold!(by_acceptor || by_itself || too_late, "{said:?} of {of}");
                own.cut_by(side, Code::CANCELLED);
                own.cut_by(side, said.code);
                own.seats[side as usize] = Seat::Over;
                self.count(if by_acceptor { "refused by the peer" } else { "not answered in time" });
                Ok(())
            }
            Event::OpenCancelled { .. } => {
                let Seat::Offered(at) = seat else { return Err(format!("the end of the offer of {of}")) };
                let cut = !own.from(side.other()).reset.is_empty() || own.from(side).cut;
                let late = now >= at + limits.dial_time;
                let stalled = now >= at + limits.stall_time;
                hold!(cut || late || stalled, "{event:?} of {of}");
                for code in [Code::CANCELLED, Code::TARGET_TIMEOUT, Code::STALLED] {
                    own.cut_by(side, code);
                }
                own.seats[side as usize] = Seat::Over;
                self.count("offer cancelled");
                Ok(())
            }
            Event::Stalled { .. } => {
                hold!(matches!(seat, Seat::Running), "{event:?} of {of}");
                own.cut_by(side, Code::STALLED);
                own.seats[side as usize] = Seat::Over;
                self.count("stalled");
                Ok(())
            }
            event => Err(format!("nothing is known of {event:?}")),
        }
    }
}

/// What both sides say, in quinn-proto's words, when the client goes on with one handshake and the server begins another.
fn answered_twice(text: &str) -> bool {
    ["unsent packet acked", "new data at unexpected encryption level"]
        .iter()
        .any(|known| text.contains(known))
}

/// What a binding is answered with.
fn binding_answer(number: u64) -> Result<Vec<SocketAddr>, Code> {
    match number % 3 {
        2 => Err(Code::PORT_TAKEN),
        number => Ok(vec![SocketAddr::from(([10, 0, 0, 1], 8000)); usize::try_from(number + 1).unwrap_or(1)]),
    }
}
