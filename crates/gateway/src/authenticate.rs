use std::sync::{PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use hearth_token::{Claims, Keyring, TokenError};
use http::HeaderMap;

use crate::respond::Refusal;
use crate::subprotocol::Offer;

const TOKEN: &str = "x-aws-proxy-auth";

/// Proves who asks: the token from the header, else (for an upgrade) from the offered subprotocols.
pub(crate) fn authenticate(
    headers: &HeaderMap,
    offer: Option<&Offer>,
    tokens: &RwLock<Keyring>,
) -> Result<Claims, Refusal> {
    let mut in_headers = headers.get_all(TOKEN).iter();
    let token = match (in_headers.next(), in_headers.next()) {
        (Some(token), None) => token.to_str().map_err(|_| Refusal::MissingAuthentication)?,
        (Some(_), Some(_)) => return Err(Refusal::MissingAuthentication),
        (None, _) => {
            let offer = offer.ok_or(Refusal::MissingAuthentication)?;
            // Without its marker an offer is not addressed to the platform: say so, rather than read it.
            offer.check()?;
            offer.token().ok_or(Refusal::MissingAuthentication)?
        }
    };
    let keyring = tokens.read().unwrap_or_else(PoisonError::into_inner);
    keyring
        .verify(token.trim(), now_ms())
        .map_err(|error| match error {
            TokenError::Unreadable => Refusal::MissingAuthentication,
            TokenError::Expired => Refusal::TokenFailed,
        })
}

/// Whether a request shows anything for a token, good or not.
pub(crate) fn shows_token(headers: &HeaderMap, offer: Option<&Offer>) -> bool {
    headers.contains_key(TOKEN) || offer.is_some_and(|offer| offer.token().is_some())
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
