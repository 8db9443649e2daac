//! What the parts of the protocol cost by themselves, without a socket: the codecs, an authentication, a node that has
//! nothing to do, and two nodes in memory. `docs/Performance.md` says how to run it.

mod codecs;
mod idle;
mod nodes;

use std::time::Duration;

/// Long enough that the first runs, which fill the caches, do not count.
const AT_LEAST: Duration = Duration::from_millis(500);

fn main() {
    divan::Divan::default().min_time(AT_LEAST).config_with_args().main();
}
