//! Tokens: whatever a client sends is refused without a panic, but for the one that was minted.
#![no_main]

use std::sync::LazyLock;

use hearth_token::{Claims, Grant, Keyring, PortRange};
use libfuzzer_sys::fuzz_target;

const NOW_MS: u64 = 1_800_000_000_000;
const ALIVE_MS: u64 = 60_000;

/// A keyring and a token of it, to be changed.
static MINTED: LazyLock<(Keyring, String)> = LazyLock::new(|| {
    let keyring = Keyring::generate();
    let claims = Claims {
        microvm_id: "microvm-1".into(),
        grant: Grant::Http(vec![PortRange::single(8080)]),
        expires_at_ms: NOW_MS + ALIVE_MS,
    };
    let token = keyring.mint(&claims);
    (keyring, token)
});

fuzz_target!(|bytes: &[u8]| {
    let (keyring, token) = &*MINTED;
    let text = String::from_utf8_lossy(bytes);
    assert!(keyring.verify(&text, NOW_MS).is_err() || text == *token);
    let _ = Keyring::from_bytes(bytes);
    // Some bytes of a token in another's place.
    let Some((at, put)) = bytes.split_first() else {
        return;
    };
    let mut changed = token.clone().into_bytes();
    let at = usize::from(*at) % changed.len();
    for (byte, put) in changed[at..].iter_mut().zip(put) {
        *byte = *put;
    }
    let changed = String::from_utf8_lossy(&changed);
    assert!(keyring.verify(&changed, NOW_MS).is_err() || changed == *token);
});
