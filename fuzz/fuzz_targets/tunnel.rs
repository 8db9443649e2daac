//! `snocat_tests::fuzzing::tunnel`, fed by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snocat_tests::fuzzing::tunnel(data));
