//! Tokens as their holders and their forgers see them.
#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hearth_token::{Claims, Grant, Keyring, KeyringError, PortRange, RETIRED_KEY_LIFE_MS, TokenError};
use proptest::prelude::*;

const NOW_MS: u64 = 1_790_000_000_000;

fn claims() -> Claims {
    Claims {
        microvm_id: "microvm-0f2a5c1e-7f7b-3c55-9d6c-0b5a4c1e9d11".into(),
        grant: Grant::Http(vec![
            PortRange::single(8080),
            PortRange {
                start: 9000,
                end: 9100,
            },
        ]),
        expires_at_ms: NOW_MS + 60_000,
    }
}

fn any_claims() -> impl Strategy<Value = Claims> {
    let ranges = prop::collection::vec(any::<(u16, u16)>(), 0..8);
    let grant = prop_oneof![
        Just(Grant::Shell),
        ranges.prop_map(|list| Grant::Http(
            list.into_iter()
                .map(|(start, end)| PortRange { start, end })
                .collect()
        )),
    ];
    (".*", grant, NOW_MS + 1..u64::MAX).prop_map(|(microvm_id, grant, expires_at_ms)| Claims {
        microvm_id,
        grant,
        expires_at_ms,
    })
}

#[test]
fn a_token_is_a_compact_jwe_with_the_header_of_the_service() {
    let token = Keyring::generate().mint(&claims());
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 5);
    assert_eq!(parts[1], "");
    let bytes = |part: usize| URL_SAFE_NO_PAD.decode(parts[part]).unwrap();
    assert_eq!((bytes(2).len(), bytes(4).len()), (12, 16));
    let header = String::from_utf8(bytes(0)).unwrap();
    let kid = header
        .strip_prefix(r#"{"kid":""#)
        .and_then(|rest| rest.strip_suffix(r#"","alg":"dir","enc":"A256GCM"}"#));
    assert!(uuid::Uuid::try_parse(kid.unwrap()).is_ok(), "{header}");
    assert!(!String::from_utf8_lossy(&bytes(3)).contains("microvm"));
}

#[test]
fn a_token_ends_at_its_expiry() {
    let keyring = Keyring::generate();
    let token = keyring.mint(&claims());
    assert_eq!(keyring.verify(&token, NOW_MS + 59_999), Ok(claims()));
    assert_eq!(keyring.verify(&token, NOW_MS + 60_000), Err(TokenError::Expired));
}

#[test]
fn a_token_of_another_keyring_is_unreadable() {
    let token = Keyring::generate().mint(&claims());
    assert_eq!(
        Keyring::generate().verify(&token, NOW_MS),
        Err(TokenError::Unreadable)
    );
}

#[test]
fn a_rotation_keeps_live_tokens_and_later_drops_the_key() {
    let mut keyring = Keyring::generate();
    let token = keyring.mint(&claims());
    keyring.rotate(NOW_MS);
    keyring.rotate(NOW_MS + RETIRED_KEY_LIFE_MS - 1);
    assert_eq!(keyring.verify(&token, NOW_MS), Ok(claims()));
    let newer = keyring.mint(&claims());
    assert_ne!(newer.split('.').next(), token.split('.').next());
    keyring.rotate(NOW_MS + RETIRED_KEY_LIFE_MS);
    assert_eq!(keyring.verify(&token, NOW_MS), Err(TokenError::Unreadable));
    assert_eq!(keyring.verify(&newer, NOW_MS), Ok(claims()));
}

#[test]
fn a_stored_keyring_opens_the_tokens_it_made_before() {
    let mut keyring = Keyring::generate();
    let old = keyring.mint(&claims());
    keyring.rotate(NOW_MS);
    let back = Keyring::from_bytes(&keyring.to_bytes()).unwrap();
    assert_eq!(back.verify(&old, NOW_MS), Ok(claims()));
    assert_eq!(keyring.verify(&back.mint(&claims()), NOW_MS), Ok(claims()));
    assert_eq!(back.to_bytes(), keyring.to_bytes());
}

#[test]
fn a_keyring_of_another_format_is_refused_by_name_and_a_broken_one_at_all() {
    assert_eq!(
        Keyring::from_bytes(br#"{"version":2,"keyz":{}}"#).err(),
        Some(KeyringError::Version(2))
    );
    assert_eq!(
        Keyring::from_bytes(br#"{"version":1,"keys":[]}"#).err(),
        Some(KeyringError::Malformed)
    );
    let whole = Keyring::generate().to_bytes();
    for cut in 0..whole.len() {
        assert!(Keyring::from_bytes(&whole[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn debug_output_shows_key_ids_and_no_secret() {
    let keyring = Keyring::generate();
    let stored = String::from_utf8(keyring.to_bytes()).unwrap();
    let secret = stored
        .split(r#""secret":""#)
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap();
    let shown = format!("{keyring:?}");
    assert!(secret.len() > 40 && !shown.contains(secret));
    assert_eq!(shown.len(), "[]".len() + uuid::Uuid::nil().to_string().len());
}

#[test]
fn a_shell_token_opens_no_port_and_a_range_only_its_own() {
    assert!(!Grant::Shell.allows_port(8080));
    let grant = claims().grant;
    let open: Vec<u16> = [8079, 8080, 8081, 8999, 9000, 9100, 9101]
        .into_iter()
        .filter(|p| grant.allows_port(*p))
        .collect();
    assert_eq!(open, [8080, 9000, 9100]);
    assert!(
        Grant::Http(vec![PortRange::ALL]).allows_port(1)
            && Grant::Http(vec![PortRange::ALL]).allows_port(65535)
    );
}

proptest! {
    #[test]
    fn what_was_minted_is_what_is_read(claims in any_claims()) {
        let keyring = Keyring::generate();
        prop_assert_eq!(keyring.verify(&keyring.mint(&claims), NOW_MS), Ok(claims));
    }

    #[test]
    fn any_changed_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0..7u8) {
        let keyring = Keyring::generate();
        let mut token = keyring.mint(&claims()).into_bytes();
        let at = at.index(token.len());
        token[at] ^= 1 << bit;
        let token = String::from_utf8(token).unwrap();
        prop_assert_eq!(keyring.verify(&token, NOW_MS), Err(TokenError::Unreadable));
    }

    #[test]
    fn any_changed_bit_of_iv_ciphertext_or_tag_is_refused(part in 2..5usize, at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let keyring = Keyring::generate();
        let token = keyring.mint(&claims());
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let mut bytes = URL_SAFE_NO_PAD.decode(&parts[part]).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        parts[part] = URL_SAFE_NO_PAD.encode(bytes);
        prop_assert_eq!(keyring.verify(&parts.join("."), NOW_MS), Err(TokenError::Unreadable));
    }

    #[test]
    fn any_piece_of_a_token_is_refused(at in any::<prop::sample::Index>()) {
        let keyring = Keyring::generate();
        let token = keyring.mint(&claims());
        let (head, tail) = token.split_at(at.index(token.len()));
        prop_assert_eq!(keyring.verify(head, NOW_MS), Err(TokenError::Unreadable));
        if !head.is_empty() {
            prop_assert_eq!(keyring.verify(tail, NOW_MS), Err(TokenError::Unreadable));
        }
    }

    #[test]
    fn arbitrary_text_is_refused_and_never_panics(text in any::<String>(), parts in prop::collection::vec("[A-Za-z0-9_-]{0,40}", 0..7)) {
        let keyring = Keyring::generate();
        prop_assert_eq!(keyring.verify(&text, NOW_MS), Err(TokenError::Unreadable));
        prop_assert_eq!(keyring.verify(&parts.join("."), NOW_MS), Err(TokenError::Unreadable));
    }

    #[test]
    fn arbitrary_stored_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        prop_assert!(Keyring::from_bytes(&bytes).is_err());
    }
}
