//! How much of a bottleneck each congestion control uses, and what it leaves to others, in virtual time: the same numbers on every
//! machine. `docs/Performance.md` says how to read it.

mod crowds;
mod paths;

use std::time::Duration;

use clap::Parser;
use snocat_driver::core::CongestionControl;
use snocat_tests::goodput::{Outcome, goodput, jain};

use crate::crowds::Crowds;
use crate::paths::{Row, rows};

/// Goodput of the congestion controls in the simulator
#[derive(Debug, Parser)]
struct Options {
    /// One object instead of a table
    #[arg(long)]
    json: bool,

    /// Only rows whose name begins like this; repeatable
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// The seed of all that is random
    #[arg(long, default_value_t = 1)]
    seed: u64,

    #[command(flatten)]
    crowds: Crowds,

    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    if options.crowds.crowds {
        return options.crowds.run(options.seed);
    }
    let is_wanted =
        |row: &Row| options.only.is_empty() || options.only.iter().any(|name| row.name.starts_with(name));
    if !options.json {
        println!("{:28} {:6} {:>6} {:>6} {:>9}  each", "path", "", "sum", "Jain", "added, ms");
    }
    let mut all = Vec::new();
    for row in rows().into_iter().filter(is_wanted) {
        for (name, congestion) in [("bbr", CongestionControl::Bbr), ("cubic", CongestionControl::Cubic)] {
            let [from, until] = row.counted.map(Duration::from_secs);
            let outcome = goodput(options.seed, &row.path, &row.senders(congestion), from, until);
            if options.json {
                all.push(json(&row, name, &outcome));
            } else {
                line(&row, name, &outcome);
            }
        }
    }
    if options.json {
        println!("{}", serde_json::json!({ "seed": options.seed, "rows": all }));
    }
}

fn line(row: &Row, name: &str, outcome: &Outcome) {
    let each: Vec<String> = outcome.shares.iter().map(|share| format!("{share:.3}")).collect();
    let (sum, jain) = (outcome.shares.iter().sum::<f64>(), jain(&outcome.shares));
    let added = outcome.added.as_secs_f64() * 1000.0;
    println!("{:28} {name:6} {sum:6.3} {jain:6.3} {added:9.1}  {}", row.name, each.join(" "));
}

fn json(row: &Row, name: &str, outcome: &Outcome) -> serde_json::Value {
    serde_json::json!({
        "path": row.name,
        "congestion": name,
        "shares": outcome.shares,
        "jain": jain(&outcome.shares),
        "added_ms": outcome.added.as_secs_f64() * 1000.0,
    })
}
