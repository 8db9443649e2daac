//! What can be asked of the benchmark.

use std::str::FromStr;
use std::time::Duration;

use clap::Parser;

use crate::measure::Measure;
use crate::path;
use crate::place::Where;
use crate::steady::Window;
use crate::system::System;

/// What forwarding costs: direct TCP, a plain relay, raw quinn and snocat, side by side
#[derive(Debug, Parser)]
#[command(
    name = "forwarding",
    after_help = "\
Examples:
  cargo bench -p snocat-tests --bench forwarding
  cargo bench -p snocat-tests --bench forwarding -- --short
  cargo bench -p snocat-tests --bench forwarding -- --only direct/bulk --only snocat/bulk --place loopback

Systems:  direct, relay, quinn, snocat, snocat-smol
Measures: bulk-1-down, bulk-1-up, bulk-8-down, bulk-8-up, ping-pong, connect, connect-64,
          fair-64-down, fair-64-up, quiet, memory, tunnels
          ten-thousand, only if it is asked for
On paths: first-byte, quiet, goodput-1-down, goodput-1-up, goodput-8-down, goodput-8-up,
          neighbour-down, neighbour-up, pair-down, pair-up"
)]
pub struct Options {
    /// Two minutes at most: two rounds of shorter measures, no counting of packets; neighbours and paths only if asked for
    #[arg(long)]
    pub short: bool,

    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,

    /// How often everything is measured [default: 5, with --short 2; on the paths 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Measure only this (repeatable): `snocat/bulk`, `snocat`, `/connect`. A measure is meant by how its name begins
    #[arg(long, value_name = "SYSTEM/MEASURE")]
    only: Vec<Filter>,

    /// Measure only here (repeatable)
    #[arg(long, value_name = "PLACE")]
    place: Vec<Where>,

    /// The congestion control of snocat's servers and clients [default: theirs]
    #[arg(long, value_name = "NAME")]
    pub congestion: Option<String>,

    /// How long ten thousand tunnels are held
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    hold: u64,

    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// How many rounds there are.
    pub fn rounds(&self) -> usize {
        self.rounds.map_or(if self.short { 2 } else { 5 }, usize::from)
    }

    /// Whether this is to be measured.
    pub fn wants(&self, system: System, measure: Measure) -> bool {
        let name = measure.name();
        if measure.is_long() || self.short && measure.is_about_neighbours() {
            return self.only.iter().any(|filter| filter.names_a_measure() && filter.takes(system, name));
        }
        self.wants_named(system, name)
    }

    /// Whether the measure of this name is to be taken.
    pub fn wants_named(&self, system: System, measure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|filter| filter.takes(system, measure))
    }

    /// Where it is to be measured.
    pub fn places(&self) -> Vec<Where> {
        let wanted = |place: &Where| match self.place.as_slice() {
            [] => !(self.short && place.is_path()),
            places => places.contains(place),
        };
        Where::ALL.into_iter().filter(wanted).collect()
    }

    /// How many rounds there are on the paths, each of which takes about 20 minutes.
    pub fn path_rounds(&self) -> usize {
        self.rounds.map_or(1, usize::from)
    }

    /// When the bytes of a steady transfer are counted.
    pub fn goodput_window(&self) -> Window {
        self.window(20)
    }

    /// The same where two share the path.
    pub fn sharing_window(&self) -> Window {
        self.window(30)
    }

    fn window(&self, seconds: u64) -> Window {
        let [skip, time] = if self.short { [2, 4] } else { [5, seconds] }.map(Duration::from_secs);
        Window { skip, time }
    }

    /// How long visitors come to the path, one after another.
    pub fn path_latency_time(&self) -> Duration {
        Duration::from_secs(if self.short { 3 } else { 12 })
    }

    /// How long a bulk transfer goes on.
    pub fn bulk_time(&self) -> Duration {
        Duration::from_millis(if self.short { 500 } else { 2000 })
    }

    /// How long ten thousand tunnels are held.
    pub fn hold_time(&self) -> Duration {
        Duration::from_secs(self.hold)
    }

    /// How long one connection, or one worker, is busy.
    pub fn latency_time(&self) -> Duration {
        Duration::from_millis(if self.short { 250 } else { 1000 })
    }
}

/// A part of all measures: those of one system, or one of all systems, or both.
#[derive(Clone, Debug)]
struct Filter {
    system: Option<System>,
    measure: String,
}

impl Filter {
    /// Whether it is more than a system.
    fn names_a_measure(&self) -> bool {
        !self.measure.is_empty()
    }

    fn takes(&self, system: System, measure: &str) -> bool {
        self.system.is_none_or(|only| only == system) && measure.starts_with(&self.measure)
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (system, measure) = text.split_once('/').unwrap_or((text, ""));
        let named = |name: &str| System::ALL.into_iter().find(|system| system.name() == name);
        let system = match system {
            "" | "*" => None,
            name => Some(named(name).ok_or_else(|| format!("there is no system `{name}`"))?),
        };
        let measure = if measure == "*" { "" } else { measure };
        let mut known =
            Measure::ALL.into_iter().map(Measure::name).chain(path::Measure::all().map(path::Measure::name));
        if !known.any(|known| known.starts_with(measure)) {
            return Err(format!("no measure begins with `{measure}`"));
        }
        Ok(Self { system, measure: measure.to_owned() })
    }
}
