//! Objects of a cluster.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::kubernetes(bytes));
