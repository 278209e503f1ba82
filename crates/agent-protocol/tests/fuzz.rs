//! Frames from a hostile side.

use std::fmt::Debug;

use hearth_agent_protocol::{ExecInput, MAX_FRAME_BYTES, Output, Reply, Request, decode, encode, read_frame};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

/// Whatever can be read says the same when it is written and read again.
fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = decode::<T>(bytes) {
        let frame = encode(&message).expect("what was read is short enough to be written");
        assert_eq!(decode::<T>(&frame[4..]).expect("our own frame"), message);
    }
}

fn survives_as_any(bytes: &[u8]) {
    survives::<Request>(bytes);
    survives::<Reply>(bytes);
    survives::<Output>(bytes);
    survives::<ExecInput>(bytes);
}

proptest! {
    #[test]
    fn hostile_bodies_are_messages_or_errors(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survives_as_any(&bytes);
    }

    /// Small numbers choose the variants, so that what follows is looked at as well.
    #[test]
    fn hostile_bodies_of_every_variant_are_messages_or_errors(
        variant in 0u8..16,
        bytes in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..200),
    ) {
        survives_as_any(&[&[variant], bytes.as_slice()].concat());
    }

    #[test]
    fn hostile_streams_end_in_a_message_or_an_error(
        length in prop_oneof![0u32..64, any::<u32>()],
        rest in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let wire = [&length.to_le_bytes()[..], &rest].concat();
        let read = read_frame::<Request>(&mut wire.as_slice());
        if length as usize > MAX_FRAME_BYTES || length as usize > rest.len() {
            prop_assert!(read.is_err());
        }
    }
}
