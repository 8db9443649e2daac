//! Many tunnels on one uplink, each begun a second after the one before.

use std::time::Duration;

use clap::Args;
use snocat_driver::core::CongestionControl::Bbr;
use snocat_driver::core::sim::Chance;
use snocat_tests::goodput::{Outcome, Path, Sender, goodput, jain};

/// Which crowds, and on which queues
#[derive(Debug, Args)]
pub struct Crowds {
    /// A grid of crowds on queues of different length, instead of the paths
    #[arg(long)]
    pub crowds: bool,

    /// How many tunnels
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', default_value = "2,4,8,16,32,64")]
    pub tunnels: Vec<usize>,

    /// How long the queue is, in hundredths of the bandwidth-delay product
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_value = "10,20,50,100,200,500,1000")]
    pub queues: Vec<u32>,
}

/// The added delay is at most so much of the round trip without a queue, in percent.
const ADDED: u32 = 150;
/// The least of the sum, and of Jain's index.
const LEAST: f64 = 0.9;

const ROUND_TRIP: Duration = Duration::from_millis(50);

impl Crowds {
    pub fn run(&self, seed: u64) {
        println!("{:>7} {:>9} {:>6} {:>6} {:>9}", "tunnels", "queue, ms", "sum", "Jain", "added, ms");
        for &tunnels in &self.tunnels {
            for &queue in &self.queues {
                let queue = ROUND_TRIP * queue / 100;
                let outcome = crowd(seed, tunnels, queue);
                let (sum, jain) = (outcome.shares.iter().sum::<f64>(), jain(&outcome.shares));
                let is_met = sum >= LEAST && jain >= LEAST && outcome.added <= ROUND_TRIP * ADDED / 100;
                let added = outcome.added.as_secs_f64() * 1000.0;
                let mark = if is_met { "" } else { "  NOT MET" };
                println!("{tunnels:7} {:9} {sum:6.3} {jain:6.3} {added:9.1}{mark}", queue.as_millis());
            }
        }
    }
}

/// 100 Mbit/s, 50 ms. Counted for 20 s, from a minute after the last has begun.
fn crowd(seed: u64, tunnels: usize, queue: Duration) -> Outcome {
    let path = Path { rate: 100, round_trip: ROUND_TRIP, queue, loss: Chance::NEVER, later: None };
    let starts = (0..tunnels).map(|number| Duration::from_secs(number as u64));
    let senders: Vec<Sender> = starts.map(|start| Sender { congestion: Bbr, streams: 1, start }).collect();
    let from = Duration::from_secs(tunnels as u64 + 59);
    goodput(seed, &path, &senders, from, from + Duration::from_secs(20))
}
