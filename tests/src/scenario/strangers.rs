//! Strangers at the server: who is let in, who has to show first that it receives, and who is ignored.
//!
//! The model is told what the server counts after each step, and sees all of the server's tunnels. Between two looks
//! there is at most one datagram, so it knows of each attempt where it came from and how many strangers there were.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use snocat_core::auth::{ConnectingConfig, NoProof};
use snocat_core::sim::{Step, plain};
use snocat_core::{AdmissionCounts, ClosedBy, Code, ConnectConfig, Event, Limits, Node, TunnelId};

use super::run::Run;
use super::*;
use crate::hold;
use crate::model::{Check, Key};

/// How long a Retry is worth something: quinn-proto's `retry_token_lifetime`.
const RETRY_TIME: Duration = Duration::from_secs(15);

/// What is known of the strangers of one life of the server.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// When an address was last asked to show that it receives.
    asked: BTreeMap<SocketAddr, Duration>,
    /// The tunnels that have authenticated.
    authenticated: BTreeSet<TunnelId>,
    /// The sources that they have come from.
    known: BTreeSet<IpAddr>,
    /// When each tunnel has to be authenticated.
    deadlines: BTreeMap<TunnelId, Duration>,
    /// When somebody came first: draws are made each second from then on.
    first: Option<Duration>,
    /// What was drawn for a source, in which second, and with which chance.
    draws: BTreeMap<(IpAddr, u64, usize), bool>,
    /// How many others have ended.
    ended: u64,
    /// How many attempts came to nothing before they were tunnels.
    failed: u64,
    /// The most that there ever were.
    peak: usize,
}

/// What a source may have of the places: all that it ever may while there are few strangers, and from some number on the
/// less the fewer places are left. As a fraction.
fn share(most: usize, strangers: usize, from: usize, places: usize) -> (usize, usize) {
    if strangers < from {
        return (most, 1);
    }
    (most * places.saturating_sub(strangers), places.saturating_sub(from).max(1))
}

impl Run<'_> {
    /// What the server has counted; nothing while it is not running.
    fn admission(&self) -> AdmissionCounts {
        self.world.node(self.server).map(|node| node.endpoint().admission()).unwrap_or_default()
    }

    /// Whether the server has ignored somebody in this life because there were too many.
    pub(super) fn is_overrun(&self) -> bool {
        let counts = self.admission();
        counts.ignored_total + counts.ignored_source > 0
    }

    /// Whether the server has forgotten a stranger in this life.
    pub(super) fn has_refused(&self) -> bool {
        self.admission().refused > 0
    }

    /// The strangers of each source, as the server's tunnels tell.
    fn strangers(&self) -> BTreeMap<IpAddr, usize> {
        let mut sources = BTreeMap::new();
        for (id, tunnel) in self.world.node(self.server).into_iter().flat_map(Node::tunnels) {
            if !self.strangers.authenticated.contains(&id) {
                *sources.entry(tunnel.remote_address().ip()).or_default() += 1;
            }
        }
        sources
    }

    /// Does what is due next, and looks at what the server makes of a stranger.
    pub(super) fn step(&mut self, until: Duration) -> Check<Step> {
        let before = self.admission();
        let step = self.world.step(until).map_err(|spinning| spinning.to_string())?;
        let after = self.admission();
        if before != after {
            let Step::Arrived { at, from } = step else {
                return Err(format!("{before:?} has become {after:?} by {step:?}"));
            };
            hold!(at == self.server, "{before:?} has become {after:?} by a datagram for {at:?}");
            self.attempt(from, before, after)?;
        }
        Ok(step)
    }

    /// Somebody wants to connect: what has the server done, and may it?
    fn attempt(&mut self, from: SocketAddr, before: AdmissionCounts, after: AdmissionCounts) -> Check {
        let now = self.world.elapsed();
        let limits = self.limits(true);
        let begun = after.strangers.saturating_sub(before.strangers);
        let here = self.strangers().get(&from.ip()).copied().unwrap_or(0).saturating_sub(begun);
        let all = before.strangers;
        let is_known = self.strangers.known.contains(&from.ip());
        let kept = if is_known { 0 } else { limits.unauthenticated_reserve.min(limits.unauthenticated / 2) };
        let places = limits.unauthenticated - kept;
        let room = all < places;
        // A source's share falls with the places that are left. If it is less than one, there is a draw.
        let (part, of) = share(limits.unauthenticated_per_source, all, limits.retry_from, places);
        let full = here >= (part / of).max(1);
        let drawn = part < of && !is_known;
        let second = (now - *self.strangers.first.get_or_insert(now)).as_secs();
        let crowded = full || all >= limits.retry_from || here >= limits.retry_from_per_source;
        let asked = self.strangers.asked.get(&from).is_some_and(|at| now <= *at + RETRY_TIME);
        let words = format!("from {from}, with {all} strangers, {here} of them from there");
        let verdicts = [
            after.admitted - before.admitted,
            after.retried - before.retried,
            after.ignored_total - before.ignored_total,
            after.ignored_source - before.ignored_source,
        ];
        match verdicts {
            [1, 0, 0, 0] => {
                hold!(room && !full, "an attempt was let in {words}, which is too many");
                hold!(!crowded || asked, "an attempt was let in {words}, without a Retry");
                if drawn {
                    self.draw(from.ip(), second, part, true)?;
                    self.count("stranger let in by a draw");
                }
                if is_known && all >= limits.unauthenticated - limits.unauthenticated_reserve {
                    self.count("stranger let in to the reserve");
                }
                self.plan_deadline(all + 1, &limits);
                self.strangers.failed += after.refused - before.refused;
                // One that fails at once has had its place, too.
                self.strangers.peak = self.strangers.peak.max(all + 1);
                self.count("stranger let in");
                if crowded {
                    self.count("stranger let in after a Retry");
                }
            }
            [0, 1, 0, 0] => {
                hold!(room && crowded, "an attempt was asked to retry {words}");
                self.strangers.asked.insert(from, now);
                self.count("stranger asked to retry");
            }
            [0, 0, 1, 0] => {
                hold!(!room || drawn && !full && asked, "an attempt was ignored {words}");
                if room {
                    self.draw(from.ip(), second, part, false)?;
                    self.count("stranger ignored by a draw");
                } else {
                    self.count("stranger ignored in all");
                }
            }
            [0, 0, 0, 1] => {
                hold!(room && full && asked, "an attempt was ignored {words}, as one of too many");
                self.count("stranger ignored of one source");
            }
            _ => return Err(format!("one attempt, and {before:?} has become {after:?}")),
        }
        Ok(())
    }

    /// Within a second a source draws once, however often it asks.
    fn draw(&mut self, source: IpAddr, second: u64, part: usize, lucky: bool) -> Check {
        let before = *self.strangers.draws.entry((source, second, part)).or_insert(lucky);
        hold!(before == lucky, "{source} has drawn twice in second {second}");
        Ok(())
    }

    /// The tunnel that has just begun, as one of so many strangers, has this time to authenticate.
    fn plan_deadline(&mut self, strangers: usize, limits: &Limits) {
        let (part, of) = share(1000, strangers, limits.retry_from, limits.unauthenticated);
        let load = 1000 - (part / of).max(1) as u32;
        let (long, short) = (limits.authentication_time, limits.authentication_time_crowded);
        let deadline = self.world.elapsed() + long - (long - short) * load / 1000;
        let tunnels = self.world.node(self.server).into_iter().flat_map(Node::tunnels).map(|(id, _)| id);
        for id in tunnels.collect::<Vec<_>>() {
            self.strangers.deadlines.entry(id).or_insert(deadline);
        }
    }

    /// An event of one of the server's tunnels.
    pub(super) fn note_stranger(&mut self, key: Key, event: &Event) -> Check {
        let known = &mut self.strangers;
        match event {
            _ if key.host != self.server => {}
            Event::Authenticated(_) => {
                known.authenticated.insert(key.id);
                let tunnel = self.world.tunnel(self.server, key.id);
                known.known.extend(tunnel.map(|tunnel| tunnel.remote_address().ip()));
            }
            Event::Closed(reason) if !known.authenticated.contains(&key.id) => {
                known.ended += 1;
                let due = known.deadlines.get(&key.id).copied().unwrap_or_default();
                let now = self.world.elapsed();
                let is_late = reason.by == ClosedBy::Local && reason.code == Code::TIMEOUT;
                hold!(!is_late || now >= due, "{key:?} had until {due:?} to authenticate");
            }
            _ => {}
        }
        Ok(())
    }

    /// The server's numbers are those of its tunnels, and none is larger than it may be.
    pub(super) fn check_strangers(&self) -> Check {
        let Some(node) = self.world.node(self.server) else { return Ok(()) };
        let known = &self.strangers;
        let counts = node.endpoint().admission();
        let limits = self.limits(true);
        let sources = self.strangers();
        let strangers = sources.values().sum();
        hold!(counts.strangers == strangers, "there are {strangers} strangers: {counts:?}");
        let most = limits.unauthenticated;
        hold!(strangers <= most, "{strangers} strangers, and no more than {most} may be");
        let most = limits.unauthenticated_per_source;
        for (source, here) in &sources {
            hold!(*here <= most, "{here} strangers of {source}, and no more than {most} may be");
        }
        for (id, tunnel) in node.tunnels() {
            let due = known.deadlines.get(&id).copied().unwrap_or(Duration::MAX);
            let is_stranger = !tunnel.is_closed() && !known.authenticated.contains(&id);
            let now = self.world.elapsed();
            hold!(!is_stranger || now <= due, "{id} is a stranger and should have ended at {due:?}");
        }
        let waiting = |(id, tunnel): &(TunnelId, &snocat_core::Tunnel)| {
            tunnel.is_closed() && !known.authenticated.contains(id)
        };
        let farewell = node.tunnels().filter(waiting).count() as u64;
        let refused = known.failed + known.ended - farewell;
        hold!(counts.refused == refused, "{refused} strangers are gone: {counts:?}");
        let authenticated = known.authenticated.len() as u64;
        hold!(counts.authenticated == authenticated, "{authenticated} have authenticated: {counts:?}");
        let sum = authenticated + refused + strangers as u64;
        hold!(counts.admitted == sum, "{sum} strangers were let in: {counts:?}");
        hold!(counts.peak == known.peak, "there were never more than {} strangers: {counts:?}", known.peak);
        Ok(())
    }

    /// Many come at once.
    pub(super) fn crowd(&mut self, client: usize, size: usize, crowd: Crowd) -> Check {
        (0..size).try_for_each(|_| match crowd {
            Crowd::Unknown => self.connect(client, Credential::Wrong, 0),
            Crowd::Forged => match self.world.network().address(self.clients[client]) {
                Some(SocketAddr::V4(victim)) => self.forge(client, (*victim.ip(), 1).into()),
                _ => Ok(()),
            },
            Crowd::Scattered => {
                self.forged += 1;
                let [high, low] = self.forged.to_be_bytes();
                self.forge(client, ([198, 18, high, low], 1).into())
            }
        })
    }

    /// A connection is begun from where a client is, in another one's name: nobody hears the answer.
    fn forge(&mut self, client: usize, source: SocketAddr) -> Check {
        let Some(server) = self.world.network().address(self.server) else { return Ok(()) };
        self.anonymous = true;
        let now = self.world.now();
        let mut node = Node::new(plain::connecting(self.rng.draw()));
        let authentication = ConnectingConfig::only(NoProof);
        let config = ConnectConfig { crypto: self.crypto.client(), authentication, hold: false };
        node.connect(now, &config, server, plain::NAME).map_err(|error| error.to_string())?;
        let mut buffer = Vec::new();
        while node.poll().is_some() {}
        while let Some(transmit) = node.poll_transmit(now, 1, &mut buffer) {
            let data = &buffer[..transmit.size];
            self.world.network_mut().send_as(source, self.clients[client], server, transmit.ecn, data);
        }
        Ok(())
    }
}
