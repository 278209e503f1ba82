//! `hearth run`: a MicroVM from an image.

use std::time::Duration;

use aws_sdk_lambdamicrovms::types::{CloudWatchLogging, IdlePolicy, Logging, MicrovmState};
use clap::Args;
use serde_json::json;

use crate::error::{Error, Result};
use crate::logs::group_of;
use crate::output::{Out, spinner};
use crate::service::Service;
use crate::vm::change;

/// The longest that a MicroVM may live, seconds.
const LIFETIME: i32 = 28_800;

/// Launches a MicroVM.
#[derive(Args)]
pub(crate) struct Run {
    /// Name or ARN of the image
    image: String,
    /// A version of the image instead of the latest active one
    #[arg(long, value_name = "VERSION")]
    image_version: Option<String>,
    /// Suspend it after that long without a request, at least 60
    #[arg(long, value_name = "SECONDS")]
    idle: Option<i32>,
    /// End it after that long in suspension [default: when its time is over]
    #[arg(long, value_name = "SECONDS")]
    suspended: Option<i32>,
    /// Wake it up when a request arrives
    #[arg(long)]
    auto_resume: bool,
    /// Handed to the application's /run hook, at most 4096 characters
    #[arg(long, value_name = "TEXT")]
    payload: Option<String>,
    /// End it after that long, at most 28800
    #[arg(long, value_name = "SECONDS")]
    max_duration: Option<i32>,
    /// The role whose credentials it gets and its output is kept with [default: hearth-run of this account]
    #[arg(long, value_name = "ARN")]
    role: Option<String>,
    /// No role: no credentials, and no output for `hearth logs`
    #[arg(long, conflicts_with = "role")]
    no_role: bool,
    /// Allow shells, commands and files: `hearth shell`, `exec` and `cp`
    #[arg(long)]
    shell: bool,
    /// Open a port, or a range such as 8000-8099, to everybody, without a token; the daemon must allow it
    #[arg(long, value_name = "PORTS")]
    public: Vec<String>,
}

impl Run {
    /// HTTP as always, and what else may come in; `None` is what the service does unasked.
    fn ingress(&self, region: &str) -> Option<Vec<String>> {
        let public = self
            .public
            .iter()
            .map(|ports| format!("PUBLIC_INGRESS_{}", ports.replace('-', "_")));
        let more: Vec<String> = self
            .shell
            .then(|| "SHELL_INGRESS".to_owned())
            .into_iter()
            .chain(public)
            .collect();
        let names = ["HTTP_INGRESS".to_owned()].into_iter().chain(more.clone());
        let arn =
            |name| format!("arn:aws:lambda:{region}:aws:network-connector:aws-network-connector:{name}");
        (!more.is_empty()).then(|| names.map(arn).collect())
    }

    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        let idle_policy = self.idle_policy()?;
        let ingress = self.ingress(&service.settings.region);
        let arn = service.image_arn(&self.image).await?;
        let account = arn.split(':').nth(4).unwrap_or_default();
        let default_role = format!("arn:aws:iam::{account}:role/hearth-run");
        let role = (!self.no_role).then(|| self.role.unwrap_or(default_role));
        let logging = Logging::CloudWatch(CloudWatchLogging::builder().log_group(group_of(&arn)).build());
        let bar = spinner(format!("launching {}", self.image));
        let launched = service
            .microvms
            .run_microvm()
            .image_identifier(arn)
            .set_image_version(self.image_version)
            .set_idle_policy(idle_policy)
            .set_run_hook_payload(self.payload)
            .set_maximum_duration_in_seconds(self.max_duration)
            .set_execution_role_arn(role)
            .set_ingress_network_connectors(ingress)
            .logging(logging)
            .send()
            .await
            .map_err(|error| service.error(error))?;
        let id = launched.microvm_id;
        change::wait(service, &id, MicrovmState::Running, Duration::from_millis(20)).await?;
        bar.finish_and_clear();
        let url = format!("https://{}", launched.endpoint);
        let value = json!({
            "microvmId": id,
            "url": url,
            "endpoint": launched.endpoint,
            "imageArn": launched.image_arn,
            "imageVersion": launched.image_version,
            "state": "RUNNING",
        });
        out.print(value, || format!("{id}\n{url}"))
    }

    /// Any of the three options makes a policy; what it leaves open never happens before the end.
    fn idle_policy(&self) -> Result<Option<IdlePolicy>> {
        if self.idle.is_none() && self.suspended.is_none() && !self.auto_resume {
            return Ok(None);
        }
        let policy = IdlePolicy::builder()
            .max_idle_duration_seconds(self.idle.unwrap_or(LIFETIME))
            .suspended_duration_seconds(self.suspended.unwrap_or(LIFETIME))
            .auto_resume_enabled(self.auto_resume)
            .build();
        policy
            .map(Some)
            .map_err(|error| Error::failed(error.to_string(), ""))
    }
}
