//! WebSocket subprotocols that carry a token and a port.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| hearth_gateway::fuzzing::subprotocols(bytes));
