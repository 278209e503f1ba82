//! Every call passes here before it is carried out: policies, then rates; and every change is written to the audit log.
#![forbid(unsafe_code)]

mod audit;
mod throttle;

use async_trait::async_trait;
use hearth_iam::Authorizer;
use hearth_wire::{ApiError, Call, Guard, Operation, Request};

pub use audit::{Audit, AuditConfig};
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
            let principal = self.authorizer.principal(call);
            let resource = self.authorizer.resource(call);
            self.audit.write(call, principal, resource, status, error).await;
        }
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
