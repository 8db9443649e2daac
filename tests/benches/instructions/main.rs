//! How many instructions it takes to forward a MiB, and how many allocations: figures that do not depend on the mood of the
//! machine. `docs/Performance.md` says how to run it and what is in it.
//!
//! This executable runs itself again under valgrind, once with few bytes and once with many ([`callgrind`]). The difference
//! is what the bytes cost; handshakes and the search for windows are in both.

mod callgrind;
mod profile;

use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use snocat_tests::{CLIENT, Joined, Protection};

use crate::profile::Profile;

/// Whatever goes wrong ends the benchmark, with a sentence.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const MIB: usize = 1 << 20;
/// Until windows are found.
const WARM_UP: usize = 8;
/// What a path of 1,500 bytes takes, over IPv6 as well.
const MTU: u16 = 1452;
/// MiB of the two runs.
const FEW: usize = 8;
const MANY: usize = 24;

/// Instructions and allocations of a forwarded MiB, sender and receiver together
#[derive(Debug, Parser)]
#[command(name = "instructions")]
struct Options {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// How many functions are listed
    #[arg(long, value_name = "N", default_value_t = 15)]
    functions: usize,

    /// Forward so many MiB and say nothing: what is run under valgrind
    #[arg(long, value_name = "MIB")]
    forward: Option<usize>,

    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.forward {
        Some(mib) => {
            forward(mib);
            Ok(())
        }
        None => count(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn forward(mib: usize) {
    // A tunnel that always has something to send does not look for longer datagrams: this one has had the time.
    let mut joined = Joined::idle(Protection::Tls, 1);
    let stream = joined.open();
    joined.carry(stream, (WARM_UP + mib) * MIB);
    let (_, tunnel) = joined.tunnel(CLIENT);
    assert_eq!(tunnel.mtu(), MTU, "the figure is about datagrams of this length");
}

fn count(options: &Options) -> Result<()> {
    let few = callgrind::run(FEW)?;
    let many = callgrind::run(MANY)?;
    let each = many.minus(&few).per((MANY - FEW) as f64);
    if options.json {
        println!("{}", json(&each, options.functions));
    } else {
        print!("{}", table(&each, options.functions));
    }
    Ok(())
}

fn json(each: &Profile, functions: usize) -> serde_json::Value {
    let most = each.most(functions).into_iter().map(|(name, instructions)| {
        json!({ "function": name, "instructions": instructions, "share": instructions / each.total() })
    });
    json!({
        "instructions_per_mib": each.total(),
        "allocations_per_mib": each.allocations,
        "functions": most.collect::<Vec<_>>(),
    })
}

fn table(each: &Profile, functions: usize) -> String {
    let mut text = format!(
        "instructions per MiB  {:>11.0}\nallocations per MiB   {:>11.1}\n\n",
        each.total(),
        each.allocations
    );
    for (name, instructions) in each.most(functions) {
        let share = 100.0 * instructions / each.total();
        text.push_str(&format!("{instructions:>11.0}  {share:>5.1} %  {name}\n"));
    }
    text
}
