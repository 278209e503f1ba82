//! Log groups: reading them, following them, and `hearth logs`.

use std::collections::HashSet;
use std::time::Duration;

use aws_sdk_lambdamicrovms::types::MicrovmState;
use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::output::Out;
use crate::service::Service;
use crate::vm::id;

/// How often a log is asked for news.
pub(crate) const POLL: Duration = Duration::from_millis(300);

/// Events may be stored in another order than that of their times: look back that far, ms.
const OVERLAP_MS: i64 = 10_000;

/// Prints logs.
#[derive(Args)]
pub(crate) struct Logs {
    /// Id of a MicroVM, or its beginning
    #[arg(required_unless_present = "image", conflicts_with = "image")]
    id: Option<String>,
    /// Everything in the log group of an image instead
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Go on until the MicroVM has ended
    #[arg(short, long)]
    follow: bool,
}

impl Logs {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        let (mut tail, vm) = match (self.image, self.id) {
            (Some(image), _) => (Tail::new(group_of(&image), 0, |_| true), None),
            (None, typed) => {
                let id = id::resolve(service, &typed.unwrap_or_default()).await?;
                let vm = id::get(service, &id).await?;
                // The service writes a MicroVM's output with the MicroVM's role.
                if vm.execution_role_arn.is_none() {
                    let cause = format!("{id} has no log: it was launched without a role");
                    return Err(Error::failed(
                        cause,
                        "Launch it without --no-role, or give it one: hearth run NAME --role ARN",
                    ));
                }
                let (started, stream) = (vm.started_at.secs() * 1000, id.clone());
                // A stream is called YYYY/MM/DD[version]id.
                (
                    Tail::new(group_of(&vm.image_arn), started, move |name| {
                        name.ends_with(&stream)
                    }),
                    Some(id),
                )
            }
        };
        loop {
            // Asked before the log is read: what was written before the end is still printed.
            let ended = match &vm {
                Some(id) if self.follow => ended(service, id).await?,
                _ => false,
            };
            for event in tail.news(service).await? {
                out.print(event.json(), || event.message.clone())?;
            }
            if !self.follow || ended {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn ended(service: &Service, id: &str) -> Result<bool> {
    match id::get(service, id).await {
        Ok(vm) => Ok(vm.state == MicrovmState::Terminated),
        Err(error) if error.is_not_found() => Ok(true),
        Err(error) => Err(error),
    }
}

/// The log group of an image, given by name or ARN.
pub(crate) fn group_of(image: &str) -> String {
    format!(
        "/aws/lambda-microvms/{}",
        image.rsplit(':').next().unwrap_or(image)
    )
}

/// One line of a log.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    event_id: Option<String>,
    #[serde(default)]
    log_stream_name: String,
    timestamp: i64,
    /// What was written.
    pub(crate) message: String,
}

impl Event {
    /// The event as one JSON line.
    pub(crate) fn json(&self) -> Value {
        json!({ "timestamp": self.timestamp, "logStreamName": self.log_stream_name, "message": self.message })
    }

    fn key(&self) -> String {
        let spelled = || format!("{}\n{}\n{}", self.log_stream_name, self.timestamp, self.message);
        self.event_id.clone().unwrap_or_else(spelled)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    events: Vec<Event>,
    next_token: Option<String>,
}

/// Reads a log group from a moment on, each event once.
pub(crate) struct Tail {
    group: String,
    streams: Box<dyn Fn(&str) -> bool>,
    from_ms: i64,
    /// Keys and times of the events since `from_ms` that were handed out.
    seen: HashSet<(String, i64)>,
}

impl Tail {
    /// `from_ms`: milliseconds since 1970; `streams`: whether a stream of that name is wanted.
    pub(crate) fn new(group: String, from_ms: i64, streams: impl Fn(&str) -> bool + 'static) -> Self {
        Self {
            group,
            streams: Box::new(streams),
            from_ms,
            seen: HashSet::new(),
        }
    }

    /// Events not handed out before, oldest first. A group that does not exist yet has none.
    pub(crate) async fn news(&mut self, service: &Service) -> Result<Vec<Event>> {
        let mut news = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut body = json!({ "logGroupName": self.group, "startTime": self.from_ms });
            if let Some(token) = token {
                body["nextToken"] = token.into();
            }
            let target = Some("Logs_20140328.FilterLogEvents");
            let page = match service.call("logs", Method::POST, "/", target, Some(body)).await {
                Err(error) if error.is_not_found() => break,
                other => other?,
            };
            let page: Page = serde_json::from_value(page).map_err(|error| {
                Error::failed(
                    format!("the log service answered what is no page of events: {error}"),
                    "",
                )
            })?;
            news.extend(self.take(page.events));
            token = page.next_token;
            if token.is_none() {
                break;
            }
        }
        self.advance(&news);
        Ok(news)
    }

    fn take(&mut self, events: Vec<Event>) -> Vec<Event> {
        let wanted = events
            .into_iter()
            .filter(|event| (self.streams)(&event.log_stream_name));
        wanted
            .filter(|event| self.seen.insert((event.key(), event.timestamp)))
            .collect()
    }

    fn advance(&mut self, news: &[Event]) {
        if let Some(latest) = news.iter().map(|event| event.timestamp).max() {
            self.from_ms = self.from_ms.max(latest - OVERLAP_MS);
            self.seen.retain(|(_, timestamp)| *timestamp >= self.from_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, stream: &str, timestamp: i64) -> Event {
        Event {
            event_id: Some(id.into()),
            log_stream_name: stream.into(),
            timestamp,
            message: id.into(),
        }
    }

    fn read(tail: &mut Tail, events: &[Event]) -> Vec<String> {
        let news = tail.take(events.to_vec());
        tail.advance(&news);
        news.into_iter().map(|event| event.message).collect()
    }

    #[test]
    fn each_event_of_a_wanted_stream_is_handed_out_once_even_when_stored_late() {
        let mut tail = Tail::new("g".into(), 0, |stream| stream.ends_with("vm"));
        let (a, late, b) = (
            event("a", "1vm", 50_000),
            event("late", "2vm", 45_000),
            event("b", "1vm", 60_000),
        );
        assert_eq!(read(&mut tail, &[a.clone(), event("x", "other", 50_000)]), ["a"]);
        assert_eq!(
            read(&mut tail, &[late.clone(), a.clone(), b.clone()]),
            ["late", "b"]
        );
        assert_eq!(tail.from_ms, 50_000);
        assert!(read(&mut tail, &[a, b]).is_empty());
    }

    #[test]
    fn the_group_of_an_image_goes_by_its_name() {
        assert_eq!(
            group_of("arn:aws:lambda:us-east-1:123456789012:microvm-image:demo"),
            "/aws/lambda-microvms/demo"
        );
        assert_eq!(group_of("demo"), "/aws/lambda-microvms/demo");
    }
}
