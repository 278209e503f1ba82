//! Client tokens: the same token and request give the same answer, another request is a conflict. A token lives in the
//! record of what it made and is gone with it.

use hearth_wire::{ApiError, texts};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// A token and the fingerprint of the request it came with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientToken {
    token: String,
    request: String,
}

impl ClientToken {
    /// The token of a request, if it has one.
    pub(crate) fn of(token: Option<&str>, request: &impl Serialize) -> Option<ClientToken> {
        let text = serde_json::to_vec(request).ok()?;
        let request = digest(&SHA256, &text)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Some(ClientToken {
            token: token?.to_owned(),
            request,
        })
    }

    /// The token itself, without the request.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Among what exists already: the resource this token made (`Ok(Some)`), none, or a conflict.
    pub(crate) fn find<'a, T>(
        wanted: Option<&ClientToken>,
        existing: impl Iterator<Item = (Option<&'a ClientToken>, T)>,
    ) -> Result<Option<T>, ApiError> {
        let Some(wanted) = wanted else { return Ok(None) };
        for (token, resource) in existing {
            match token {
                Some(token) if token == wanted => return Ok(Some(resource)),
                Some(token) if token.token == wanted.token => return Err(texts::client_token_reused()),
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_replays_and_another_conflicts() {
        let made = ClientToken::of(Some("t"), &"request");
        let again = ClientToken::of(Some("t"), &"request");
        let other = ClientToken::of(Some("t"), &"other");
        let existing = || [(made.as_ref(), 7)].into_iter();
        assert_eq!(ClientToken::find(again.as_ref(), existing()), Ok(Some(7)));
        assert_eq!(
            ClientToken::find(other.as_ref(), existing())
                .expect_err("conflict")
                .status(),
            409
        );
        assert_eq!(ClientToken::find(None, existing()), Ok(None));
    }
}
