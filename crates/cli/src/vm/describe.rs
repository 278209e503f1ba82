//! `hearth describe`: one MicroVM, and why it is not idle.

use clap::Args;
use serde_json::{Value, json};

use crate::admin;
use crate::error::Result;
use crate::output::Out;
use crate::service::Service;
use crate::vm::id;

/// Shows one MicroVM.
#[derive(Args)]
pub(crate) struct Describe {
    /// Id, or the beginning of one
    #[arg(value_name = "ID")]
    id: String,
}

impl Describe {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        let id = id::resolve(service, &self.id).await?;
        let vm = id::get(service, &id).await?;
        let activity = admin::get(service, &format!("/microvms/{id}/activity")).await?;
        let vmm = admin::vmms(service).await[&id].take();
        let policy = vm.idle_policy.map(|policy| {
            json!({
                "maxIdleDurationSeconds": policy.max_idle_duration_seconds,
                "suspendedDurationSeconds": policy.suspended_duration_seconds,
                "autoResumeEnabled": policy.auto_resume_enabled,
            })
        });
        let described = json!({
            "microvmId": vm.microvm_id,
            "state": vm.state.as_str(),
            "stateReason": vm.state_reason,
            "endpoint": vm.endpoint,
            "imageArn": vm.image_arn,
            "imageVersion": vm.image_version,
            "vmm": vmm,
            "idlePolicy": policy,
            "activity": activity,
        });
        let text = lines(&described);
        out.print(described, || text)
    }
}

fn lines(described: &Value) -> String {
    let field = |name: &str| match &described[name] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut lines = vec![
        format!("{} {}", field("microvmId"), field("state")),
        format!("image     {} {}", field("imageArn"), field("imageVersion")),
        format!("endpoint  {}", field("endpoint")),
        format!("vmm       {}", field("vmm")),
    ];
    if let Some(reason) = described["stateReason"].as_str() {
        lines.push(format!("reason    {reason}"));
    }
    lines.push(format!("idle      {}", idleness(described)));
    lines.join("\n")
}

fn idleness(described: &Value) -> String {
    let Some(longest) = described["idlePolicy"]["maxIdleDurationSeconds"].as_u64() else {
        return "never: it has no idle policy".to_owned();
    };
    if described["state"] != "RUNNING" {
        return format!("after {longest} s without traffic, when it runs");
    }
    let activity = &described["activity"];
    let busy: Vec<&str> = activity["busy"]
        .as_array()
        .map(|reasons| reasons.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    match (busy.as_slice(), activity["quietSeconds"].as_u64()) {
        ([], Some(quiet)) => format!("no traffic for {quiet} s of {longest} s"),
        ([], None) => format!("after {longest} s without traffic"),
        (busy, _) => format!("not idle: {}", busy.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(state: &str, policy: Value, busy: &[&str]) -> Value {
        json!({"state": state, "idlePolicy": policy, "activity": {"quietSeconds": 12, "busy": busy}})
    }

    #[test]
    fn the_last_line_says_why_it_is_not_idle() {
        let policy = json!({"maxIdleDurationSeconds": 60});
        let line = |state, policy, busy: &[&str]| idleness(&described(state, policy, busy));
        assert_eq!(
            line("RUNNING", policy.clone(), &[]),
            "no traffic for 12 s of 60 s"
        );
        assert_eq!(
            line("RUNNING", policy.clone(), &["2 requests wait for a response"]),
            "not idle: 2 requests wait for a response"
        );
        assert_eq!(
            line("SUSPENDED", policy, &[]),
            "after 60 s without traffic, when it runs"
        );
        assert_eq!(line("RUNNING", Value::Null, &[]), "never: it has no idle policy");
    }
}
