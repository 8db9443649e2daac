//! What operations do.

use std::sync::Arc;

use snocat_core::auth::{ConnectingConfig, Credential as Proof, NoProof, TokenSecret};
use snocat_core::route::RouteAddress;
use snocat_core::{Code, ConnectConfig, Refusal, Tunnel, TunnelError};

use super::run::{Run, Suspect, secret};
use super::*;
use crate::hold;
use crate::model::{Check, Key, Method, Phase, Seat};

/// The n-th of them, modulo how many there are.
fn nth<T>(mut of: Vec<T>, nth: u8) -> Option<T> {
    let index = usize::from(nth).checked_rem(of.len())?;
    Some(of.swap_remove(index))
}

/// A code that an application may end something with.
fn code(number: u8) -> Code {
    [Code::RESET, Code::CANCELLED, Code::NONE, Code::INTERNAL, Code::new(1 << 40)][usize::from(number) % 5]
}

impl Run<'_> {
    pub(super) fn apply(&mut self, op: &Op) -> Check {
        let clients = self.clients.len();
        let client = |number: u8| usize::from(number) % clients;
        match *op {
            Op::Connect { client: number, credential, bindings } => {
                self.connect(client(number), credential, bindings)
            }
            Op::Flood { client: number, size, crowd } => self.crowd(client(number), size.into(), crowd),
            Op::Decide { nth: number, admit } => match nth(self.waiting(), number) {
                Some(tunnel) => self.decide(tunnel, admit),
                None => Ok(()),
            },
            Op::Open { tunnel, by, ahead, long, pace } => self.on_tunnel(tunnel, by, |run, tunnel| {
                if let Some(stream) = run.open(tunnel, by, ahead, long)? {
                    run.model.streams[stream].from(by).pace = pace;
                }
                Ok(())
            }),
            Op::Answer { nth: number, accept } => match nth(self.offered(), number) {
                Some(stream) => self.answer(stream, accept),
                None => Ok(()),
            },
            Op::Write { nth: number, length } => self.on_way(number, |run, stream, writer| {
                let way = run.model.streams[stream].from(writer);
                if way.is_writable() && !way.closing {
                    way.planned += u64::from(length);
                }
                run.write(stream, writer)
            }),
            Op::Pace { nth: number, pace } => self.on_way(number, |run, stream, writer| {
                run.model.streams[stream].from(writer).pace = pace;
                run.pump(stream, writer)
            }),
            Op::Read { nth: number, length } => self.on_way(number, |run, stream, writer| {
                run.read(stream, writer, usize::from(length)).map(drop)
            }),
            Op::Finish { nth: number } => self.on_way(number, |run, stream, writer| {
                run.model.streams[stream].from(writer).closing = true;
                run.write(stream, writer)
            }),
            Op::Reset { nth: number, code: number_of_code } => {
                self.on_way(number, |run, stream, writer| run.reset(stream, writer, code(number_of_code)))
            }
            Op::Fail { nth: number, code: number_of_code } => {
                self.on_way(number, |run, stream, writer| run.fail(stream, writer, code(number_of_code)))
            }
            Op::Stop { nth: number, code: number_of_code } => {
                self.on_way(number, |run, stream, writer| run.stop(stream, writer, code(number_of_code)))
            }
            Op::Bind { tunnel, by } => self.on_tunnel(tunnel, by, |run, tunnel| run.bind(tunnel, by)),
            Op::Probe { tunnel, by } => self.on_tunnel(tunnel, by, |run, tunnel| {
                let now = run.world.now();
                run.with(tunnel, by, |tunnel| tunnel.probe(now));
                Ok(())
            }),
            Op::Close { tunnel, by, code: number } => self.on_tunnel(tunnel, by, |run, tunnel| {
                let now = run.world.now();
                run.with(tunnel, by, |tunnel| tunnel.close(now, Refusal::new(code(number), "as asked")));
                Ok(())
            }),
            Op::Impair { client: number, way, fault } => {
                self.impair(client(number), way, fault);
                Ok(())
            }
            Op::Mend { client: number } => {
                self.mend(client(number));
                Ok(())
            }
            Op::Rebind { client: number } => {
                self.faults = true;
                self.world.rebind(self.clients[client(number)]);
                Ok(())
            }
            Op::Crash { host } => {
                self.crash(usize::from(host) % (clients + 1));
                Ok(())
            }
            Op::Restart { host } => {
                self.revive(usize::from(host) % (clients + 1));
                Ok(())
            }
            Op::Noise { client: number, way, length } => {
                self.noise(client(number), way, length.into());
                Ok(())
            }
            Op::Wait { milliseconds } => {
                let until = self.world.elapsed() + std::time::Duration::from_millis(milliseconds.into());
                self.wait_until(until)
            }
        }
    }

    // ---- nodes

    pub(super) fn host(&self, number: usize) -> snocat_core::sim::Host {
        number.checked_sub(1).map_or(self.server, |client| self.clients[client])
    }

    fn crash(&mut self, number: usize) {
        let host = self.host(number);
        self.faults = true;
        if self.world.crash(host).is_some() {
            self.count("crashed");
            for tunnel in 0..self.model.tunnels.len() {
                for side in Side::BOTH {
                    let party = self.model.tunnels[tunnel].party(side);
                    if party.key.is_some_and(|key| key.host == host) && !party.is_over() {
                        self.model.gone(tunnel, side, Phase::Killed);
                    }
                }
            }
        }
    }

    pub(super) fn revive(&mut self, number: usize) {
        let host = self.host(number);
        if self.world.node(host).is_none() {
            self.start(host);
        }
    }

    fn noise(&mut self, client: usize, way: Way, length: usize) {
        self.faults = true;
        let client = self.clients[client];
        let (from, to) = if way == Way::Down { (self.server, client) } else { (client, self.server) };
        let bytes: Vec<u8> = (0..length).map(|_| self.rng.draw().to_le_bytes()[0]).collect();
        if let Some(address) = self.world.network().address(to) {
            self.world.network_mut().send(from, address, None, &bytes);
        }
    }

    // ---- tunnels

    pub(super) fn connect(&mut self, client: usize, credential: Credential, bindings: u8) -> Check {
        let token: Arc<dyn Proof> = Arc::new(secret(client));
        let none: Arc<dyn Proof> = Arc::new(NoProof);
        let (methods, method) = match credential {
            Credential::Right => (vec![token], Method::Token),
            Credential::Wrong => {
                let stranger = TokenSecret::new(vec![0xee; 32]).map_err(|error| error.to_string())?;
                (vec![Arc::new(stranger) as _], Method::Refused)
            }
            Credential::Nothing => (vec![none], Method::None),
            Credential::NothingFirst => (vec![none, token], Method::Token),
        };
        let index = self.model.tunnels.len();
        let name = format!("t{index}").parse().ok();
        let authentication = ConnectingConfig { methods, name };
        let crypto = self.crypto.client();
        let config = ConnectConfig { crypto, authentication, hold: self.config.hold };
        let (host, server) = (self.clients[client], self.server);
        match self.world.connect(host, server, &config, snocat_core::sim::plain::NAME) {
            Some(Ok(id)) => {
                let key = Key { host, life: self.lives[&host], id };
                let since = self.world.elapsed();
                self.model.begin(crate::model::Tunnel::new(client, key, method, since));
                (0..bindings).try_for_each(|_| self.bind(index, Side::Client))
            }
            Some(Err(error)) => Err(format!("cannot connect: {error}")),
            // The client is not running.
            None => Ok(()),
        }
    }

    /// The tunnels that wait for a decision.
    pub(super) fn waiting(&self) -> Vec<usize> {
        let waits = |tunnel: &crate::model::Tunnel| {
            matches!(tunnel.party(Side::Server).phase, Phase::Claimed(Some(_), _))
        };
        self.model.tunnels.iter().enumerate().filter(|(_, t)| waits(t)).map(|(index, _)| index).collect()
    }

    pub(super) fn decide(&mut self, index: usize, admit: bool) -> Check {
        let now = self.world.now();
        let Phase::Claimed(ticket, _) = &mut self.model.tunnels[index].party_mut(Side::Server).phase else {
            return Ok(());
        };
        let Some(ticket) = ticket.take() else { return Ok(()) };
        // Every other one gets another name than it has asked for.
        let name = admitted_name(index).parse().map_err(|_| "a name that is none")?;
        let attributes = [("index".to_owned(), index.to_string())].into();
        let result = self.with(index, Side::Server, |tunnel| {
            if admit {
                tunnel.admit(now, ticket, name, attributes)
            } else {
                tunnel.refuse_peer(now, ticket, Refusal::new(Code::NAME_TAKEN, "not this one"))
            }
        });
        match result {
            Some(Ok(())) => self.model.tunnels[index].admitted = admit,
            _ => self.suspects.push(Suspect::Tunnel(index, Side::Server)),
        }
        Ok(())
    }

    /// Acts on one side of a tunnel, if it is there.
    pub(super) fn with<T>(
        &mut self,
        index: usize,
        side: Side,
        act: impl FnOnce(&mut Tunnel) -> T,
    ) -> Option<T> {
        let key = self.model.tunnels[index].party(side).key?;
        if self.model.tunnels[index].party(side).is_over() {
            return None;
        }
        self.world.tunnel_mut(key.host, key.id).map(act)
    }

    fn on_tunnel(&mut self, number: u8, side: Side, act: impl FnOnce(&mut Self, usize) -> Check) -> Check {
        let there =
            |tunnel: &crate::model::Tunnel| !tunnel.party(side).is_over() && tunnel.party(side).key.is_some();
        let tunnels = self.model.tunnels.iter().enumerate().filter(|(_, tunnel)| there(tunnel));
        match nth(tunnels.map(|(index, _)| index).collect(), number) {
            Some(tunnel) => act(self, tunnel),
            None => Ok(()),
        }
    }

    fn bind(&mut self, index: usize, by: Side) -> Check {
        let now = self.world.now();
        let most = self.limits_of(by).bindings as u64;
        let party = self.model.tunnels[index].party(by);
        let (number, held) = (party.asked, party.asked - party.not_bound);
        let address = binding_address(number);
        let port = u16::try_from(number).unwrap_or(0);
        let result = self.with(index, by, |tunnel| tunnel.request_binding(now, port, &address));
        match result {
            Some(Ok(_)) => {
                hold!(held < most, "binding {number} was asked for, beside {held} of {most}");
                self.model.tunnels[index].party_mut(by).asked += 1;
            }
            Some(Err(TunnelError::TooManyBindings)) => {
                hold!(held == most, "binding {number} was refused, with {held} of {most}");
            }
            Some(Err(TunnelError::Closed)) => self.suspects.push(Suspect::Tunnel(index, by)),
            Some(Err(error)) => return Err(format!("a binding was refused: {error}")),
            None => {}
        }
        Ok(())
    }

    /// Acts on the n-th direction of the streams that are open at both of its ends.
    fn on_way(&mut self, number: u8, act: impl FnOnce(&mut Self, usize, Side) -> Check) -> Check {
        let streams = self.model.streams.iter().enumerate();
        let ways = streams.flat_map(|(index, stream)| Side::BOTH.map(|writer| (index, writer, stream)));
        let ways = ways.filter(|(_, writer, stream)| {
            let live = |side| stream.seat(side).is_live();
            live(*writer) || live(writer.other()) && !matches!(stream.seat(writer.other()), Seat::Offered(_))
        });
        match nth(ways.map(|(index, writer, _)| (index, writer)).collect(), number) {
            Some((stream, writer)) => act(self, stream, writer),
            None => Ok(()),
        }
    }
}

/// The name that a tunnel is admitted under.
pub(super) fn admitted_name(index: usize) -> String {
    format!("{}{index}", if index.is_multiple_of(2) { 't' } else { 'x' })
}

/// What the streams of a binding are to be addressed to.
pub(super) fn binding_address(number: u64) -> RouteAddress {
    RouteAddress::new(["bound".to_owned(), number.to_string()]).unwrap()
}
