//! The tunnels of this process, by name; and who gets which name.
//!
//! Names belong to identities. A tunnel gets a name that its identity may use and that nobody else has. If an older
//! tunnel of the same identity has it, the newer one takes it over: most likely the older one's client is gone, and
//! nobody has noticed yet.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use snocat_core::auth::{Claim, ListeningConfig, Names as Granted, Suggestion, TunnelName};
use snocat_core::{Code, Refusal, TunnelId};

use crate::runtime::Runtime;
use crate::sync::lock;
use crate::tunnel::Tunnel;

/// Names that are made up before it is given up, because each of them belongs to somebody.
const MADE_UP: u32 = 16;

/// The tunnels of this process that are up, by name.
pub struct TunnelTable<R: Runtime>(Mutex<State<R>>);

struct State<R: Runtime> {
    names: BTreeMap<String, TunnelId>,
    entries: BTreeMap<TunnelId, Entry<R>>,
    /// The number of the next name that is made up.
    next: u64,
}

/// A tunnel that has a name, or had it until a newer one took it over.
struct Entry<R: Runtime> {
    name: String,
    identity: Option<String>,
    /// Which of the server's configurations has let it in.
    generation: u64,
    /// Set once it is up.
    tunnel: Option<Tunnel<R>>,
}

/// A name that was given away.
pub(crate) struct Reserved<R: Runtime> {
    pub(crate) name: TunnelName,
    /// The tunnel that had it until now. It is to be closed.
    pub(crate) superseded: Option<Tunnel<R>>,
}

/// What became of a tunnel between its admission and its being up.
pub(crate) struct Filled {
    /// It still has its name.
    pub(crate) holds_name: bool,
    pub(crate) generation: u64,
}

impl<R: Runtime> Default for TunnelTable<R> {
    fn default() -> Self {
        Self(Mutex::new(State { names: BTreeMap::new(), entries: BTreeMap::new(), next: 1 }))
    }
}

impl<R: Runtime> fmt::Debug for TunnelTable<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelTable").field("tunnels", &self.len()).finish_non_exhaustive()
    }
}

impl<R: Runtime> TunnelTable<R> {
    /// The tunnel of this name, if it is up.
    pub fn get(&self, name: &str) -> Option<Tunnel<R>> {
        let state = lock(&self.0);
        state.entries.get(state.names.get(name)?)?.tunnel.clone()
    }

    /// How many are up.
    pub fn len(&self) -> usize {
        lock(&self.0).entries.values().filter(|entry| entry.tunnel.is_some()).count()
    }

    /// Whether none is up.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that are up.
    pub(crate) fn all(&self) -> Vec<Tunnel<R>> {
        lock(&self.0).entries.values().filter_map(|entry| entry.tunnel.clone()).collect()
    }

    /// Gives the peer that has proven `claim` its name.
    pub(crate) fn reserve(
        &self,
        id: TunnelId,
        claim: &Claim,
        config: &ListeningConfig,
        generation: u64,
    ) -> Result<Reserved<R>, Refusal> {
        let mut state = lock(&self.0);
        let name = match &claim.name {
            Some(name) if config.allows_name(&claim.proven.grant, name) => name.clone(),
            Some(name) => return Err(not_allowed(claim, name)),
            None => state.choose(claim, config)?,
        };
        let identity = claim.proven.identity.clone();
        let holder = state.names.get(name.as_str()).and_then(|id| state.entries.get(id));
        if let Some(holder) = holder
            && (identity.is_none() || holder.identity != identity)
        {
            return Err(Refusal::new(
                Code::NAME_TAKEN,
                format!("the name `{name}` is held by another tunnel"),
            ));
        }
        let superseded = holder.and_then(|holder| holder.tunnel.clone());
        state.names.insert(name.to_string(), id);
        state.entries.insert(id, Entry { name: name.to_string(), identity, generation, tunnel: None });
        Ok(Reserved { name, superseded })
    }

    /// The tunnel is up. `None` if it was never given a name.
    pub(crate) fn fill(&self, tunnel: &Tunnel<R>) -> Option<Filled> {
        let mut state = lock(&self.0);
        let entry = state.entries.get_mut(&tunnel.id())?;
        entry.tunnel = Some(tunnel.clone());
        let generation = entry.generation;
        Some(Filled { holds_name: state.names.get(tunnel.name()) == Some(&tunnel.id()), generation })
    }

    /// The tunnel is gone. Its name is free, if no newer one has taken it over.
    pub(crate) fn remove(&self, id: TunnelId) -> Option<Tunnel<R>> {
        let mut state = lock(&self.0);
        let entry = state.entries.remove(&id)?;
        if state.names.get(&entry.name) == Some(&id) {
            state.names.remove(&entry.name);
        }
        entry.tunnel
    }
}

impl<R: Runtime> State<R> {
    /// A name for a peer that asks for none: one that its credential lists, else its identity if that can be a name and is
    /// free, else a generated one.
    fn choose(&mut self, claim: &Claim, config: &ListeningConfig) -> Result<TunnelName, Refusal> {
        let grant = &claim.proven.grant;
        if grant.names == Granted::Unreserved
            && let Some(name) = self.identity_as_name(claim)
            && config.allows_name(grant, &name)
        {
            return Ok(name);
        }
        let start = match (&grant.names, grant.names.suggest()) {
            (_, Some(Suggestion::Name(name))) => return Ok(name),
            (_, Some(Suggestion::Start(start))) if !start.is_empty() => start,
            (Granted::Only(_), None) => {
                return Err(Refusal::new(Code::NAME_REFUSED, "the credentials allow no tunnel name"));
            }
            _ => "tunnel-".to_owned(),
        };
        // Names that are in use are few and looked up at once. Those that belong to somebody may be all of them (`t*`).
        let mut owned = 0;
        while owned < MADE_UP {
            let name = format!("{start}{}", self.next).parse::<TunnelName>();
            let name = name.map_err(|error| Refusal::new(Code::NAME_INVALID, error.to_string()))?;
            self.next += 1;
            if self.names.contains_key(name.as_str()) {
                continue;
            }
            if config.allows_name(grant, &name) {
                return Ok(name);
            }
            owned += 1;
        }
        Err(Refusal::new(Code::NAME_REFUSED, format!("names that begin with `{start}` belong to somebody")))
    }

    /// The peer's identity, unless a tunnel of another identity has it as its name.
    fn identity_as_name(&self, claim: &Claim) -> Option<TunnelName> {
        let identity = claim.proven.identity.as_deref()?;
        let name = identity.parse::<TunnelName>().ok()?;
        let holder = self.names.get(name.as_str()).and_then(|id| self.entries.get(id));
        holder.is_none_or(|holder| holder.identity.as_deref() == Some(identity)).then_some(name)
    }
}

fn not_allowed(claim: &Claim, name: &TunnelName) -> Refusal {
    let text = match &claim.proven.identity {
        Some(identity) => format!("`{identity}` may not call its tunnel `{name}`"),
        None => format!("the name `{name}` belongs to somebody"),
    };
    Refusal::new(Code::NAME_REFUSED, text)
}
