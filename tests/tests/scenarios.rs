//! Whole runs against the model: any of them, and those that once failed. `docs/Testing.md` tells how to run more.

use quickcheck::quickcheck;
use snocat_tests::scenario::Scenario;
use snocat_tests::scenario::paste::*;
use snocat_tests::seed;

/// What 500 scenarios must have met at least once, else they say nothing about it.
const MET: &[&str] = &[
    "accepted",
    "admitted",
    "authenticated",
    "bound",
    "closed by the peer",
    "crashed",
    "finished",
    "lost by a reset",
    "lost by silence",
    "no header in time",
    "no stream left",
    "not answered in time",
    "offer cancelled",
    "opened early",
    "read after the end",
    "read to the end",
    "refused by the peer",
    "reset by the peer",
    "stopped",
    "stranger asked to retry",
    "stranger ignored by a draw",
    "stranger ignored in all",
    "stranger ignored of one source",
    "stranger let in",
    "stranger let in after a Retry",
    "stranger let in by a draw",
];

#[test]
fn any_scenario_ends_well() {
    let count = seed::scenarios(500);
    let report = seed::check(count);
    println!("{:?} of virtual time: {:#?}", report.time, report.counts);
    for what in MET.iter().filter(|_| count >= 500) {
        assert!(report.counts.contains_key(what), "none of {count} scenarios has met: {what}");
    }
}

quickcheck! {
    fn any_bytes_are_a_scenario(bytes: Vec<u8>) -> bool {
        let scenario = Scenario::from_bytes(&bytes);
        scenario == Scenario::from_bytes(&bytes) && scenario.ops.len() <= bytes.len()
    }
}

#[test]
fn a_scenario_is_printed_as_rust() {
    let config = Config { weather: Still, client: Tight, ..Config::default() };
    let ops = vec![Connect { client: 0, credential: Right, bindings: 1 }, Wait { milliseconds: 7 }];
    let printed = "
Scenario {
    config: Config { weather: Still, more_clients: 0, server: Default, client: Tight, decisions: AtOnce, \
                   answers: AtOnce, hold: false, segments: false, long_chain: false },
    seed: 0xff,
    ops: vec![
        Connect { client: 0, credential: Right, bindings: 1 },
        Wait { milliseconds: 7 },
    ],
}
";
    assert_eq!(format!("{:?}", Scenario { config, seed: 255, ops }), printed);
}

/// Makes a test of each scenario that failed once.
macro_rules! regressions {
    ($($(#[$doc:meta])* $name:ident: $scenario:expr;)*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                if let Err(failure) = $scenario.run() {
                    panic!("{failure}");
                }
            }
        )*
    };
}

regressions! {
    /// `Node` threw away the events of a tunnel that drained at once: nobody heard of its end.
    a_tunnel_that_drains_at_once_says_why: Scenario {
        config: Config { weather: Calm, more_clients: 0, server: Default, client: Default, decisions: AtOnce, answers: AtOnce, hold: false, segments: false, long_chain: false },
        seed: 0xad9f046c,
        ops: vec![
            Connect { client: 0, credential: Right, bindings: 0 },
            Wait { milliseconds: 10 },
            Crash { host: 0 },
        ],
    };
    /// `Node` polled a tunnel without end whose timer was due at the very moment at which it was set, and never
    /// let it expire.
    a_timer_that_is_due_when_it_is_set_expires: Scenario {
        config: Config { weather: Still, more_clients: 0, server: Default, client: Tight, decisions: AtOnce, answers: AtOnce, hold: false, segments: false, long_chain: false },
        seed: 0xff1e17d9,
        ops: vec![
            Connect { client: 0, credential: Nothing, bindings: 0 },
            Wait { milliseconds: 13918 },
            Wait { milliseconds: 633 },
            Impair { client: 0, way: Both, fault: Delay },
            Open { tunnel: 0, by: Server, ahead: 0, long: false, pace: Eager },
            Wait { milliseconds: 0 },
        ],
    };
    /// A tunnel that the peer's application closed during the handshake was told to have failed.
    a_peer_that_gives_up_in_the_handshake_is_no_failure: Scenario {
        config: Config { weather: Calm, more_clients: 0, server: Default, client: Default, decisions: AtOnce, answers: AtOnce, hold: false, segments: false, long_chain: false },
        seed: 0x14148401,
        ops: vec![
            Connect { client: 0, credential: Nothing, bindings: 0 },
            Close { tunnel: 0, by: Client, code: 0 },
        ],
    };
    /// The opener never heard of a STOP_SENDING that came along with the acceptance: the stream never ended.
    an_acceptor_that_stops_at_once_is_heard: Scenario {
        config: Config { weather: Calm, more_clients: 0, server: Default, client: Default, decisions: AtOnce, answers: Late, hold: false, segments: false, long_chain: false },
        seed: 0x5f9c1765,
        ops: vec![
            Connect { client: 0, credential: NothingFirst, bindings: 0 },
            Wait { milliseconds: 20 },
            Open { tunnel: 0, by: Client, ahead: 0, long: false, pace: Eager },
            Wait { milliseconds: 30 },
            Answer { nth: 0, accept: true },
            Stop { nth: 0, code: 0 },
            Wait { milliseconds: 10 },
        ],
    };
    /// Clients that had given up, with tokens of the server's life before, answered each Retry with their last word, and the
    /// server each last word with a Retry: at one instant where the way takes no time, and more each time where some arrive
    /// twice.
    a_last_word_is_not_repeated_without_end: Scenario {
        config: Config { weather: Still, more_clients: 1, server: Tight, client: Default, decisions: AtOnce, answers: AtOnce, hold: false, segments: false, long_chain: false },
        seed: 0x9ca350d1,
        ops: vec![
            Flood { client: 15, size: 70, crowd: Unknown },
            Wait { milliseconds: 680 },
            Crash { host: 0 },
            Restart { host: 0 },
            Wait { milliseconds: 152 },
            Wait { milliseconds: 294 },
            Wait { milliseconds: 6690 },
            Impair { client: 3, way: Both, fault: Duplicate },
            Wait { milliseconds: 135 },
            Wait { milliseconds: 2049 },
        ],
    };
    /// The model expected a side that does not know yet that its peer is gone to be done with its streams, which have
    /// nobody at their other end: the same weakness as below.
    streams_of_a_tunnel_that_is_lost_are_not_waited_for: Scenario {
        config: Config { weather: Far, more_clients: 1, server: Default, client: Default, decisions: AtOnce, answers: AtOnce, hold: false, segments: false, long_chain: false },
        seed: 0xd29a47b4,
        ops: vec![
            Connect { client: 3, credential: Nothing, bindings: 0 },
            Wait { milliseconds: 346 },
            Open { tunnel: 0, by: Server, ahead: 0, long: true, pace: Eager },
            Open { tunnel: 0, by: Client, ahead: 0, long: false, pace: Eager },
            Wait { milliseconds: 21 },
            Open { tunnel: 0, by: Server, ahead: 1143, long: false, pace: Eager },
            Impair { client: 1, way: Both, fault: Short },
            Open { tunnel: 0, by: Client, ahead: 13560, long: false, pace: Eager },
            Impair { client: 7, way: Both, fault: Delay },
            Wait { milliseconds: 1588 },
            Open { tunnel: 0, by: Server, ahead: 31253, long: false, pace: Eager },
            Rebind { client: 15 },
            Wait { milliseconds: 14548 },
        ],
    };
    /// The model expected a side to know within 90 s that its peer is gone. quinn-proto 0.11.19 asks a new address once
    /// whether it is the peer's, returns to the old one when no answer has come, and waits for three times the time for an
    /// answer each time: here that was measured across a cut.
    a_peer_that_is_gone_after_a_cut_is_missed_late: Scenario {
        config: Config { weather: Far, more_clients: 0, server: Default, client: Default, decisions: AtOnce, answers: AtOnce, hold: false, segments: false, long_chain: true },
        seed: 0x3d9a01e5,
        ops: vec![
            Connect { client: 0, credential: Right, bindings: 0 },
            Connect { client: 0, credential: Right, bindings: 0 },
            Wait { milliseconds: 681 },
            Connect { client: 0, credential: Nothing, bindings: 0 },
            Impair { client: 0, way: Down, fault: Cut },
            Wait { milliseconds: 11376 },
            Open { tunnel: 3, by: Client, ahead: 0, long: false, pace: Eager },
            Open { tunnel: 1, by: Server, ahead: 0, long: false, pace: Eager },
            Wait { milliseconds: 0 },
            Mend { client: 0 },
            Open { tunnel: 3, by: Server, ahead: 6124, long: true, pace: Eager },
            Impair { client: 0, way: Both, fault: Bursts },
            Connect { client: 0, credential: Wrong, bindings: 0 },
            Wait { milliseconds: 91 },
            Rebind { client: 0 },
            Wait { milliseconds: 16873 },
        ],
    };
}
