//! Events: put, get, filter.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Caller, check_time, group_name, limit};
use crate::{
    Event, From, Inner, LogsError, ReadQuery,
    filter::{self, FilterQuery},
    pattern::Pattern,
    read::EVENT_OVERHEAD_BYTES,
    stream::Stream,
    writer,
};

const MOST: usize = 10_000;
/// A batch of PutLogEvents: its size, how far it may reach into the future and back, and its span.
const BATCH_BYTES: usize = 1 << 20;
const FUTURE_MS: i64 = 2 * 3600 * 1000;
const DAY_MS: i64 = 24 * 3600 * 1000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PutLogEvents {
    log_group_name: String,
    log_stream_name: String,
    log_events: Vec<InputEvent>,
}

#[derive(Deserialize)]
struct InputEvent {
    timestamp: i64,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GetLogEvents {
    log_group_name: Option<String>,
    log_group_identifier: Option<String>,
    log_stream_name: String,
    start_time: Option<i64>,
    end_time: Option<i64>,
    next_token: Option<String>,
    limit: Option<i64>,
    #[serde(default)]
    start_from_head: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FilterLogEvents {
    log_group_name: Option<String>,
    log_group_identifier: Option<String>,
    log_stream_names: Option<Vec<String>>,
    log_stream_name_prefix: Option<String>,
    start_time: Option<i64>,
    end_time: Option<i64>,
    #[serde(default)]
    filter_pattern: String,
    next_token: Option<String>,
    limit: Option<i64>,
}

pub(super) fn put_log_events(logs: &Inner, caller: &Caller, input: PutLogEvents) -> Result<Value, LogsError> {
    let (group, stream) = logs.stream(&caller.account, &input.log_group_name, &input.log_stream_name)?;
    let events = input.log_events;
    let bytes: usize = events
        .iter()
        .map(|event| event.message.len() + EVENT_OVERHEAD_BYTES)
        .sum();
    if events.is_empty() || events.len() > MOST {
        return Err(LogsError::invalid(
            "Value at 'logEvents' failed to satisfy constraint: Member must have length between 1 and 10000",
        ));
    }
    if events.iter().any(|event| event.message.is_empty()) {
        return Err(LogsError::invalid(
            "Log event message must have length greater than or equal to 1",
        ));
    }
    if bytes > BATCH_BYTES {
        return Err(LogsError::invalid(format!(
            "Upload too large: {bytes} bytes exceeds limit of {BATCH_BYTES}"
        )));
    }
    if !events.is_sorted_by_key(|event| event.timestamp) {
        return Err(LogsError::invalid(
            "Log events in a single PutLogEvents request must be in chronological order.",
        ));
    }
    if events[events.len() - 1]
        .timestamp
        .saturating_sub(events[0].timestamp)
        > DAY_MS
    {
        return Err(LogsError::invalid(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
        ));
    }
    let now = crate::now_ms();
    let old = events.partition_point(|event| event.timestamp < now - 14 * DAY_MS);
    let new = events.partition_point(|event| event.timestamp <= now + FUTURE_MS);
    let taken = events[old..new]
        .iter()
        .map(|event| event.message.len() + 48)
        .sum();
    if !stream.pending().admits(taken, &logs.limits) {
        return Err(LogsError::throttled());
    }
    for event in &events[old..new] {
        writer::push(logs, &group, &stream, event.timestamp, &event.message);
    }
    let total = events.len();
    // An answer is a promise: through to the disk first.
    logs.flush(&group, &stream, true)?;
    let mut answer = json!({ "nextSequenceToken": format!("{now:056}") });
    let mut rejected = serde_json::Map::new();
    if old > 0 {
        rejected.insert("tooOldLogEventEndIndex".to_owned(), old.into());
    }
    if new < total {
        rejected.insert("tooNewLogEventStartIndex".to_owned(), new.into());
    }
    if !rejected.is_empty() {
        answer["rejectedLogEventsInfo"] = rejected.into();
    }
    Ok(answer)
}

pub(super) fn get_log_events(logs: &Inner, caller: &Caller, input: GetLogEvents) -> Result<Value, LogsError> {
    check_time("startTime", input.start_time)?;
    check_time("endTime", input.end_time)?;
    let limit = limit(input.limit, MOST)?;
    let group = group_name(input.log_group_name, input.log_group_identifier)?;
    let from = match input.next_token.as_deref() {
        None if input.start_from_head => From::Head,
        None => From::Tail,
        Some(token) => match token.split_once('/') {
            Some(("f", position)) => From::Forward(position.parse()?),
            Some(("b", position)) => From::Backward(position.parse()?),
            _ => return Err(LogsError::invalid("The specified nextToken is invalid.")),
        },
    };
    let query = ReadQuery {
        start_ms: input.start_time,
        end_ms: input.end_time,
        from,
        limit,
    };
    let page = logs.read(&caller.account, &group, &input.log_stream_name, &query)?;
    let event = |event: &Event| json!({ "timestamp": event.timestamp_ms, "message": event.message, "ingestionTime": event.ingestion_ms });
    Ok(json!({
        "events": page.events.iter().map(event).collect::<Vec<_>>(),
        "nextForwardToken": format!("f/{}", page.forward),
        "nextBackwardToken": format!("b/{}", page.backward),
    }))
}

pub(super) fn filter_log_events(
    logs: &Inner,
    caller: &Caller,
    input: FilterLogEvents,
) -> Result<Value, LogsError> {
    check_time("startTime", input.start_time)?;
    check_time("endTime", input.end_time)?;
    let query = FilterQuery {
        start_ms: input.start_time,
        end_ms: input.end_time,
        pattern: Pattern::parse(&input.filter_pattern)?,
        after: input.next_token.as_deref().map(str::parse).transpose()?,
        limit: limit(input.limit, MOST)?,
    };
    let group = logs.group(
        &caller.account,
        &group_name(input.log_group_name, input.log_group_identifier)?,
    )?;
    let streams: Vec<Arc<Stream>> = match (input.log_stream_names, input.log_stream_name_prefix) {
        (Some(_), Some(_)) => {
            return Err(LogsError::invalid(
                "logStreamNames and logStreamNamePrefix are mutually exclusive parameters.",
            ));
        }
        (Some(names), None) => names
            .iter()
            .map(|name| group.stream(name))
            .collect::<Result<_, _>>()?,
        (None, prefix) => {
            let prefix = prefix.unwrap_or_default();
            group
                .streams()
                .values()
                .filter(|stream| stream.name.starts_with(&prefix))
                .cloned()
                .collect()
        }
    };
    for stream in &streams {
        logs.flush(&group, stream, false)?;
    }
    let found = filter::find(&streams, &query)?;
    let event = |(stream, event): &(String, Event)| {
        json!({
            "logStreamName": stream,
            "timestamp": event.timestamp_ms,
            "message": event.message,
            "ingestionTime": event.ingestion_ms,
            "eventId": event_id(stream, event),
        })
    };
    let mut answer =
        json!({ "events": found.events.iter().map(event).collect::<Vec<_>>(), "searchedLogStreams": [] });
    if let Some(next) = found.next {
        answer["nextToken"] = next.to_string().into();
    }
    Ok(answer)
}

/// 56 digits, as CloudWatch Logs has them: time, stream, place. `aws logs tail` tells events apart by it.
fn event_id(stream: &str, event: &Event) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, stream.as_bytes());
    let stream = digest
        .as_ref()
        .iter()
        .take(8)
        .fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
    format!(
        "{:014}{:018}{}",
        event.timestamp_ms,
        stream % 1_000_000_000_000_000_000,
        event.position
    )
}
