//! `hearth audit`: what was changed, by whom and when.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::error::{Error, Result};
use crate::keys::{Of, escaped, items};
use crate::output::Out;
use crate::service::Service;
use crate::usage::time;

const PATH: &str = "/hearth/v1/audit";
const DAY_SECONDS: i64 = 24 * 3600;

/// Prints the calls that could change something, oldest first; for administrators.
#[derive(Args)]
pub(crate) struct Audit {
    /// From when on: 2026-11-01, 2026-11-01T12:00:00Z or epoch seconds [default: a day ago]
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Until when
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
    /// By whom: a part of the principal's ARN, or an access key's id
    #[arg(long, value_name = "WHO")]
    who: Option<String>,
    /// What: an operation's name, or a part of the resource
    #[arg(long, value_name = "WHAT")]
    what: Option<String>,
    /// How it ended
    #[arg(long, value_enum)]
    outcome: Option<Outcome>,
    #[command(flatten)]
    of: Of,
}

/// How a call ended.
#[derive(Clone, Copy, ValueEnum)]
enum Outcome {
    /// It was carried out
    Succeeded,
    /// It was refused, or failed
    Failed,
}

impl Audit {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        let from = self.from.unwrap_or_else(|| now() - DAY_SECONDS);
        if self.to.is_some_and(|to| from > to) {
            return Err(Error::usage("--from lies after --to", ""));
        }
        let outcome = self.outcome.map(|outcome| match outcome {
            Outcome::Succeeded => "SUCCEEDED".to_owned(),
            Outcome::Failed => "FAILED".to_owned(),
        });
        let filters = [
            ("from", Some(from.to_string())),
            ("to", self.to.map(|to| to.to_string())),
            ("who", self.who),
            ("what", self.what),
            ("outcome", outcome),
            ("account", self.of.account),
            ("maxResults", Some("1000".to_owned())),
        ];
        let query: Vec<String> = filters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", escaped(&value?))))
            .collect();
        let first = format!("{PATH}?{}", query.join("&"));
        let (mut path, mut records) = (first.clone(), Vec::new());
        loop {
            let page = service.call("lambda", Method::GET, &path, None, None).await?;
            records.extend_from_slice(items(&page));
            match page["nextToken"].as_str() {
                Some(token) => path = format!("{first}&nextToken={}", escaped(token)),
                None => break,
            }
        }
        let rows: Vec<Vec<String>> = records.iter().map(row).collect();
        let heading = ["TIME", "WHO", "FROM", "WHAT", "RESOURCE", "OUTCOME"];
        out.table(json!({ "items": records }), &heading, &rows)
    }
}

fn row(record: &Value) -> Vec<String> {
    let text = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
    let moment = OffsetDateTime::from_unix_timestamp(record["time"].as_f64().unwrap_or_default() as i64);
    let moment = moment.ok().and_then(|moment| moment.format(&Rfc3339).ok());
    let outcome = match record["error"].as_str() {
        Some(error) => format!("{} {error}", record["status"]),
        None => record["status"].to_string(),
    };
    vec![
        moment.unwrap_or_default(),
        record["principal"]
            .as_str()
            .map_or_else(|| text("accessKeyId"), str::to_owned),
        text("source"),
        format!("{}:{}", text("service"), text("operation")),
        text("resource"),
        outcome,
    ]
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
