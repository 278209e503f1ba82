//! The JSON 1.1 service `Logs_20140328`.

mod describe;
mod events;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Inner, Logs, LogsError, blocking};

/// CloudWatch Logs over [`Logs`]; clones share it.
#[derive(Clone, Debug)]
pub struct LogsService {
    logs: Logs,
}

/// Who asks, and the region whose name the answers bear.
struct Caller {
    account: String,
    region: String,
}

impl LogsService {
    /// Serves `logs`.
    pub fn new(logs: Logs) -> Self {
        Self { logs }
    }

    /// Answers one authenticated request. `target` is the `X-Amz-Target` header, for example
    /// `Logs_20140328.GetLogEvents`.
    pub async fn call(
        &self,
        account_id: &str,
        region: &str,
        target: &str,
        body: Value,
    ) -> Result<Value, LogsError> {
        let caller = Caller {
            account: account_id.to_owned(),
            region: region.to_owned(),
        };
        let operation = target
            .strip_prefix("Logs_20140328.")
            .unwrap_or_default()
            .to_owned();
        let logs = self.logs.clone();
        blocking(move || dispatch(&logs.inner, &caller, &operation, body)).await
    }
}

fn dispatch(logs: &Inner, caller: &Caller, operation: &str, body: Value) -> Result<Value, LogsError> {
    match operation {
        "CreateLogGroup" => describe::create_log_group(logs, caller, input(body)?),
        "DeleteLogGroup" => describe::delete_log_group(logs, caller, input(body)?),
        "DescribeLogGroups" => describe::describe_log_groups(logs, caller, input(body)?),
        "PutRetentionPolicy" => describe::put_retention_policy(logs, caller, input(body)?),
        "DeleteRetentionPolicy" => describe::delete_retention_policy(logs, caller, input(body)?),
        "CreateLogStream" => describe::create_log_stream(logs, caller, input(body)?),
        "DeleteLogStream" => describe::delete_log_stream(logs, caller, input(body)?),
        "DescribeLogStreams" => describe::describe_log_streams(logs, caller, input(body)?),
        "PutLogEvents" => events::put_log_events(logs, caller, input(body)?),
        "GetLogEvents" => events::get_log_events(logs, caller, input(body)?),
        "FilterLogEvents" => events::filter_log_events(logs, caller, input(body)?),
        _ => Err(LogsError::unknown_operation()),
    }
}

/// The request's members; nulls count as absent, unknown members are passed over.
fn input<T: DeserializeOwned>(body: Value) -> Result<T, LogsError> {
    let body = match body {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect(),
        ),
        other => other,
    };
    serde_json::from_value(body).map_err(|error| LogsError {
        status: 400,
        type_name: "SerializationException",
        message: error.to_string(),
    })
}

/// The group's name, from a name or from an identifier, which may be an ARN.
fn group_name(name: Option<String>, identifier: Option<String>) -> Result<String, LogsError> {
    match (name, identifier) {
        (Some(name), None) => Ok(name),
        (None, Some(identifier)) => {
            let name = identifier
                .split_once(":log-group:")
                .map_or(identifier.as_str(), |(_, name)| name);
            Ok(name.strip_suffix(":*").unwrap_or(name).to_owned())
        }
        (None, None) => Err(LogsError::invalid(
            "Either logGroupName or logGroupIdentifier must be specified",
        )),
        (Some(_), Some(_)) => Err(LogsError::invalid(
            "LogGroupName and LogGroupIdentifier cannot both be specified",
        )),
    }
}

/// A limit within `1..=most`; `most` where absent.
fn limit(asked: Option<i64>, most: usize) -> Result<usize, LogsError> {
    let limit = asked.map_or(Some(most), |limit| usize::try_from(limit).ok());
    limit.filter(|limit| (1..=most).contains(limit)).ok_or_else(|| {
        LogsError::invalid(format!(
            "Value at 'limit' failed to satisfy constraint: Member must have value between 1 and {most}"
        ))
    })
}

/// Timestamps are not negative in this API.
fn check_time(member: &str, value: Option<i64>) -> Result<(), LogsError> {
    match value {
        Some(..0) => Err(LogsError::invalid(format!(
            "Value at '{member}' failed to satisfy constraint: Member must have value greater than or equal to 0"
        ))),
        _ => Ok(()),
    }
}
