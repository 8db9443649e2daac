//! How many clients are served within three seconds while a crowd of strangers takes all places that it can get, in virtual time:
//! the same numbers on every machine.

use clap::Parser;
use snocat_tests::crowd::{Crowd, Networks, crowd};

/// Clients served beside a crowd of strangers, in the simulator
#[derive(Debug, Parser)]
struct Options {
    /// Connections that the crowd begins in a second
    #[arg(long, default_value_t = 300)]
    rate: u32,

    /// Places for strangers; the caps of a source and so on are in proportion
    #[arg(long, default_value_t = 1024)]
    places: usize,

    /// The seed of all that is random
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    println!("{:24} {:>10} {:>10} {:>10} {:>10} {:>8}", "crowd", "new", "median", "known", "median", "peak");
    let rows = [
        (1, Networks::Addresses),
        (6, Networks::Addresses),
        (18, Networks::Addresses),
        (64, Networks::Addresses),
        (256, Networks::Addresses),
        (1024, Networks::Addresses),
        (2048, Networks::Addresses),
        (256, Networks::Of56),
        (1024, Networks::Of48),
    ];
    for (sources, networks) in rows {
        let outcome = |known| {
            crowd(
                options.seed,
                Crowd { sources, networks, places: options.places, rate: options.rate, known },
            )
        };
        let (new, known) = (outcome(false), outcome(true));
        let name = match networks {
            Networks::Addresses => format!("{sources} addresses"),
            Networks::Of56 => format!("{sources} /64s of one /56"),
            Networks::Of48 => format!("{sources} /64s of one /48"),
        };
        let percent = |served: f64| format!("{:.0} %", served * 100.0);
        let milliseconds = |outcome: &snocat_tests::crowd::Outcome| match outcome.served {
            0.0 => "-".to_owned(),
            _ => format!("{} ms", outcome.median.as_millis()),
        };
        println!(
            "{name:24} {:>10} {:>10} {:>10} {:>10} {:>8}",
            percent(new.served),
            milliseconds(&new),
            percent(known.served),
            milliseconds(&known),
            new.counts.peak.max(known.counts.peak),
        );
    }
}
