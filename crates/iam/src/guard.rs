//! Asks the policies about every call.

use std::sync::Arc;

use hearth_wire::{ApiError, Call, Caller, arn::RoleArn};

use crate::{
    Iam, Identity,
    demand::{self, Demand, ImageOf},
    policy::{Context, Decision},
};

/// Decides what a principal may do.
#[derive(Clone)]
pub struct Authorizer {
    iam: Iam,
    images: Arc<dyn ImageOf>,
}

impl Authorizer {
    /// Decides by the policies of `iam`.
    pub fn new(iam: Iam, images: Arc<dyn ImageOf>) -> Authorizer {
        Authorizer { iam, images }
    }

    /// Refuses with 403 unless the caller may do everything the call is about. Gives who it is.
    pub fn authorize(&self, call: &Call) -> Result<Identity, ApiError> {
        let caller = &call.caller;
        let token = call.session_token.as_deref();
        let identity = self.iam.identify(&caller.access_key_id, token)?;
        let mut context = demand::context(call);
        identity.describe(&caller.partition, &mut context);
        for demand in demand::of(call, &*self.images) {
            check(&identity, &demand, caller, &context)?;
        }
        Ok(identity)
    }

    /// Whom the call comes from, for the audit log; `None` when the key is gone.
    pub fn principal(&self, call: &Call) -> Option<String> {
        let caller = &call.caller;
        let token = call.session_token.as_deref();
        let identity = self.iam.identify(&caller.access_key_id, token).ok()?;
        Some(identity.arn(&caller.partition))
    }

    /// What the call is about first, for the audit log.
    pub fn resource(&self, call: &Call) -> Option<String> {
        let first = demand::of(call, &*self.images).into_iter().next()?;
        first.resources.into_iter().next()
    }
}

fn check(identity: &Identity, demand: &Demand, caller: &Caller, context: &Context) -> Result<(), ApiError> {
    let resource = demand.resources.last().map_or("*", String::as_str);
    let principal = identity.arn(&caller.partition);
    let refused = |because: &str| {
        let action = &demand.action;
        Err(ApiError::access_denied(format!(
            "User: {principal} is not authorized to perform: {action} on resource: {resource} {because}"
        )))
    };
    if demand.action == "iam:PassRole" && is_foreign(resource, caller) {
        return refused("because roles of another account cannot be passed");
    }
    if demand.administrator && !identity.is_administrator() {
        return refused("because only an administrator may");
    }
    let decision = demand
        .resources
        .iter()
        .map(|resource| identity.decide(&demand.action, resource, context))
        .reduce(Decision::or)
        .unwrap_or(Decision::Silent);
    match decision {
        Decision::Allow => Ok(()),
        Decision::Deny => refused("with an explicit deny in an identity-based policy"),
        Decision::Silent => refused(&format!(
            "because no identity-based policy allows the {} action",
            demand.action
        )),
    }
}

/// What is no role's ARN is refused by the operation itself.
fn is_foreign(role: &str, caller: &Caller) -> bool {
    role.parse::<RoleArn>()
        .is_ok_and(|role| role.account != caller.account_id)
}
