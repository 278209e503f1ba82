//! What a call must be allowed (spec section 26): actions on resources, and the condition keys that go with them.

use hearth_wire::{
    Call, Caller, Operation, Request,
    arn::{ImageArn, ManagedConnector},
};
use serde_json::Value;

use crate::policy::Context;

/// Finds the image of a MicroVM: policies speak of images.
pub trait ImageOf: Send + Sync + 'static {
    /// The ARN of the image that a MicroVM of this account was launched from.
    fn image_of(&self, account: &str, microvm_id: &str) -> Option<String>;
}

/// One action on one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// `service:Operation`.
    pub action: String,
    /// The resource's ARN, in each form that policies use for it; or `*`.
    pub resources: Vec<String>,
    /// Nobody but an administrator may: it reaches beyond the caller's account.
    pub administrator: bool,
}

impl Demand {
    fn new(action: impl Into<String>, resource: impl Into<String>) -> Demand {
        Demand {
            action: action.into(),
            resources: vec![resource.into()],
            administrator: false,
        }
    }
}

/// Everything `call` must be allowed.
pub(crate) fn of(call: &Call, images: &dyn ImageOf) -> Vec<Demand> {
    let caller = &call.caller;
    match &call.request {
        Request::Operation(operation, members) => of_operation(caller, *operation, members, images),
        Request::Logs(operation, body) => vec![of_logs(caller, operation, body)],
        Request::S3(action, resource) | Request::Sts(action, resource) => {
            vec![Demand::new(format!("{}:{action}", call.service()), resource)]
        }
    }
}

fn of_operation(caller: &Caller, operation: Operation, members: &Value, images: &dyn ImageOf) -> Vec<Demand> {
    let text = |name: &str| members[name].as_str();
    if operation.route().1.starts_with("/hearth/") {
        return vec![of_own(caller, operation, members)];
    }
    let resource = if let Some(name) = text("name").filter(|_| operation == Operation::CreateMicrovmImage) {
        ImageArn::of(caller, name).to_string()
    } else if let Some(microvm) = text("microvmIdentifier") {
        let image = images.image_of(&caller.account_id, microvm);
        image.unwrap_or_else(|| "*".into())
    } else {
        let named = ["imageIdentifier", "Resource", "Identifier"]
            .into_iter()
            .find_map(text);
        named.unwrap_or("*").to_owned()
    };
    let mut demands = vec![Demand::new(format!("lambda:{}", operation.name()), resource)];
    let roles = ["buildRoleArn", "executionRoleArn", "OperatorRole"];
    for role in roles.into_iter().filter_map(text) {
        demands.push(Demand::new("iam:PassRole", role));
    }
    for connector in connectors(caller, operation, members) {
        demands.push(Demand::new("lambda:PassNetworkConnector", connector));
    }
    demands
}

/// Every connector a request refers to; RunMicrovm refers to its defaults, too.
fn connectors(caller: &Caller, operation: Operation, members: &Value) -> Vec<String> {
    let lists = [
        ("ingressNetworkConnectors", ManagedConnector::HttpIngress),
        ("egressNetworkConnectors", ManagedConnector::InternetEgress),
    ];
    let named = lists.into_iter().flat_map(|(list, default)| {
        let named: Vec<String> = members[list]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|connector| connector.as_str().map(str::to_owned))
            .collect();
        match named.is_empty() && operation == Operation::RunMicrovm {
            true => vec![default.arn(caller)],
            false => named,
        }
    });
    named.collect()
}

/// Our own operations are actions of a service of that name.
fn of_own(caller: &Caller, operation: Operation, members: &Value) -> Demand {
    let about_another = members["account"]
        .as_str()
        .is_some_and(|account| account != caller.account_id);
    let makes_administrator = members["administrator"].as_bool() == Some(true);
    // Every account's Dockerfiles may name a container base, and the audit log is of every account.
    let of_the_node = matches!(operation, Operation::ImportBase | Operation::ListAudit);
    Demand {
        administrator: about_another || makes_administrator || of_the_node,
        ..Demand::new(format!("hearth:{}", operation.name()), "*")
    }
}

fn of_logs(caller: &Caller, operation: &str, body: &Value) -> Demand {
    let Caller {
        partition,
        region,
        account_id,
        ..
    } = caller;
    let of_group = |name: &str| format!("arn:{partition}:logs:{region}:{account_id}:log-group:{name}");
    let identifier = body["logGroupIdentifier"].as_str().map(|identifier| {
        let name = identifier
            .split_once(":log-group:")
            .map_or(identifier, |(_, name)| name);
        name.strip_suffix(":*").unwrap_or(name)
    });
    let action = format!("logs:{operation}");
    let Some(group) = body["logGroupName"].as_str().or(identifier) else {
        return Demand::new(action, of_group("*"));
    };
    let group = of_group(group);
    match body["logStreamName"].as_str() {
        Some(stream) => Demand::new(action, format!("{group}:log-stream:{stream}")),
        None => Demand {
            resources: vec![format!("{group}:log-stream:"), group],
            ..Demand::new(action, "")
        },
    }
}

/// The condition keys of a call, but for those of its principal.
pub(crate) fn context(call: &Call) -> Context {
    let mut context = Context::default();
    let now = hearth_wire::Timestamp::now();
    context.set("aws:SourceIp", call.source.to_canonical().to_string());
    context.set("aws:SecureTransport", "true");
    context.set("aws:RequestedRegion", &call.caller.region);
    context.set("aws:CurrentTime", crate::identity::rfc3339(now));
    context.set("aws:EpochTime", (now.as_millis() / 1000).to_string());
    context.set("iam:PassedToService", "lambda.amazonaws.com");
    if let Some(agent) = &call.user_agent {
        context.set("aws:UserAgent", agent);
    }
    if let Request::Operation(_, members) = &call.request {
        let tags = ["tags", "Tags"]
            .into_iter()
            .find_map(|name| members[name].as_object());
        for (key, value) in tags.into_iter().flatten() {
            context.set(
                &format!("aws:RequestTag/{key}"),
                value.as_str().unwrap_or_default(),
            );
        }
        let removed = members["TagKeys"].as_array().into_iter().flatten();
        let keys: Vec<String> = tags
            .into_iter()
            .flat_map(|tags| tags.keys().cloned())
            .chain(removed.filter_map(|key| key.as_str().map(str::to_owned)))
            .collect();
        if !keys.is_empty() {
            context.set_all("aws:TagKeys", keys);
        }
    }
    context
}
