//! Frames of a hostile agent or host: a message or an error, and the same message when written and read again.
#![no_main]

use std::fmt::Debug;

use hearth_agent_protocol::{ExecInput, Output, Reply, Request, decode, encode, read_frame};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = decode::<T>(bytes) {
        let frame = encode(&message).expect("what was read is short enough to be written");
        assert_eq!(decode::<T>(&frame[4..]).expect("our own frame"), message);
    }
}

fuzz_target!(|bytes: &[u8]| {
    survives::<Request>(bytes);
    survives::<Reply>(bytes);
    survives::<Output>(bytes);
    survives::<ExecInput>(bytes);
    let mut stream = bytes;
    while matches!(read_frame::<Reply>(&mut stream), Ok(Some(_))) {}
});
