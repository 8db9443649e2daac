//! Whole runs of a server and its clients on a simulated network, as values: a configuration, a seed and a list
//! of operations.
//!
//! Operations are total. They name "the n-th living tunnel, modulo how many there are", and do nothing where
//! there is none; so any of them can be taken out and the rest still makes sense. That is what makes shrinking
//! work. A scenario is also what any bytes decode to, so that a fuzzer can make them.

mod act;
mod arbitrary;
mod crypto;
mod decode;
mod events;
mod heal;
mod run;
mod strangers;
mod streams;

use std::fmt;

pub use self::crypto::Crypto;
pub use self::run::{Failure, Report};
pub use crate::model::{Pace, Side};

/// What happens in a run.
#[derive(Clone, PartialEq, Eq)]
pub struct Scenario {
    /// What holds during the whole run.
    pub config: Config,
    /// Where all randomness of nodes and network comes from.
    pub seed: u64,
    /// What is done, in order.
    pub ops: Vec<Op>,
}

/// What holds during a whole run.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// What all links are like before something is done to them.
    pub weather: Weather,
    /// How many clients there are besides the first one, at most two.
    pub more_clients: u8,
    /// The limits of the server.
    pub server: Size,
    /// The limits of the clients.
    pub client: Size,
    /// When authentications are decided.
    pub decisions: Timing,
    /// When offered streams are answered.
    pub answers: Timing,
    /// Whether clients wait with their authentication for a word of the application.
    pub hold: bool,
    /// Whether nodes send several datagrams at once.
    pub segments: bool,
    /// Whether the server's certificates are longer than what may be sent to an address before it is validated.
    pub long_chain: bool,
}

/// What links are like.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub enum Weather {
    /// 10 ms and nothing else.
    #[default]
    Calm,
    /// No delay at all.
    Still,
    /// 80 ms with jitter.
    Far,
    /// A bad mobile network.
    Mobile,
}

/// Limits.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub enum Size {
    /// The defaults.
    #[default]
    Default,
    /// So small that a scenario meets all of them.
    Tight,
}

/// When a decision is made.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub enum Timing {
    /// At once, and well.
    #[default]
    AtOnce,
    /// When an operation says so.
    Late,
}

/// What a client authenticates with.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Its own secret.
    Right,
    /// A secret that nobody knows.
    Wrong,
    /// Nothing, which the server takes.
    Nothing,
    /// Nothing, and after it its own secret, which the server prefers.
    NothingFirst,
}

/// Strangers that come at once.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Crowd {
    /// Clients with a wrong credential, which answer whatever they are asked.
    Unknown,
    /// Attempts in the name of the client's address, which nobody there knows of.
    Forged,
    /// Attempts in the name of many addresses, at which nobody is.
    Scattered,
}

/// A direction between a client and the server.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Up,
    /// To the client.
    Down,
    /// Both.
    Both,
}

/// What can be wrong with a link.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every fifth datagram is lost.
    Loss,
    /// Loss in long bursts.
    Bursts,
    /// Half a second more.
    Delay,
    /// Many arrive twice.
    Duplicate,
    /// Many are overtaken.
    Reorder,
    /// Many have a flipped bit.
    Corrupt,
    /// 20 kB/s and a short queue.
    Narrow,
    /// Nothing longer than 1,200 bytes.
    Short,
    /// Nothing.
    Cut,
}

/// One thing that is done. What is named by a number is the one of that number, modulo how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants tell what their numbers are")]
pub enum Op {
    /// A client connects, and asks for so many ports together with its authentication.
    Connect { client: u8, credential: Credential, bindings: u8 },
    /// So many strangers come from where a client is.
    Flood { client: u8, size: u8, crowd: Crowd },
    /// The n-th authentication that waits for it is decided.
    Decide { nth: u8, admit: bool },
    /// One side of the n-th tunnel opens a stream and writes so much ahead; the header may be a long one. Its peer reads
    /// at this pace.
    Open { tunnel: u8, by: Side, ahead: u16, long: bool, pace: Pace },
    /// The n-th offered stream that waits for it is answered.
    Answer { nth: u8, accept: bool },
    /// So much is to be written into the n-th direction of a stream that is open.
    Write { nth: u8, length: u16 },
    /// The n-th direction that is open is read in another way from now on.
    Pace { nth: u8, pace: Pace },
    /// So much of the n-th direction that is open is read, whatever its pace.
    Read { nth: u8, length: u16 },
    /// The n-th direction that is open ends when everything is written.
    Finish { nth: u8 },
    /// The n-th direction that is open is cut off by its writer.
    Reset { nth: u8, code: u8 },
    /// The n-th direction that is open fails behind what was written.
    Fail { nth: u8, code: u8 },
    /// The n-th direction that is open is cut off by its reader.
    Stop { nth: u8, code: u8 },
    /// One side of the n-th tunnel asks for a port.
    Bind { tunnel: u8, by: Side },
    /// One side of the n-th tunnel doubts that the other one lives.
    Probe { tunnel: u8, by: Side },
    /// One side of the n-th tunnel closes it.
    Close { tunnel: u8, by: Side, code: u8 },
    /// Something goes wrong with a client's link.
    Impair { client: u8, way: Way, fault: Fault },
    /// A client's link is what it was at the start.
    Mend { client: u8 },
    /// A client's address changes.
    Rebind { client: u8 },
    /// A node is killed: the server is number 0.
    Crash { host: u8 },
    /// A node that was killed is started anew.
    Restart { host: u8 },
    /// Bytes that mean nothing are sent from a client to the server, or back.
    Noise { client: u8, way: Way, length: u16 },
    /// Time passes.
    Wait { milliseconds: u16 },
}

/// All that is needed to paste a printed scenario into a test.
pub mod paste {
    pub use super::{Config, Scenario};
    pub use crate::model::{Pace::*, Side::*};
    pub use crate::scenario::Credential::*;
    pub use crate::scenario::Crowd::*;
    pub use crate::scenario::Fault::*;
    pub use crate::scenario::Op::*;
    pub use crate::scenario::Size::*;
    pub use crate::scenario::Timing::*;
    pub use crate::scenario::Way::*;
    pub use crate::scenario::Weather::*;
}

/// Rust that can be pasted into a test which uses [`paste`].
impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nScenario {{")?;
        writeln!(f, "    config: {:?},", self.config)?;
        writeln!(f, "    seed: {:#x},", self.seed)?;
        writeln!(f, "    ops: vec![")?;
        for op in &self.ops {
            writeln!(f, "        {op:?},")?;
        }
        writeln!(f, "    ],")?;
        writeln!(f, "}}")
    }
}
