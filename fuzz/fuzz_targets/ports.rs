//! Port headers and authorities.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| hearth_gateway::fuzzing::ports(bytes));
