//! Clients are served while strangers take all places that they can get. `cargo bench --bench crowd` has the whole table.

use std::time::Duration;

use snocat_tests::crowd::{Crowd, Networks, crowd};

/// With an eighth of the places that a server has by default, so that a test takes seconds.
fn served(sources: u32, networks: Networks, known: bool) -> f64 {
    crowd(1, Crowd { sources, networks, places: 128, rate: 100, known }).served
}

/// Each of them may have a sixteenth of the places.
#[test]
fn eighteen_sources_keep_no_client_out() {
    assert_eq!(served(18, Networks::Addresses, false), 1.0);
}

#[test]
fn where_there_are_more_sources_than_places_most_clients_are_served() {
    assert!(served(150, Networks::Addresses, false) >= 0.5);
}

#[test]
fn clients_that_were_there_before_the_crowd_are_served() {
    assert_eq!(served(150, Networks::Addresses, true), 1.0);
}

#[test]
fn a_network_of_ipv6_keeps_no_client_out() {
    assert_eq!(served(128, Networks::Of56, false), 1.0);
    assert_eq!(served(200, Networks::Of48, false), 1.0);
}

#[test]
fn the_same_seed_gives_the_same_crowd() {
    let crowded = Crowd { sources: 3, networks: Networks::Addresses, places: 128, rate: 50, known: true };
    let outcome = crowd(7, crowded);
    assert_eq!(outcome, crowd(7, crowded));
    assert!(outcome.median < Duration::from_millis(200), "{outcome:?}");
}
