//! Running a scenario: the world and the model side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snocat_core::auth::{ListeningConfig, NoProof, TokenKey, TokenKeys, TokenSecret};
use snocat_core::sim::{Chance, Host, LinkConfig, Loss, Rng, Step, Trace, World, plain};
use snocat_core::{EndpointConfig, Event, Limits, TunnelId};

use super::strangers::Strangers;
use super::*;
use crate::hold;
use crate::model::{Check, Key, Model, Phase, Seat, tight};

/// What a run was like.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its hashes.
    pub trace: Option<Trace>,
    /// Virtual time that it took.
    pub time: Duration,
    /// How often what has happened.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Adds what another run was like.
    pub fn add(&mut self, other: &Self) {
        self.time += other.time;
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }
}

/// What was not as it must be.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When.
    pub at: Duration,
    /// After how many operations.
    pub after: usize,
    /// What.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} operations, at {:?}: {}", self.after, self.at, self.what)
    }
}

impl Scenario {
    /// Runs it with plain TLS.
    ///
    /// # Errors
    /// What was not as it must be.
    pub fn run(&self) -> Result<Report, Failure> {
        self.run_with(&Crypto::Plain)
    }

    /// Runs it.
    ///
    /// # Errors
    /// What was not as it must be.
    pub fn run_with(&self, crypto: &Crypto) -> Result<Report, Failure> {
        let mut run = Run::new(self, crypto.clone());
        let mut after = 0;
        let result = self.ops.iter().try_for_each(|op| {
            after += 1;
            run.apply(op)?;
            run.settle()
        });
        let result = result.and_then(|()| run.heal());
        match result {
            Ok(()) => {
                let trace = Some(run.world.trace());
                Ok(Report { trace, time: run.world.elapsed(), counts: run.counts })
            }
            Err(what) => Err(Failure { at: run.world.elapsed(), after, what }),
        }
    }
}

/// The secret that a client shares with the server.
pub(super) fn secret(client: usize) -> TokenSecret {
    TokenSecret::new(vec![u8::try_from(client).unwrap_or(0) + 1; 32]).unwrap()
}

pub(super) struct Run<'a> {
    pub(super) config: &'a Config,
    pub(super) crypto: Crypto,
    pub(super) world: World,
    pub(super) model: Model,
    pub(super) rng: Rng,
    pub(super) server: Host,
    pub(super) clients: Vec<Host>,
    /// How often each node was restarted.
    pub(super) lives: BTreeMap<Host, u32>,
    /// Whether something may have been lost on the way.
    pub(super) faults: bool,
    /// Whether everything is answered at once now.
    pub(super) healing: bool,
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// What must be over once all events are handled.
    pub(super) suspects: Vec<Suspect>,
    pub(super) strangers: Strangers,
    /// Whether there are attempts that no client has made.
    pub(super) anonymous: bool,
    /// How many addresses were made up.
    pub(super) forged: u16,
}

/// Something that has said that it is over before an event has.
#[derive(Debug)]
pub(super) enum Suspect {
    Tunnel(usize, Side),
    Stream(usize, Side),
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, crypto: Crypto) -> Self {
        let config = &scenario.config;
        let mut rng = Rng::new(scenario.seed);
        let mut world = World::new(Instant::now(), rng.draw());
        if config.segments {
            world.set_segments(10);
        }
        let mut run = Self {
            config,
            crypto,
            model: Model::default(),
            rng,
            server: world.add(plain::connecting(0)),
            clients: (0..=config.more_clients % 3).map(|_| world.add(plain::connecting(0))).collect(),
            world,
            lives: BTreeMap::new(),
            faults: config.weather == Weather::Mobile,
            healing: false,
            counts: BTreeMap::new(),
            suspects: Vec::new(),
            strangers: Strangers::default(),
            anonymous: false,
            forged: 0,
        };
        for host in [run.server].into_iter().chain(run.clients.clone()) {
            run.start(host);
        }
        for client in 0..run.clients.len() {
            run.mend(client);
        }
        run
    }

    /// Starts a node, anew or for the first time.
    pub(super) fn start(&mut self, host: Host) {
        *self.lives.entry(host).or_default() += 1;
        // What survives a restart is the key of its resets, as of one that is configured well.
        let reset_key = plain::connecting(host.index() as u64).reset_key;
        let seed = self.rng.draw();
        let config = if host == self.server {
            self.strangers = Strangers::default();
            let keys =
                (0..self.clients.len()).map(|client| TokenKey::of(&format!("c{client}"), secret(client)));
            let accepts = ListeningConfig {
                methods: vec![Arc::new(TokenKeys::new(keys.collect())), Arc::new(NoProof)],
            };
            let mut config = plain::listening(seed, accepts, &self.world.clock());
            if let Some(listen) = &mut config.listen {
                listen.crypto = self.crypto.server(self.config.long_chain);
            }
            config
        } else {
            plain::connecting(seed)
        };
        let limits = self.limits(host == self.server);
        self.world.restart(host, EndpointConfig { reset_key, limits, ..config });
    }

    pub(super) fn limits(&self, server: bool) -> Limits {
        match if server { self.config.server } else { self.config.client } {
            Size::Default => Limits::default(),
            Size::Tight => tight(),
        }
    }

    pub(super) fn limits_of(&self, side: Side) -> Limits {
        self.limits(side == Side::Server)
    }

    /// Makes a client's link what it was at the start.
    pub(super) fn mend(&mut self, client: usize) {
        let link = match self.config.weather {
            Weather::Calm => LinkConfig::delay(Duration::from_millis(10)),
            Weather::Still => LinkConfig::default(),
            Weather::Far => LinkConfig {
                jitter: Duration::from_millis(15),
                ..LinkConfig::delay(Duration::from_millis(80))
            },
            Weather::Mobile => LinkConfig::mobile(),
        };
        self.world.link(self.clients[client], self.server, &link);
    }

    pub(super) fn impair(&mut self, client: usize, way: Way, fault: Fault) {
        self.faults = true;
        let (client, server) = (self.clients[client], self.server);
        let network = self.world.network_mut();
        let ways: &[_] = match way {
            Way::Up => &[(client, server)],
            Way::Down => &[(server, client)],
            Way::Both => &[(client, server), (server, client)],
        };
        for &(from, to) in ways {
            let link = network.link(from, to);
            let per_mille = Chance::per_mille;
            match fault {
                Fault::Loss => link.loss = Loss::even(per_mille(200)),
                Fault::Bursts => link.loss = Loss::bursts(per_mille(50), per_mille(50)),
                Fault::Delay => link.delay += Duration::from_millis(500),
                Fault::Duplicate => link.duplicate = per_mille(300),
                Fault::Reorder => link.reorder = per_mille(200),
                Fault::Corrupt => link.corrupt = per_mille(100),
                Fault::Narrow => (link.rate, link.queue) = (Some(20_000), 6_000),
                Fault::Short => link.mtu = 1200,
                Fault::Cut => link.cut = true,
            }
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Handles all events that wait, and those that follow from it.
    pub(super) fn settle(&mut self) -> Check {
        for _ in 0..1000 {
            let mut events = Vec::new();
            while let Some(event) = self.world.poll() {
                let is_end = matches!(event.2, Event::Closed(_));
                events.push(event);
                // The next poll may remove the tunnel, and what it has received with it.
                if is_end {
                    break;
                }
            }
            if events.is_empty() {
                self.check_suspects()?;
                return self.check();
            }
            self.check_queue(&events)?;
            for (host, id, event) in events {
                let life = self.lives[&host];
                self.event(Key { host, life, id }, event)?;
            }
        }
        Err("events follow events without end".to_owned())
    }

    /// Lets time pass up to a time since the start.
    pub(super) fn wait_until(&mut self, until: Duration) -> Check {
        self.run_until(until, |_| false).map(drop)
    }

    /// The same, but not after `done`. Returns whether that was so in time.
    pub(super) fn run_until(&mut self, until: Duration, done: impl Fn(&Self) -> bool) -> Check<bool> {
        loop {
            self.settle()?;
            if done(self) {
                return Ok(true);
            }
            if self.step(until)? == Step::Waited {
                self.settle()?;
                return Ok(done(self));
            }
        }
    }

    fn check_suspects(&mut self) -> Check {
        for suspect in std::mem::take(&mut self.suspects) {
            let over = match suspect {
                Suspect::Tunnel(index, side) => self.model.tunnels[index].party(side).is_over(),
                Suspect::Stream(index, side) => self.model.streams[index].seat(side) == Seat::Over,
            };
            hold!(over, "{suspect:?} says that it is over, and no event says why");
        }
        Ok(())
    }

    /// At most one `Readable` and one `Writable` of each stream is in the queue.
    fn check_queue(&self, events: &[(Host, TunnelId, Event)]) -> Check {
        let mut seen = BTreeSet::new();
        for (host, id, event) in events {
            let fresh = match event {
                Event::Readable { stream } => seen.insert((*host, *id, *stream, true)),
                Event::Writable { stream } => seen.insert((*host, *id, *stream, false)),
                _ => true,
            };
            hold!(fresh, "two of {event:?} in one queue");
        }
        Ok(())
    }

    /// What holds at any time.
    fn check(&mut self) -> Check {
        let now = self.world.elapsed();
        self.check_strangers()?;
        self.check_headers()?;
        for (index, tunnel) in self.model.tunnels.iter().enumerate() {
            for side in Side::BOTH {
                let party = tunnel.party(side);
                let limits = self.limits_of(side);
                let since = match party.phase {
                    Phase::Stranger => tunnel.since,
                    Phase::Claimed(_, since) => since,
                    _ => continue,
                };
                // The connecting side waits as long for the handshake, and then for the word of the other.
                let longest = match side {
                    Side::Server => limits.authentication_time,
                    Side::Client => limits.authentication_time * 2 + limits.farewell_time,
                };
                hold!(
                    now <= since + longest,
                    "{side:?} of tunnel {index} is neither authenticated nor closed since {since:?}"
                );
            }
        }
        for (index, stream) in self.model.streams.iter().enumerate() {
            for side in Side::BOTH {
                let limits = self.limits_of(side);
                let due = match stream.seat(side) {
                    Seat::Asked(at) => at + limits.answer_time,
                    Seat::Offered(at) => at + limits.dial_time,
                    _ => continue,
                };
                hold!(now <= due, "{side:?} of stream {index} waits since before {due:?}");
            }
        }
        self.check_streams()
    }

    /// No more streams than each side allows its peer.
    fn check_streams(&self) -> Check {
        for (index, tunnel) in self.model.tunnels.iter().enumerate() {
            for side in Side::BOTH {
                let Some(key) = tunnel.party(side).key.filter(|_| !tunnel.party(side).is_over()) else {
                    continue;
                };
                let open = self.world.tunnel(key.host, key.id).map_or(0, |tunnel| tunnel.open_streams());
                if side == Side::Server && !tunnel.party(side).is_up() {
                    hold!(open == 0, "{open} streams of a stranger were taken in");
                }
                let most = self.limits_of(side).streams + self.limits_of(side.other()).streams;
                hold!(open <= most as usize, "{open} streams are open in tunnel {index}");
            }
        }
        Ok(())
    }
}
