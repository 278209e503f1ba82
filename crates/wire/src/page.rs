//! Pagination: opaque tokens that survive a restart and refuse tampering, and pages cut from ordered lists.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde::{Serialize, de::DeserializeOwned};

use crate::{ApiError, Caller, Operation, texts};

/// First byte of a token.
const FORMAT: u8 = 1;
const TAG_BYTES: usize = 32;

/// Items on a page when the request does not say; also the most it may say (spec 4.2).
pub const DEFAULT_MAX_RESULTS: u32 = 50;

/// The key that signs page tokens; the caller keeps its secret across restarts.
#[derive(Debug, Clone)]
pub struct PageKey(hmac::Key);

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Names the next page; `None` at the end.
    pub next_token: Option<String>,
}

/// What a token is good for: one caller's account and region, one operation, the same filters.
pub fn scope(caller: &Caller, operation: Operation, filters: &[Option<&str>]) -> String {
    format!("{:?}", (&caller.account_id, &caller.region, operation, filters))
}

/// The number of items a page may have.
pub fn limit(max_results: Option<u32>) -> usize {
    max_results
        .unwrap_or(DEFAULT_MAX_RESULTS)
        .clamp(1, DEFAULT_MAX_RESULTS) as usize
}

impl PageKey {
    /// A key from at least 32 secret bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The token for the page after `position`.
    pub fn seal<P: Serialize>(&self, scope: &str, position: &P) -> Result<String, ApiError> {
        let position = serde_json::to_vec(position).map_err(|_| ApiError::internal())?;
        let tag = hmac::sign(&self.0, &signed(scope, &position));
        Ok(URL_SAFE_NO_PAD.encode([&[FORMAT], tag.as_ref(), &position].concat()))
    }

    /// The position a token was sealed with; 400 when the token is not ours or belongs to another scope.
    pub fn open<P: DeserializeOwned>(&self, scope: &str, token: &str) -> Result<P, ApiError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| texts::invalid_next_token())?;
        let (format, rest) = bytes.split_first().ok_or_else(texts::invalid_next_token)?;
        let (tag, position) = rest
            .split_at_checked(TAG_BYTES)
            .ok_or_else(texts::invalid_next_token)?;
        if *format != FORMAT || hmac::verify(&self.0, &signed(scope, position), tag).is_err() {
            return Err(texts::invalid_next_token());
        }
        serde_json::from_slice(position).map_err(|_| texts::invalid_next_token())
    }

    /// A page from `candidates`, which hold the items after the page's start: all of them, or at least one more than
    /// `limit`.
    pub fn cut<T, P: Serialize>(
        &self,
        scope: &str,
        limit: usize,
        mut candidates: Vec<T>,
        position: impl Fn(&T) -> P,
    ) -> Result<Page<T>, ApiError> {
        let more = candidates.len() > limit;
        candidates.truncate(limit);
        let last = candidates.last().filter(|_| more);
        let next_token = last.map(|last| self.seal(scope, &position(last))).transpose()?;
        Ok(Page {
            items: candidates,
            next_token,
        })
    }

    /// A page of `items`, which are in ascending order of `position` (wrap it in `Reverse` for newest first).
    ///
    /// Items that come or go between two pages neither hide nor repeat others.
    pub fn paginate<T, P: Serialize + DeserializeOwned + Ord>(
        &self,
        scope: &str,
        max_results: Option<u32>,
        next_token: Option<&str>,
        items: impl IntoIterator<Item = T>,
        position: impl Fn(&T) -> P,
    ) -> Result<Page<T>, ApiError> {
        let start: Option<P> = next_token.map(|token| self.open(scope, token)).transpose()?;
        let limit = limit(max_results);
        let after_start = |item: &T| start.as_ref().is_none_or(|start| position(item) > *start);
        let candidates = items.into_iter().filter(after_start).take(limit + 1).collect();
        self.cut(scope, limit, candidates, &position)
    }
}

fn signed(scope: &str, position: &[u8]) -> Vec<u8> {
    let length = (scope.len() as u64).to_le_bytes();
    [&[FORMAT], length.as_slice(), scope.as_bytes(), position].concat()
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use proptest::prelude::*;

    use super::*;

    fn key() -> PageKey {
        PageKey::new(&[7; 32])
    }

    proptest! {
        #[test]
        fn walking_the_tokens_yields_each_item_once_in_order(count in 0u32..130, size in 1u32..=50) {
            let mut seen = Vec::new();
            let mut token: Option<String> = None;
            loop {
                let items = (0..count).rev();
                let page = key().paginate("s", Some(size), token.as_deref(), items, |item| Reverse(*item));
                let page = page.expect("page");
                prop_assert!(page.items.len() <= size as usize);
                seen.extend(page.items);
                token = page.next_token;
                if token.is_none() {
                    break;
                }
            }
            prop_assert_eq!(seen, (0..count).rev().collect::<Vec<_>>());
        }

        #[test]
        fn a_token_opens_with_the_same_key_and_scope(scope in "\\PC{0,20}", position in "\\PC{0,20}") {
            let token = key().seal(&scope, &position).expect("seals");
            prop_assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            prop_assert_eq!(PageKey::new(&[7; 32]).open::<String>(&scope, &token), Ok(position));
        }

        #[test]
        fn a_token_refuses_any_change(position in "[a-z]{1,20}", at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = URL_SAFE_NO_PAD.decode(key().seal("s", &position).expect("seals")).expect("base64");
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(key().open::<String>("s", &URL_SAFE_NO_PAD.encode(bytes)).is_err());
        }

        #[test]
        fn no_text_opens_or_panics(token in "\\PC{0,80}") {
            prop_assert!(key().open::<u32>("s", &token).is_err());
        }
    }

    #[test]
    fn a_token_is_good_for_its_scope_and_key_only() {
        let token = key().seal("s", &1).expect("seals");
        assert!(key().open::<u32>("t", &token).is_err());
        assert!(PageKey::new(&[8; 32]).open::<u32>("s", &token).is_err());
    }

    #[test]
    fn items_that_go_between_two_pages_hide_no_others() {
        let first = key()
            .paginate("s", Some(2), None, [1, 2, 3, 4], |item| *item)
            .expect("page");
        assert_eq!(first.items, [1, 2]);
        let second = key().paginate("s", Some(2), first.next_token.as_deref(), [1, 3, 4], |item| *item);
        assert_eq!(
            second.expect("page"),
            Page {
                items: vec![3, 4],
                next_token: None
            }
        );
    }
}
