//! `snocat_tests::fuzzing::scenario`, fed by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snocat_tests::fuzzing::scenario(data));
