//! `hearth roles`: what builds and MicroVMs act as.

use std::path::PathBuf;

use clap::Subcommand;
use http::Method;
use serde_json::json;

use crate::error::Result;
use crate::keys::{Of, escaped, items, read_policy};
use crate::output::Out;
use crate::service::Service;

const PATH: &str = "/hearth/v1/roles";

/// What can be done with roles.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a role that builds, MicroVMs and the account's principals may assume, and print its ARN
    Create {
        /// Its name
        name: String,
        /// What it may do: a file with a policy in IAM's JSON
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        #[command(flatten)]
        of: Of,
    },
    /// List roles
    Ls(Of),
    /// Remove roles; what acts as them may do nothing from then on
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        of: Of,
    },
}

impl Command {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        match self {
            Self::Create { name, policy, of } => {
                let body = json!({ "account": of.account, "name": name, "policy": read_policy(&policy)? });
                let answer = service
                    .call("lambda", Method::POST, PATH, None, Some(body))
                    .await?;
                let arn = answer["roleArn"].as_str().unwrap_or_default().to_owned();
                out.print(answer, || arn)
            }
            Self::Ls(of) => {
                let path = format!("{PATH}{}", of.query());
                let answer = service.call("lambda", Method::GET, &path, None, None).await?;
                let row = |role: &serde_json::Value| {
                    let text = |name: &str| role[name].as_str().unwrap_or("-").to_owned();
                    vec![text("name"), text("roleArn")]
                };
                let rows: Vec<Vec<String>> = items(&answer).iter().map(row).collect();
                out.table(answer, &["NAME", "ARN"], &rows)
            }
            Self::Rm { names, of } => {
                for name in names {
                    let path = format!("{PATH}/{}{}", escaped(&name), of.query());
                    service.call("lambda", Method::DELETE, &path, None, None).await?;
                    out.print(json!({ "name": name }), || name.clone())?;
                }
                Ok(())
            }
        }
    }
}
