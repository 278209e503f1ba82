//! `hearth usage`: what was used, to whole hours.

use clap::Args;
use http::Method;
use serde_json::Value;
use time::{Date, OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use crate::error::{Error, Result};
use crate::keys::{Of, escaped, items};
use crate::output::Out;
use crate::service::Service;

const PATH: &str = "/hearth/v1/usage";

/// Prints what was used.
#[derive(Args)]
pub(crate) struct Usage {
    /// From when on: 2026-11-01, 2026-11-01T12:00:00Z or epoch seconds
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Until when
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
    #[command(flatten)]
    of: Of,
}

impl Usage {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        if self.from.zip(self.to).is_some_and(|(from, to)| from > to) {
            return Err(Error::usage("--from lies after --to", ""));
        }
        let mut query = Vec::new();
        query.extend(self.from.map(|from| format!("from={from}")));
        query.extend(self.to.map(|to| format!("to={to}")));
        query.extend(
            self.of
                .account
                .map(|account| format!("account={}", escaped(&account))),
        );
        let path = format!("{PATH}?{}", query.join("&"));
        let answer = service.call("lambda", Method::GET, &path, None, None).await?;
        let rows: Vec<Vec<String>> = items(&answer).iter().map(row).collect();
        let heading = [
            "WHAT",
            "RUNNING S",
            "SUSPENDED S",
            "VCPU S",
            "+VCPU S",
            "GB S",
            "+GB S",
            "WRITTEN MB",
            "READ MB",
            "STORED GB H",
            "IN MB",
            "OUT MB",
        ];
        out.table(answer, &heading, &rows)
    }
}

fn row(item: &Value) -> Vec<String> {
    let image = item["imageArn"].as_str().unwrap_or_default();
    let image = image.rsplit(':').next().unwrap_or_default();
    let version = format!("{image} {}", item["imageVersion"].as_str().unwrap_or_default());
    let number = |value: &Value| format!("{:.1}", value.as_f64().unwrap_or_default());
    let seconds = |state: &str| number(&item["secondsByState"][state]);
    let megabytes = |name: &str| {
        format!(
            "{:.1}",
            item[name].as_f64().unwrap_or_default() / f64::from(1 << 20)
        )
    };
    vec![
        item["microvmId"].as_str().map_or(version, str::to_owned),
        seconds("RUNNING"),
        seconds("SUSPENDED"),
        number(&item["baselineVcpuSeconds"]),
        number(&item["vcpuSecondsAboveBaseline"]),
        number(&item["baselineMemoryGbSeconds"]),
        number(&item["memoryGbSecondsAboveBaseline"]),
        megabytes("snapshotWrittenBytes"),
        megabytes("snapshotReadBytes"),
        format!(
            "{:.4}",
            item["snapshotStoredGbHours"].as_f64().unwrap_or_default()
        ),
        megabytes("proxyReceivedBytes"),
        megabytes("proxySentBytes"),
    ]
}

/// A point in time in epoch seconds.
pub(crate) fn time(text: &str) -> Result<i64, String> {
    let day = || Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
    let moment = || OffsetDateTime::parse(text, &Rfc3339).ok();
    text.parse()
        .ok()
        .or_else(|| moment().map(OffsetDateTime::unix_timestamp))
        .or_else(|| day().map(|day| day.midnight().assume_utc().unix_timestamp()))
        .filter(|seconds| *seconds >= 0)
        .ok_or_else(|| "not a time such as 2026-11-01, 2026-11-01T12:00:00Z or 1793491200".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        for (text, seconds) in [
            ("1793491200", Some(1_793_491_200)),
            ("2026-11-01", Some(1_793_491_200)),
            ("2026-11-01T01:00:00+01:00", Some(1_793_491_200)),
            ("yesterday", None),
            ("-5", None),
        ] {
            assert_eq!(time(text).ok(), seconds, "{text}");
        }
    }
}
