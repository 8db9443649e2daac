//! What can be asked of the benchmark.

use std::str::FromStr;
use std::time::Duration;

use clap::Parser;

use crate::measure::Measure;
use crate::place::Where;
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
Measures: bulk-1-down, bulk-1-up, bulk-8-down, bulk-8-up, ping-pong, connect, connect-64, memory, tunnels"
)]
pub struct Options {
    /// Two minutes at most: two rounds of shorter measures, and no counting of packets
    #[arg(long)]
    pub short: bool,

    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,

    /// How often everything is measured [default: 5; with --short: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Measure only this (repeatable): `snocat/bulk`, `snocat`, `/connect`. A measure is meant by how its name begins
    #[arg(long, value_name = "SYSTEM/MEASURE")]
    only: Vec<Filter>,

    /// Measure only here
    #[arg(long, value_name = "PLACE")]
    place: Option<Where>,

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
        self.only.is_empty() || self.only.iter().any(|filter| filter.takes(system, measure))
    }

    /// Where it is to be measured.
    pub fn places(&self) -> Vec<Where> {
        [Where::Loopback, Where::Wire]
            .into_iter()
            .filter(|place| self.place.is_none_or(|only| only == *place))
            .collect()
    }

    /// How long a bulk transfer goes on.
    pub fn bulk_time(&self) -> Duration {
        Duration::from_millis(if self.short { 500 } else { 2000 })
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
    fn takes(&self, system: System, measure: Measure) -> bool {
        self.system.is_none_or(|only| only == system) && measure.name().starts_with(&self.measure)
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
        if !Measure::ALL.iter().any(|known| known.name().starts_with(measure)) {
            return Err(format!("no measure begins with `{measure}`"));
        }
        Ok(Self { system, measure: measure.to_owned() })
    }
}
