//! Following a build: its log, live, and how it ends.

use aws_sdk_lambdamicrovms::types::MicrovmImageVersionState;

use crate::error::Result;
use crate::logs::{POLL, Tail, group_of};
use crate::output::{Out, spinner};
use crate::service::Service;

/// How a build ended.
pub(super) enum Outcome {
    /// The version can be run.
    Built,
    /// It cannot, for this reason.
    Failed(String),
}

/// Prints what the build writes from `from_ms` on until it has ended.
pub(super) async fn follow(
    service: &Service,
    arn: &str,
    version: &str,
    from_ms: i64,
    out: Out,
) -> Result<Outcome> {
    // The build itself writes as version 0.0; then the application starts as the version it becomes.
    let mine = [String::from("[0.0]"), format!("[{version}]")];
    let mut tail = Tail::new(group_of(arn), from_ms, move |stream| {
        mine.iter().any(|part| stream.contains(part))
    });
    let bar = spinner(format!("building version {version}"));
    loop {
        // Asked before the log is read: what was written before the end is still printed.
        let state = service
            .microvms
            .get_microvm_image_version()
            .image_identifier(arn)
            .image_version(version);
        let state = state.send().await.map_err(|error| service.error(error))?.state;
        for event in tail.news(service).await? {
            bar.suspend(|| out.print(event.json(), || event.message.clone()))?;
        }
        let outcome = match state {
            MicrovmImageVersionState::Pending | MicrovmImageVersionState::InProgress => None,
            MicrovmImageVersionState::Successful => Some(Outcome::Built),
            _ => Some(Outcome::Failed(reason(service, arn, version).await?)),
        };
        if let Some(outcome) = outcome {
            bar.finish_and_clear();
            return Ok(outcome);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Why the version failed: told by its builds.
async fn reason(service: &Service, arn: &str, version: &str) -> Result<String> {
    let builds = service
        .microvms
        .list_microvm_image_builds()
        .image_identifier(arn)
        .image_version(version);
    let builds = builds
        .into_paginator()
        .items()
        .send()
        .collect::<std::result::Result<Vec<_>, _>>()
        .await;
    let reasons = builds
        .map_err(|error| service.error(error))?
        .into_iter()
        .filter_map(|build| build.state_reason);
    Ok(reasons
        .into_iter()
        .next()
        .unwrap_or_else(|| "no reason was recorded".to_owned()))
}
