//! The compact serialization of RFC 7516 with `"alg":"dir"` and `"enc":"A256GCM"`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Bytes of an AES-256 key.
pub(crate) const SECRET_BYTES: usize = 32;

const ALGORITHM: &str = "dir";
const ENCRYPTION: &str = "A256GCM";

/// The protected header, its members in the order the service writes them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    kid: Uuid,
    alg: &'a str,
    enc: &'a str,
}

/// A token taken apart; nothing in it is proven yet.
pub(crate) struct Parts<'a> {
    pub(crate) kid: Uuid,
    header: &'a str,
    iv: [u8; NONCE_LEN],
    ciphertext_and_tag: Vec<u8>,
}

pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the kernel's random source does not fail once seeded");
    bytes
}

pub(crate) fn aead_key(secret: &[u8; SECRET_BYTES]) -> LessSafeKey {
    LessSafeKey::new(
        UnboundKey::new(&AES_256_GCM, secret).expect("the secret has the length of the algorithm's key"),
    )
}

/// Encrypts a payload under the key that `kid` names.
pub(crate) fn seal(kid: Uuid, key: &LessSafeKey, payload: Vec<u8>) -> String {
    let header = serde_json::to_vec(&Header {
        kid,
        alg: ALGORITHM,
        enc: ENCRYPTION,
    })
    .expect("a header of three strings serializes");
    let header = URL_SAFE_NO_PAD.encode(header);
    // Random 96-bit IVs are sound for 2^32 tokens of one key, far above what is minted before a key is retired.
    let iv: [u8; NONCE_LEN] = random_bytes();
    let mut sealed = payload;
    let tag = key
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(iv),
            Aad::from(header.as_bytes()),
            &mut sealed,
        )
        .expect("claims are far below the algorithm's limit of 64 GiB");
    format!(
        "{header}..{}.{}.{}",
        URL_SAFE_NO_PAD.encode(iv),
        URL_SAFE_NO_PAD.encode(sealed),
        URL_SAFE_NO_PAD.encode(tag)
    )
}

/// Takes a token apart; `None` when it has not exactly the shape that [`seal`] gives.
pub(crate) fn parse(token: &str) -> Option<Parts<'_>> {
    let mut parts = token.split('.');
    let (header, encrypted_key, iv, ciphertext, tag) = (
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
    );
    if parts.next().is_some() || !encrypted_key.is_empty() {
        return None;
    }
    let header_json = URL_SAFE_NO_PAD.decode(header).ok()?;
    let fields: Header<'_> = serde_json::from_slice(&header_json).ok()?;
    if fields.alg != ALGORITHM || fields.enc != ENCRYPTION {
        return None;
    }
    let iv = URL_SAFE_NO_PAD.decode(iv).ok()?.try_into().ok()?;
    let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
    if tag.len() != AES_256_GCM.tag_len() {
        return None;
    }
    let mut ciphertext_and_tag = URL_SAFE_NO_PAD.decode(ciphertext).ok()?;
    ciphertext_and_tag.extend_from_slice(&tag);
    Some(Parts {
        kid: fields.kid,
        header,
        iv,
        ciphertext_and_tag,
    })
}

impl Parts<'_> {
    /// The payload, if the key made this token and nobody changed a bit of it.
    pub(crate) fn open(mut self, key: &LessSafeKey) -> Option<Vec<u8>> {
        let nonce = Nonce::assume_unique_for_key(self.iv);
        let aad = Aad::from(self.header.as_bytes());
        let length = key
            .open_in_place(nonce, aad, &mut self.ciphertext_and_tag)
            .ok()?
            .len();
        self.ciphertext_and_tag.truncate(length);
        Some(self.ciphertext_and_tag)
    }
}
