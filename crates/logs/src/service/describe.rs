//! Groups and streams themselves.

use std::cmp::Reverse;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Caller, group_name, limit};
use crate::{Inner, LogsError, group::Group, stream::Stream};

const MOST: usize = 50;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OneGroup {
    log_group_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OneStream {
    log_group_name: String,
    log_stream_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DescribeLogGroups {
    log_group_name_prefix: Option<String>,
    log_group_name_pattern: Option<String>,
    next_token: Option<String>,
    limit: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DescribeLogStreams {
    log_group_name: Option<String>,
    log_group_identifier: Option<String>,
    log_stream_name_prefix: Option<String>,
    order_by: Option<String>,
    #[serde(default)]
    descending: bool,
    next_token: Option<String>,
    limit: Option<i64>,
}

pub(super) fn create_log_group(logs: &Inner, caller: &Caller, input: OneGroup) -> Result<Value, LogsError> {
    logs.create_group(&caller.account, &input.log_group_name)?;
    Ok(json!({}))
}

pub(super) fn delete_log_group(logs: &Inner, caller: &Caller, input: OneGroup) -> Result<Value, LogsError> {
    logs.delete_group(&caller.account, &input.log_group_name)?;
    Ok(json!({}))
}

/// The days that the service model allows.
const RETENTION_DAYS: [i64; 22] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PutRetentionPolicy {
    log_group_name: String,
    retention_in_days: i64,
}

pub(super) fn put_retention_policy(
    logs: &Inner,
    caller: &Caller,
    input: PutRetentionPolicy,
) -> Result<Value, LogsError> {
    let days = input.retention_in_days;
    let allowed = RETENTION_DAYS.contains(&days);
    let days = u32::try_from(days).ok().filter(|_| allowed).ok_or_else(|| {
        LogsError::invalid(format!(
            "1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint: Member \
             must satisfy enum value set: {RETENTION_DAYS:?}"
        ))
    })?;
    logs.group(&caller.account, &input.log_group_name)?
        .set_retention(Some(days))?;
    Ok(Value::Null)
}

pub(super) fn delete_retention_policy(
    logs: &Inner,
    caller: &Caller,
    input: OneGroup,
) -> Result<Value, LogsError> {
    logs.group(&caller.account, &input.log_group_name)?
        .set_retention(None)?;
    Ok(Value::Null)
}

pub(super) fn create_log_stream(logs: &Inner, caller: &Caller, input: OneStream) -> Result<Value, LogsError> {
    logs.group(&caller.account, &input.log_group_name)?
        .create_stream(&input.log_stream_name)?;
    Ok(json!({}))
}

pub(super) fn delete_log_stream(logs: &Inner, caller: &Caller, input: OneStream) -> Result<Value, LogsError> {
    logs.group(&caller.account, &input.log_group_name)?
        .delete_stream(&input.log_stream_name)?;
    Ok(json!({}))
}

pub(super) fn describe_log_groups(
    logs: &Inner,
    caller: &Caller,
    input: DescribeLogGroups,
) -> Result<Value, LogsError> {
    let limit = limit(input.limit, MOST)?;
    if input.log_group_name_prefix.is_some() && input.log_group_name_pattern.is_some() {
        return Err(LogsError::invalid(
            "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.",
        ));
    }
    let prefix = input.log_group_name_prefix.unwrap_or_default();
    let pattern = input.log_group_name_pattern.unwrap_or_default().to_lowercase();
    let after = input.next_token.unwrap_or_default();
    let mut groups = logs.groups(&caller.account);
    groups.retain(|group| {
        group.name.starts_with(&prefix) && group.name.to_lowercase().contains(&pattern) && group.name > after
    });
    let more = groups.len() > limit;
    groups.truncate(limit);
    let told: Vec<Value> = groups.iter().map(|group| told_group(caller, group)).collect();
    let next = groups.last().filter(|_| more).map(|group| group.name.clone());
    Ok(page("logGroups", told, next))
}

pub(super) fn describe_log_streams(
    logs: &Inner,
    caller: &Caller,
    input: DescribeLogStreams,
) -> Result<Value, LogsError> {
    let limit = limit(input.limit, MOST)?;
    let group = logs.group(
        &caller.account,
        &group_name(input.log_group_name, input.log_group_identifier)?,
    )?;
    let by_time = match input.order_by.as_deref() {
        None | Some("LogStreamName") => false,
        Some("LastEventTime") => true,
        Some(_) => {
            return Err(LogsError::invalid(
                "Value at 'orderBy' failed to satisfy constraint: Member must satisfy enum value set: [LastEventTime, LogStreamName]",
            ));
        }
    };
    if by_time && input.log_stream_name_prefix.is_some() {
        return Err(LogsError::invalid(
            "Cannot order by LastEventTime with a logStreamNamePrefix.",
        ));
    }
    let prefix = input.log_stream_name_prefix.unwrap_or_default();
    // Times change while a caller pages, so streams are ordered by the one they had when asked for.
    let mut streams: Vec<_> = group
        .streams()
        .values()
        .filter(|stream| stream.name.starts_with(&prefix))
        .map(|stream| {
            (
                if by_time { stream.times().1.unwrap_or(0) } else { 0 },
                std::sync::Arc::clone(stream),
            )
        })
        .collect();
    streams.sort_by(|(a_time, a), (b_time, b)| (a_time, &a.name).cmp(&(b_time, &b.name)));
    if input.descending {
        streams.reverse();
    }
    if let Some(token) = input.next_token {
        let after = parse_token(&token)?;
        streams.retain(|(time, stream)| {
            let here = (*time, stream.name.clone());
            if input.descending {
                Reverse(here) > Reverse(after.clone())
            } else {
                here > after
            }
        });
    }
    let more = streams.len() > limit;
    streams.truncate(limit);
    let told: Vec<Value> = streams
        .iter()
        .map(|(_, stream)| told_stream(caller, &group, stream))
        .collect();
    let next = streams
        .last()
        .filter(|_| more)
        .map(|(time, stream)| format!("{time}.{}", stream.name));
    Ok(page("logStreams", told, next))
}

fn parse_token(token: &str) -> Result<(i64, String), LogsError> {
    let parsed = token
        .split_once('.')
        .and_then(|(time, name)| Some((time.parse().ok()?, name.to_owned())));
    parsed.ok_or_else(|| LogsError::invalid("The specified nextToken is invalid."))
}

fn page(member: &str, told: Vec<Value>, next: Option<String>) -> Value {
    let mut answer = Map::new();
    answer.insert(member.to_owned(), told.into());
    answer.extend(next.map(|next| ("nextToken".to_owned(), next.into())));
    answer.into()
}

fn group_arn(caller: &Caller, group: &Group) -> String {
    format!(
        "arn:aws:logs:{}:{}:log-group:{}",
        caller.region, caller.account, group.name
    )
}

fn told_group(caller: &Caller, group: &Group) -> Value {
    let arn = group_arn(caller, group);
    let mut told = json!({
        "logGroupName": group.name,
        "creationTime": group.created_ms,
        "metricFilterCount": 0,
        "arn": format!("{arn}:*"),
        "logGroupArn": arn,
        "logGroupClass": "STANDARD",
        "storedBytes": group.bytes().max(0),
    });
    if let (Some(days), Some(members)) = (group.retention_days(), told.as_object_mut()) {
        members.insert("retentionInDays".into(), days.into());
    }
    told
}

fn told_stream(caller: &Caller, group: &Group, stream: &Stream) -> Value {
    let (first, last, ingested) = stream.times();
    let mut told = json!({
        "logStreamName": stream.name,
        "creationTime": stream.created_ms,
        "arn": format!("{}:log-stream:{}", group_arn(caller, group), stream.name),
        // The API has told 0 here for every stream since 2019.
        "storedBytes": 0,
    });
    if let Some(members) = told.as_object_mut() {
        let times = [
            ("firstEventTimestamp", first),
            ("lastEventTimestamp", last),
            ("lastIngestionTime", ingested),
        ];
        members.extend(
            times
                .into_iter()
                .filter_map(|(name, time)| Some((name.to_owned(), time?.into()))),
        );
    }
    told
}
