//! See `tests/support/fuzzed.rs`.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/support/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzed::set(bytes));
