use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::LessSafeKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::jwe::{self, SECRET_BYTES};
use crate::{Claims, TokenError};

/// How long a retired key still opens tokens: the 60 minutes a token may live (spec section 19) and 5 for clocks.
pub const RETIRED_KEY_LIFE_MS: u64 = 65 * 60 * 1000;

const FORMAT_VERSION: u32 = 1;

/// The keys that make and open tokens. The newest makes them; retired ones open what they once made.
pub struct Keyring {
    /// Newest first, never empty.
    keys: Vec<Key>,
}

struct Key {
    kid: Uuid,
    secret: [u8; SECRET_BYTES],
    aead: LessSafeKey,
    retired_at_ms: Option<u64>,
}

/// A stored keyring could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The bytes are not a keyring.
    #[error("stored keyring is malformed")]
    Malformed,
    /// Written by another version of this program.
    #[error("stored keyring has format version {0}; this program reads version {FORMAT_VERSION}")]
    Version(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKeyring {
    version: u32,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    kid: Uuid,
    secret: String,
    retired_at_ms: Option<u64>,
}

impl Key {
    fn new(kid: Uuid, secret: [u8; SECRET_BYTES], retired_at_ms: Option<u64>) -> Key {
        Key {
            kid,
            secret,
            aead: jwe::aead_key(&secret),
            retired_at_ms,
        }
    }

    fn generate() -> Key {
        Key::new(Uuid::new_v4(), jwe::random_bytes(), None)
    }
}

impl Keyring {
    /// A keyring with one fresh key.
    pub fn generate() -> Keyring {
        Keyring {
            keys: vec![Key::generate()],
        }
    }

    /// Makes a fresh key the current one. Live tokens stay valid: the former key opens them for
    /// [`RETIRED_KEY_LIFE_MS`] more, then the next rotation drops it.
    pub fn rotate(&mut self, now_ms: u64) {
        for key in &mut self.keys {
            key.retired_at_ms.get_or_insert(now_ms);
        }
        self.keys.retain(|key| {
            key.retired_at_ms
                .is_none_or(|at| now_ms < at.saturating_add(RETIRED_KEY_LIFE_MS))
        });
        self.keys.insert(0, Key::generate());
    }

    /// Encrypts claims into a token.
    pub fn mint(&self, claims: &Claims) -> String {
        let key = &self.keys[0];
        jwe::seal(
            key.kid,
            &key.aead,
            serde_json::to_vec(claims).expect("claims hold nothing that cannot serialize"),
        )
    }

    /// Opens a token. `now_ms` is the wall clock in milliseconds since the epoch.
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Claims, TokenError> {
        let claims = self.open(token).ok_or(TokenError::Unreadable)?;
        if now_ms >= claims.expires_at_ms {
            Err(TokenError::Expired)
        } else {
            Ok(claims)
        }
    }

    fn open(&self, token: &str) -> Option<Claims> {
        let parts = jwe::parse(token)?;
        let key = self.keys.iter().find(|key| key.kid == parts.kid)?;
        serde_json::from_slice(&parts.open(&key.aead)?).ok()
    }

    /// The keyring for safe keeping. Contains the secrets.
    pub fn to_bytes(&self) -> Vec<u8> {
        let keys = self.keys.iter().map(|key| StoredKey {
            kid: key.kid,
            secret: STANDARD.encode(key.secret),
            retired_at_ms: key.retired_at_ms,
        });
        serde_json::to_vec(&StoredKeyring {
            version: FORMAT_VERSION,
            keys: keys.collect(),
        })
        .expect("a keyring holds nothing that cannot serialize")
    }

    /// Reads what [`Keyring::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Keyring, KeyringError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(bytes).map_err(|_| KeyringError::Malformed)?;
        if version != FORMAT_VERSION {
            return Err(KeyringError::Version(version));
        }
        let stored: StoredKeyring = serde_json::from_slice(bytes).map_err(|_| KeyringError::Malformed)?;
        let keys = stored.keys.into_iter().map(|key| {
            let secret = STANDARD.decode(key.secret).ok()?.try_into().ok()?;
            Some(Key::new(key.kid, secret, key.retired_at_ms))
        });
        let keys: Vec<Key> = keys.collect::<Option<_>>().ok_or(KeyringError::Malformed)?;
        let usable = keys
            .first()
            .is_some_and(|current| current.retired_at_ms.is_none());
        if usable {
            Ok(Keyring { keys })
        } else {
            Err(KeyringError::Malformed)
        }
    }
}

impl fmt::Debug for Keyring {
    /// Names the keys; their secrets are nobody's to see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| key.kid))
            .finish()
    }
}
