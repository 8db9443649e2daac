//! What the end-to-end suites share: a server and a client, each on a runtime of its own, in this process, and
//! visitors and targets that are plain blocking sockets of `std`.
//!
//! A suite is written once, as functions of a [`Pairing`]; [`pairings!`] makes a test of each function for every
//! pairing of runtimes.
//!
//! Beside them stand whole runs on a simulated network: [`scenario`], checked against a [`model`].

pub mod bench;
pub mod crowd;
mod descriptors;
mod duo;
pub mod fuzzing;
pub mod goodput;
pub mod hostile;
mod joined;
mod lab;
pub mod model;
mod peers;
mod relay;
pub mod scenario;
pub mod seed;
pub mod simruntime;

pub use descriptors::{enough_descriptors, open_descriptors};
pub use duo::{CLIENT, DELAY, Duo, SERVER};
pub use joined::{Joined, Protection};
pub use lab::{Client, Failure, Lab, Main, Options, PATIENCE, Pairing, Runtime, SECRET, Said, Server, run};
pub use peers::{
    Target, await_reset, connect, expect_pattern, pattern, read_to_reset, reset, verify_pattern,
    write_pattern, write_to_reset,
};
pub use relay::Relay;

/// Makes a test of each named function for each pairing of runtimes.
#[macro_export]
macro_rules! pairings {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        $crate::pairings!(@module tokio_tokio, Tokio, Tokio, $($(#[$attribute])* $name),*);
        $crate::pairings!(@module smol_smol, Smol, Smol, $($(#[$attribute])* $name),*);
        $crate::pairings!(@module tokio_smol, Tokio, Smol, $($(#[$attribute])* $name),*);
        $crate::pairings!(@module smol_tokio, Smol, Tokio, $($(#[$attribute])* $name),*);
    };
    (@module $module:ident, $server:ident, $client:ident, $($(#[$attribute:meta])* $name:ident),*) => {
        /// Server and client on these runtimes.
        mod $module {
            $(
                #[test]
                $(#[$attribute])*
                fn $name() {
                    super::$name($crate::Pairing {
                        server: $crate::Runtime::$server,
                        client: $crate::Runtime::$client,
                    });
                }
            )*
        }
    };
}
