//! Metadata tokens: the time they end and a seal over it that is one guest's alone. Nothing is stored.

use std::{ops::RangeInclusive, time::SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;

/// How long a token may live, in seconds (as on EC2).
pub(crate) const LIFE_SECONDS: RangeInclusive<u64> = 1..=21_600;
/// Bytes of the time in a token.
const TIME: usize = 8;

pub(crate) struct Tokens(hmac::Key);

impl Tokens {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A token for the guest `id`.
    pub(crate) fn make(&self, id: &str, life_seconds: u64) -> String {
        let end = (now() + life_seconds).to_be_bytes();
        let seal = hmac::sign(&self.0, &sealed(id, end));
        URL_SAFE_NO_PAD.encode([end.as_slice(), seal.as_ref()].concat())
    }

    /// Whether a token is the guest's and still good.
    pub(crate) fn is_good(&self, id: &str, token: &str) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else {
            return false;
        };
        let Some((end, seal)) = bytes.split_first_chunk::<TIME>() else {
            return false;
        };
        hmac::verify(&self.0, &sealed(id, *end), seal).is_ok() && u64::from_be_bytes(*end) > now()
    }
}

fn sealed(id: &str, end: [u8; TIME]) -> Vec<u8> {
    [b"metadata".as_slice(), &end, id.as_bytes()].concat()
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_guest_and_its_time_only() {
        let tokens = Tokens::new(&[1; 32]);
        let token = tokens.make("microvm-1", 60);
        assert!(tokens.is_good("microvm-1", &token));
        assert!(
            Tokens::new(&[1; 32]).is_good("microvm-1", &token),
            "it survives a restart"
        );
        assert!(!tokens.is_good("microvm-2", &token));
        assert!(!Tokens::new(&[2; 32]).is_good("microvm-1", &token));
        assert!(!tokens.is_good("microvm-1", &tokens.make("microvm-1", 0)));
        let mut longer = URL_SAFE_NO_PAD.decode(&token).expect("base64");
        longer[6] ^= 1;
        assert!(!tokens.is_good("microvm-1", &URL_SAFE_NO_PAD.encode(longer)));
        for wrong in ["", "x", "AAAA", "%%"] {
            assert!(!tokens.is_good("microvm-1", wrong), "{wrong}");
        }
    }
}
