//! The end of a run: everything is mended, and then everything must come to its end in time, with nothing left.

use std::time::Duration;

use snocat_core::sim::LinkConfig;
use snocat_core::{Code, Refusal};

use super::run::Run;
use super::*;
use crate::hold;
use crate::model::{Check, End, Pace, Phase, Seat, Tunnel};

/// Until what is on its way through tunnels that live has arrived: the idle time, and as much again for the longest
/// pause between two attempts to reach a peer.
const CONVERGED: Duration = Duration::from_secs(90);
/// Until a client that starts now is served.
const SERVED: Duration = Duration::from_secs(3);
/// Until a tunnel whose peer is gone is known to be lost, and nothing is left of tunnels that were closed: some times
/// what seems to be the time for an answer, and that may have been measured across a cut.
const FORGOTTEN: Duration = Duration::from_secs(300);

impl Run<'_> {
    pub(super) fn heal(&mut self) -> Check {
        self.healing = true;
        for client in 0..self.clients.len() {
            let link = LinkConfig::delay(Duration::from_millis(10));
            self.world.link(self.clients[client], self.server, &link);
        }
        (0..=self.clients.len()).for_each(|number| self.revive(number));
        self.waiting().into_iter().try_for_each(|tunnel| self.decide(tunnel, true))?;
        self.offered().into_iter().try_for_each(|stream| self.answer(stream, true))?;
        self.settle()?;
        self.close_all_directions()?;

        // Streams that nobody reads do not hold up the others.
        let limit = self.world.elapsed() + CONVERGED;
        let awake = |run: &Self| run.unfinished(false).is_none();
        if !self.run_until(limit, awake)? {
            return Err(format!(
                "not at its end beside streams that nobody reads: {:?}",
                self.unfinished(false)
            ));
        }
        for index in 0..self.model.streams.len() {
            for writer in Side::BOTH {
                self.model.streams[index].from(writer).pace = Pace::Eager;
                self.pump(index, writer)?;
            }
        }
        let limit = self.world.elapsed() + CONVERGED;
        if !self.run_until(limit, |run| run.unfinished(true).is_none())? {
            return Err(format!("not at its end: {:?}", self.unfinished(true)));
        }
        let limit = self.world.elapsed() + FORGOTTEN;
        let lost = |run: &Self| run.model.tunnels.iter().position(is_lost);
        if !self.run_until(limit, |run| lost(run).is_none())? {
            return Err(format!("one side does not know that tunnel {:?} is lost", lost(self)));
        }
        // A client that gives up may, with its last word, look like a new one.
        self.wait_until(self.world.elapsed() + Duration::from_secs(1))?;
        let known = |run: &Self| {
            run.world.node(run.server).is_none_or(|node| node.endpoint().admission().strangers == 0)
        };
        let limit = self.world.elapsed() + FORGOTTEN;
        hold!(self.run_until(limit, known)?, "strangers are left after {FORGOTTEN:?}");
        self.check_ends()?;
        (0..self.clients.len()).try_for_each(|client| self.serve(client))?;
        self.close_all()
    }

    /// What is written so far is all there is.
    fn close_all_directions(&mut self) -> Check {
        for index in 0..self.model.streams.len() {
            for writer in Side::BOTH {
                self.model.streams[index].from(writer).closing = true;
                self.write(index, writer)?;
            }
        }
        self.settle()
    }

    /// Something that has still to happen; of streams that are not read only if `all`.
    fn unfinished(&self, all: bool) -> Option<String> {
        for (index, tunnel) in self.model.tunnels.iter().enumerate() {
            let [client, server] = &tunnel.parties;
            if !(client.is_up() && server.is_up() || is_over(tunnel) || is_lost(tunnel)) {
                return Some(format!("tunnel {index}: {:?} and {:?}", client.phase, server.phase));
            }
        }
        for (index, stream) in self.model.streams.iter().enumerate() {
            let sleeps = |side: Side| stream.directions[side as usize].pace == Pace::Asleep;
            let unheard = stream.seat(stream.opener.other()) == Seat::Absent;
            let taken_back = unheard && stream.seat(stream.opener) == Seat::Over;
            let tunnel = &self.model.tunnels[stream.tunnel];
            if taken_back || is_over(tunnel) || is_lost(tunnel) {
                continue;
            }
            for writer in Side::BOTH {
                if !all && (sleeps(writer) || sleeps(writer.other())) {
                    continue;
                }
                let (from, to) = (stream.seat(writer), stream.seat(writer.other()));
                let way = &stream.directions[writer as usize];
                let read = to == Seat::Over || !way.is_readable();
                let written = from == Seat::Over || !way.reset.is_empty() || way.arrived;
                if !read || !written || matches!(from, Seat::Asked(_) | Seat::Offered(_)) {
                    return Some(format!("stream {index} from {writer:?}: {from:?}, {to:?}, {way:?}"));
                }
            }
        }
        let open = |tunnel: &Tunnel, side| {
            let key = tunnel.party(side).key?;
            let tunnel = self.world.tunnel(key.host, key.id).filter(|_| self.lives[&key.host] == key.life)?;
            (tunnel.open_streams() > 0).then(|| tunnel.open_streams())
        };
        let living = |(_, tunnel): &(usize, &Tunnel)| all && !is_lost(tunnel);
        self.model.tunnels.iter().enumerate().filter(living).find_map(|(index, tunnel)| {
            let left = Side::BOTH.into_iter().find_map(|side| Some((side, open(tunnel, side)?)));
            left.map(|(side, count)| format!("{count} streams of tunnel {index} are left for {side:?}"))
        })
    }

    /// In tunnels that have lived, what was not cut off has arrived as a whole.
    fn check_ends(&self) -> Check {
        for (index, stream) in self.model.streams.iter().enumerate() {
            let tunnel = &self.model.tunnels[stream.tunnel];
            if !Side::BOTH.into_iter().all(|side| tunnel.party(side).is_up()) || !stream.accepted {
                continue;
            }
            for way in &stream.directions {
                let whole = way.end == Some(End::Finished) && way.read == way.planned;
                let cut_off = !way.reset.is_empty() || !way.stopped.is_empty();
                let kept = !way.is_kept() || way.end.is_some() && way.read == way.written;
                hold!(kept, "stream {index} has lost what came before its failure: {way:?}");
                hold!(whole || cut_off, "stream {index} has lost its end: {way:?}");
            }
        }
        Ok(())
    }

    /// A client connects, opens a stream, and sends something through it.
    fn serve(&mut self, client: usize) -> Check {
        let index = self.model.tunnels.len();
        self.connect(client, Credential::Right, 0)?;
        let limit = self.world.elapsed() + SERVED;
        let up = |run: &Self| run.model.tunnels[index].party(Side::Client).is_up();
        hold!(self.run_until(limit, up)?, "client {client} is not authenticated in {SERVED:?}");
        let Some(stream) = self.open(index, Side::Client, 3000, false)? else {
            return Err(format!("client {client} cannot open a stream"));
        };
        for writer in Side::BOTH {
            self.model.streams[stream].from(writer).closing = true;
            self.write(stream, writer)?;
        }
        let limit = self.world.elapsed() + SERVED;
        let read = |run: &Self| run.model.streams[stream].directions.iter().all(|way| way.end.is_some());
        let served = self.run_until(limit, read)?;
        hold!(served, "client {client} is not served in {SERVED:?}: {:?}", self.model.streams[stream]);
        Ok(())
    }

    /// Every tunnel is closed by one side. Nothing must be left of it.
    fn close_all(&mut self) -> Check {
        let now = self.world.now();
        for index in 0..self.model.tunnels.len() {
            let side = if self.rng.below(2) == 0 { Side::Client } else { Side::Server };
            self.with(index, side, |tunnel| tunnel.close(now, Refusal::new(Code::CLOSED, "healed")));
        }
        self.wait_until(self.world.elapsed() + FORGOTTEN)?;
        for host in [self.server].into_iter().chain(self.clients.clone()) {
            let Some(node) = self.world.node(host) else { continue };
            let left = (node.len(), node.endpoint().connections(), node.endpoint().admission().strangers);
            hold!(left == (0, 0, 0), "node {} has left {left:?}", host.index());
            hold!(node.poll_timeout().is_none(), "node {} waits for something", host.index());
        }
        let in_flight = self.world.network().in_flight();
        hold!(in_flight == 0, "{in_flight} datagrams are on their way");
        Ok(())
    }
}

/// Whether both sides know the end of a tunnel, those that never knew of it among them.
fn is_over(tunnel: &Tunnel) -> bool {
    let [client, server] = &tunnel.parties;
    client.is_over() && (server.is_over() || matches!(server.phase, Phase::Absent))
}

/// Whether only one side of a tunnel knows its end.
fn is_lost(tunnel: &Tunnel) -> bool {
    !is_over(tunnel) && tunnel.parties.iter().any(|party| party.is_over())
}
