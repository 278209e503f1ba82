use hearth_audit::{Outcome, Query};
use hearth_wire::{ApiError, Caller, Operation, Timestamp, page, types::*};

use super::internal;
use crate::Service;

/// Records on a page when the request does not say.
const DEFAULT_MAX_RESULTS: u32 = 100;

impl Service {
    pub(crate) async fn list_audit(
        &self,
        caller: &Caller,
        request: ListAuditRequest,
    ) -> Result<ListAuditResponse, ApiError> {
        let time = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        let times = (request.from, request.to);
        let filters = [
            request.account.as_deref(),
            request.who.as_deref(),
            request.what.as_deref(),
            request.outcome.as_deref(),
        ];
        let scope = page::scope(caller, Operation::ListAudit, &filters) + &format!("{times:?}");
        let page_key = &self.inner.page_key;
        let after = request
            .next_token
            .as_deref()
            .map(|token| page_key.open(&scope, token))
            .transpose()?;
        let outcome = request.outcome.as_deref().map(|outcome| match outcome {
            "FAILED" => Outcome::Failed,
            _ => Outcome::Succeeded,
        });
        let query = Query {
            account: request.account,
            from: request.from.map(time),
            to: request.to.map(time),
            who: request.who,
            what: request.what,
            outcome,
            after,
            limit: request.max_results.unwrap_or(DEFAULT_MAX_RESULTS) as usize,
        };
        let found = self.node().audit.read(query).await.map_err(internal)?;
        let next_token = found.next.map(|next| page_key.seal(&scope, &next)).transpose()?;
        Ok(ListAuditResponse {
            items: found.items,
            next_token,
        })
    }
}
