//! Every call passes here before it is carried out: policies, then rates; and every change is written to the audit log
//! before it is answered.
#![forbid(unsafe_code)]

mod throttle;

use async_trait::async_trait;
use hearth_audit::Audit;
use hearth_iam::Authorizer;
use hearth_wire::{ApiError, Call, Guard, Operation, Request, Timestamp, types::AuditItem};

pub use throttle::{Rates, Throttle};

/// Policies, rates and the audit log.
pub struct Admission {
    authorizer: Authorizer,
    throttle: Throttle,
    audit: Audit,
}

impl Admission {
    /// Puts the three together.
    pub fn new(authorizer: Authorizer, throttle: Throttle, audit: Audit) -> Admission {
        Admission {
            authorizer,
            throttle,
            audit,
        }
    }
}

#[async_trait]
impl Guard for Admission {
    async fn admit(&self, call: &Call) -> Result<(), ApiError> {
        self.authorizer.authorize(call)?;
        self.throttle.take(call)
    }

    async fn ended(&self, call: &Call, status: u16, error: Option<&str>) {
        if changes_something(call) {
            let item = AuditItem {
                principal: self.authorizer.principal(call),
                resource: self.authorizer.resource(call),
                ..item_of(call, status, error)
            };
            if let Err(error) = self.audit.write(&item).await {
                tracing::error!(%error, request_id = item.request_id, "a call is not in the audit log");
            }
        }
    }
}

/// What the audit log says of a call, but for what only the policies know.
fn item_of(call: &Call, status: u16, error: Option<&str>) -> AuditItem {
    AuditItem {
        time: Timestamp::now(),
        request_id: call.caller.request_id.clone(),
        account: call.caller.account_id.clone(),
        principal: None,
        access_key_id: call.caller.access_key_id.clone(),
        source: call.source.to_canonical().to_string(),
        user_agent: call.user_agent.clone(),
        region: call.caller.region.clone(),
        service: call.service().to_owned(),
        operation: call.name().to_owned(),
        resource: None,
        status,
        error: error.map(str::to_owned),
    }
}

/// Whether a call can change anything, or gives somebody access.
fn changes_something(call: &Call) -> bool {
    let reads = |name: &str| {
        ["Get", "List", "Head", "Describe", "Filter"]
            .iter()
            .any(|verb| name.starts_with(verb))
    };
    match &call.request {
        Request::Operation(operation, _) => operation.route().0 != "GET",
        // What applications write into their logs is data.
        Request::Logs(name, _) => !reads(name) && name != "PutLogEvents",
        Request::Sts(name, _) | Request::S3(name, _) => !reads(name),
    }
}

/// Whether `name` is an operation that a rate can be set for.
pub fn is_operation(name: &str) -> bool {
    Operation::ALL.iter().any(|operation| operation.name() == name)
}

#[cfg(test)]
mod tests {
    use hearth_wire::Caller;
    use serde_json::json;

    use super::*;

    #[test]
    fn no_secret_is_in_what_the_audit_log_says() {
        let call = Call {
            caller: Caller {
                account_id: "111122223333".into(),
                region: "us-east-1".into(),
                partition: "aws".into(),
                access_key_id: "AKIA".into(),
                request_id: "1".into(),
            },
            session_token: Some("hunter2".into()),
            source: [127, 0, 0, 1].into(),
            user_agent: Some("agent\n".into()),
            request: Request::Operation(Operation::RunMicrovm, json!({"runHookPayload": "hunter2"})),
        };
        let text = serde_json::to_string(&item_of(&call, 403, Some("AccessDeniedException"))).expect("json");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(
            text.contains("AccessDeniedException") && !text.contains('\n'),
            "{text}"
        );
    }
}
