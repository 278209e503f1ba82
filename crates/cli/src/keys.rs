//! `hearth keys`: who may use the service.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::output::Out;
use crate::service::Service;

const PATH: &str = "/hearth/v1/keys";

/// What can be done with access keys.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a key and print its secret, which is never shown again
    Create(Create),
    /// List keys
    Ls(Of),
    /// Revoke keys at once and for good
    Revoke {
        /// The keys' ids
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        of: Of,
    },
}

/// Whose they are.
#[derive(Args)]
pub(crate) struct Of {
    /// Another account than one's own; for administrators
    #[arg(long, value_name = "TWELVE DIGITS")]
    pub(crate) account: Option<String>,
}

impl Of {
    /// As a query.
    pub(crate) fn query(&self) -> String {
        let account = self.account.as_deref();
        account.map_or_else(String::new, |account| format!("?account={}", escaped(account)))
    }
}

/// Makes a key.
#[derive(Args)]
pub(crate) struct Create {
    /// Whom the key is for; without a name it acts as the account itself
    name: Option<String>,
    /// What it may do: a file with a policy in IAM's JSON. Without one it may do nothing
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// May do everything, and manage every account
    #[arg(long, conflicts_with = "policy")]
    administrator: bool,
    #[command(flatten)]
    of: Of,
}

impl Command {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        match self {
            Self::Create(create) => create.run(service, out).await,
            Self::Ls(of) => {
                let path = format!("{PATH}{}", of.query());
                let answer = service.call("lambda", Method::GET, &path, None, None).await?;
                let rows: Vec<Vec<String>> = items(&answer).iter().map(row).collect();
                out.table(answer, &["KEY", "ACCOUNT", "NAME", "MAY"], &rows)
            }
            Self::Revoke { ids, of } => {
                for id in ids {
                    let path = format!("{PATH}/{}{}", escaped(&id), of.query());
                    service.call("lambda", Method::DELETE, &path, None, None).await?;
                    out.print(json!({ "accessKeyId": id }), || id.clone())?;
                }
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, service: &Service, out: Out) -> Result<()> {
        let body = json!({
            "account": self.of.account,
            "userName": self.name,
            "administrator": self.administrator,
            "policy": self.policy.as_deref().map(read_policy).transpose()?,
        });
        let answer = service
            .call("lambda", Method::POST, PATH, None, Some(body))
            .await?;
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let (id, secret) = (text("accessKeyId"), text("secretAccessKey"));
        out.print(answer, || {
            format!("export AWS_ACCESS_KEY_ID={id}\nexport AWS_SECRET_ACCESS_KEY={secret}")
        })
    }
}

/// A policy as it goes over the wire: the service reads it.
pub(crate) fn read_policy(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::file(path))
}

/// A label or value of a URI.
pub(crate) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The items of a listing.
pub(crate) fn items(answer: &Value) -> &[Value] {
    answer["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn row(key: &Value) -> Vec<String> {
    let text = |name: &str| key[name].as_str().unwrap_or("-").to_owned();
    let may = match (key["administrator"].as_bool(), &key["policy"]) {
        (Some(true), _) => "everything",
        (_, Value::Null) => "nothing",
        _ => "as its policy says",
    };
    vec![
        text("accessKeyId"),
        text("account"),
        text("userName"),
        may.to_owned(),
    ]
}
