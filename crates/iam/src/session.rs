//! Temporary keys. What a session is stands sealed in its token, and its secret follows from its key id: nothing is stored,
//! so sessions survive a restart and cost nothing.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use hearth_wire::{Sensitive, Timestamp};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};

/// First letters of a temporary key's id.
pub(crate) const PREFIX: &str = "ASIA";
/// First byte of a token: the format's version.
const VERSION: u8 = 1;
const ID_BYTES: usize = 20;

/// What a session token holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The key it belongs to.
    pub key: String,
    pub role_arn: String,
    /// [`crate::RoleRecord::id`], or of a role that was never created.
    pub role_id: String,
    pub name: String,
    /// A bound on what the role may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// Not ours, damaged, or of another key.
    Invalid,
    /// Past its time.
    Expired,
}

/// Makes and opens sessions; whoever has it can make any.
pub struct SessionKey {
    seal: LessSafeKey,
    secrets: hmac::Key,
    random: SystemRandom,
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SessionKey(…)")
    }
}

/// The system's random source or the cipher does not work: nothing can be done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandom;

impl SessionKey {
    /// From 32 random bytes that outlive the daemon.
    pub fn new(bytes: &[u8]) -> Result<SessionKey, NoRandom> {
        let master = hkdf::Salt::new(hkdf::HKDF_SHA256, b"hearth sessions").extract(bytes);
        let mut key = [0; 32];
        master
            .expand(&[b"seal"], hkdf::HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut key))
            .map_err(|_| NoRandom)?;
        let seal = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| NoRandom)?;
        let secrets = master
            .expand(&[b"secrets"], hmac::HMAC_SHA256)
            .map_err(|_| NoRandom)?;
        Ok(SessionKey {
            seal: LessSafeKey::new(seal),
            secrets: secrets.into(),
            random: SystemRandom::new(),
        })
    }

    /// The secret of a temporary key id, also of one that was never given out: nobody else can know it.
    pub(crate) fn secret(&self, key: &str) -> Sensitive {
        let tag = hmac::sign(&self.secrets, key.as_bytes());
        STANDARD.encode(&tag.as_ref()[..30]).into()
    }

    /// A new session: key id, then token.
    pub(crate) fn seal(
        &self,
        lasting: Duration,
        session: impl FnOnce(String, Timestamp, Timestamp) -> Session,
    ) -> Result<(Session, Sensitive), NoRandom> {
        let now = Timestamp::now();
        let session = session(new_id(PREFIX, &self.random)?, now, now.plus(lasting));
        let mut sealed = serde_json::to_vec(&session).map_err(|_| NoRandom)?;
        let nonce: [u8; NONCE_LEN] = random(&self.random)?;
        self.seal
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from([VERSION]),
                &mut sealed,
            )
            .map_err(|_| NoRandom)?;
        let token = [&[VERSION], nonce.as_slice(), sealed.as_slice()].concat();
        Ok((session, STANDARD.encode(token).into()))
    }

    /// The session of a token, if it is `key`'s and not past its time.
    pub(crate) fn open(&self, key: &str, token: &str) -> Result<Session, TokenError> {
        let bytes = STANDARD.decode(token).map_err(|_| TokenError::Invalid)?;
        let (version, rest) = bytes.split_first().ok_or(TokenError::Invalid)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(TokenError::Invalid)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| TokenError::Invalid)?;
        let mut sealed = sealed.to_vec();
        let plain = self
            .seal
            .open_in_place(nonce, Aad::from([*version]), &mut sealed)
            .map_err(|_| TokenError::Invalid)?;
        let session: Session = serde_json::from_slice(plain).map_err(|_| TokenError::Invalid)?;
        match session.key == key && *version == VERSION {
            false => Err(TokenError::Invalid),
            true if Timestamp::now() >= session.expires_at => Err(TokenError::Expired),
            true => Ok(session),
        }
    }
}

/// A new id such as `AKIA…` or `AROA…`.
pub(crate) fn new_id(prefix: &str, source: &SystemRandom) -> Result<String, NoRandom> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bytes: [u8; ID_BYTES] = random(source)?;
    let letters = bytes
        .iter()
        .take(ID_BYTES - prefix.len())
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    Ok(prefix.chars().chain(letters).collect())
}

/// A new secret of forty characters.
pub(crate) fn new_secret(source: &SystemRandom) -> Result<Sensitive, NoRandom> {
    let bytes: [u8; 30] = random(source)?;
    Ok(STANDARD.encode(bytes).into())
}

fn random<const N: usize>(source: &SystemRandom) -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    source.fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session(lasting: Duration) -> (SessionKey, Session, Sensitive) {
        let key = SessionKey::new(&[7; 32]).expect("key");
        let (session, token) = key
            .seal(lasting, |key, issued_at, expires_at| Session {
                key,
                role_arn: "arn:aws:iam::111122223333:role/build".into(),
                role_id: "AROA".into(),
                name: "s".into(),
                policy: None,
                issued_at,
                expires_at,
            })
            .expect("sealed");
        (key, session, token)
    }

    #[test]
    fn a_session_outlives_the_one_who_made_it() {
        let (_, session, token) = session(Duration::from_secs(900));
        let again = SessionKey::new(&[7; 32]).expect("key");
        assert_eq!(again.open(&session.key, &token), Ok(session.clone()));
        let other = SessionKey::new(&[8; 32]).expect("key");
        assert_eq!(other.open(&session.key, &token), Err(TokenError::Invalid));
        assert_ne!(other.secret(&session.key), again.secret(&session.key));
    }

    #[test]
    fn a_token_is_bound_to_its_key_and_its_time() {
        let (key, mine, token) = session(Duration::from_secs(900));
        assert_eq!(key.open("ASIAOTHER", &token), Err(TokenError::Invalid));
        let (_, past, old) = session(Duration::ZERO);
        assert_eq!(key.open(&past.key, &old), Err(TokenError::Expired));
        assert!(mine.key.starts_with(PREFIX) && mine.key.len() == 20);
        assert_eq!(key.secret(&mine.key).len(), 40);
    }

    proptest! {
        #[test]
        fn a_changed_token_is_no_token(at in 0usize..200, bit in 0u8..8) {
            let (key, session, token) = session(Duration::from_secs(900));
            let mut bytes = STANDARD.decode(&*token).expect("base64");
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(key.open(&session.key, &STANDARD.encode(bytes)), Err(TokenError::Invalid));
        }

        #[test]
        fn no_token_panics(token in "\\PC{0,80}") {
            let key = SessionKey::new(&[7; 32]).expect("key");
            prop_assert_eq!(key.open("ASIA", &token), Err(TokenError::Invalid));
        }
    }
}
