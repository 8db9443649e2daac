//! The paths, and who sends on them.

use std::time::Duration;

use snocat_driver::core::CongestionControl;
use snocat_driver::core::sim::Chance;
use snocat_tests::goodput::{Path, Sender};

/// One path, with those who send on it.
pub struct Row {
    pub name: &'static str,
    pub path: Path,
    /// Streams of the one that is looked at.
    streams: usize,
    /// When it begins, in seconds.
    start: u64,
    /// The others, whether each has the control that is looked at or CUBIC, and when it begins.
    others: Vec<(Other, u64)>,
    /// What is counted, in seconds.
    pub counted: [u64; 2],
}

#[derive(Clone, Copy)]
enum Other {
    Same,
    Cubic,
}

impl Row {
    /// All who send if this is the control that is looked at.
    pub fn senders(&self, congestion: CongestionControl) -> Vec<Sender> {
        let start = Duration::from_secs(self.start);
        let first = Sender { congestion, streams: self.streams, start };
        let others = self.others.iter().map(|(other, start)| Sender {
            congestion: match other {
                Other::Same => congestion,
                Other::Cubic => CongestionControl::Cubic,
            },
            streams: 1,
            start: Duration::from_secs(*start),
        });
        std::iter::once(first).chain(others).collect()
    }
}

/// 300 Mbit/s, 50 ms there and back, and a queue of 50 ms.
fn bad() -> Path {
    Path {
        rate: 300,
        round_trip: Duration::from_millis(50),
        queue: Duration::from_millis(50),
        loss: Chance::NEVER,
        later: None,
    }
}

fn row(name: &'static str, path: Path) -> Row {
    Row { name, path, streams: 1, start: 0, others: Vec::new(), counted: [5, 25] }
}

pub fn rows() -> Vec<Row> {
    use Other::{Cubic, Same};
    let ms = Duration::from_millis;
    let lossy = |per_mille| Path { loss: Chance::per_mille(per_mille), ..bad() };
    let queue = |time| Path { queue: ms(time), ..bad() };
    let narrow = |time| Path { rate: 100, later: Some((Duration::from_secs(5), 10)), ..queue(time) };
    let slow = Path { rate: 10, round_trip: ms(20), ..bad() };
    let fast = Path { rate: 1000, round_trip: ms(5), queue: ms(5), ..bad() };
    let beside = |name, path, others: &[(Other, u64)], counted| Row {
        others: others.to_vec(),
        counted,
        ..row(name, path)
    };
    vec![
        row("1 stream", bad()),
        Row { streams: 8, ..row("8 streams", bad()) },
        row("1 % loss", lossy(10)),
        Row { streams: 8, ..row("1 % loss, 8 streams", lossy(10)) },
        row("5 % loss", lossy(50)),
        row("8 % loss", lossy(80)),
        row("12 % loss", lossy(120)),
        beside("beside CUBIC", bad(), &[(Cubic, 0)], [0, 30]),
        Row { start: 5, ..beside("beside CUBIC, 5 s later", bad(), &[(Cubic, 0)], [5, 35]) },
        beside("beside CUBIC, 5 s earlier", bad(), &[(Cubic, 5)], [5, 35]),
        beside("beside two CUBIC", bad(), &[(Cubic, 0), (Cubic, 0)], [0, 30]),
        beside("two", bad(), &[(Same, 0)], [0, 30]),
        beside("two, 5 s apart", bad(), &[(Same, 5)], [5, 35]),
        beside("two, 5 s apart, 1 % loss", lossy(10), &[(Same, 5)], [5, 35]),
        beside("four, 2 s apart", bad(), &[(Same, 2), (Same, 4), (Same, 6)], [6, 36]),
        Row { counted: [5, 65], ..row("100 Mbit/s, 1 ms", Path { rate: 100, ..queue(1) }) },
        beside("100 Mbit/s, 1 ms, CUBIC", Path { rate: 100, ..queue(1) }, &[(Cubic, 0)], [5, 65]),
        beside("100 Mbit/s, 2 ms, CUBIC", Path { rate: 100, ..queue(2) }, &[(Cubic, 0)], [5, 65]),
        Row { counted: [5, 65], ..row("queue of 1 ms", queue(1)) },
        beside("queue of 1 ms, CUBIC", queue(1), &[(Cubic, 0)], [5, 65]),
        beside("queue of 2 ms, CUBIC", queue(2), &[(Cubic, 0)], [5, 65]),
        row("queue of 5 ms", queue(5)),
        beside("queue of 5 ms, two", queue(5), &[(Same, 5)], [5, 35]),
        beside("queue of 5 ms, CUBIC", queue(5), &[(Cubic, 0)], [0, 30]),
        row("queue of 500 ms", queue(500)),
        beside("queue of 500 ms, CUBIC", queue(500), &[(Cubic, 0)], [0, 30]),
        Row { counted: [6, 26], ..row("100 to 10 Mbit/s at 5 s", narrow(50)) },
        Row { counted: [6, 26], ..row("the same, queue of 500 ms", narrow(500)) },
        row("10 Mbit/s, 20 ms", slow.clone()),
        row("10 Mbit/s, 20 ms, 1 % loss", Path { loss: Chance::per_mille(10), ..slow.clone() }),
        beside("10 Mbit/s, 20 ms, two", slow.clone(), &[(Same, 5)], [5, 35]),
        beside("10 Mbit/s, 20 ms, CUBIC", slow, &[(Cubic, 0)], [0, 30]),
        Row { counted: [2, 7], ..row("1 Gbit/s, 5 ms", fast.clone()) },
        beside("1 Gbit/s, 5 ms, CUBIC", fast, &[(Cubic, 0)], [0, 10]),
    ]
}
