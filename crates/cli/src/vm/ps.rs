//! `hearth ps`: the MicroVMs there are.

use std::time::SystemTime;

use aws_sdk_lambdamicrovms::types::{MicrovmItem, MicrovmState};
use clap::Args;
use serde_json::{Value, json};

use crate::admin;
use crate::error::Result;
use crate::output::{Out, age};
use crate::service::Service;
use crate::vm::id;

/// Lists MicroVMs.
#[derive(Args)]
pub(crate) struct Ps {
    /// Also those that have ended
    #[arg(short, long)]
    all: bool,
}

impl Ps {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        let mut items = id::list(service).await?;
        items.retain(|item| self.all || item.state != MicrovmState::Terminated);
        items.sort_by_key(|item| std::cmp::Reverse(item.started_at));
        let vmms = admin::vmms(service).await;
        let vmm = |item: &MicrovmItem| vmms[&item.microvm_id].as_str();
        let rows: Vec<Vec<String>> = items.iter().map(|item| row(item, vmm(item))).collect();
        let json: Value = items.iter().map(|item| describe(item, vmm(item))).collect();
        out.table(
            json,
            &["MICROVM", "IMAGE", "VERSION", "STATE", "AGE", "VMM"],
            &rows,
        )
    }
}

fn row(item: &MicrovmItem, vmm: Option<&str>) -> Vec<String> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let seconds = i64::try_from(now)
        .unwrap_or(i64::MAX)
        .saturating_sub(item.started_at.secs());
    let image = item.image_arn.rsplit(':').next().unwrap_or_default();
    vec![
        item.microvm_id.clone(),
        image.to_owned(),
        item.image_version.clone(),
        item.state.to_string(),
        age(seconds),
        vmm.unwrap_or("-").to_owned(),
    ]
}

fn describe(item: &MicrovmItem, vmm: Option<&str>) -> Value {
    json!({
        "microvmId": item.microvm_id,
        "imageArn": item.image_arn,
        "imageVersion": item.image_version,
        "state": item.state.as_str(),
        "startedAt": item.started_at.as_secs_f64(),
        "vmm": vmm,
    })
}
