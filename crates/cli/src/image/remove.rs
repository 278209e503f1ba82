//! `hearth image rm`.

use std::time::{Duration, Instant};

use aws_sdk_lambdamicrovms::types::MicrovmImageState;
use serde_json::json;

use crate::error::{Error, Result};
use crate::output::{Out, spinner};
use crate::service::Service;

/// How long the service may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Deletes an image and waits until it is gone.
pub(super) async fn remove(service: &Service, name: &str, out: Out) -> Result<()> {
    let arn = service.image_arn(name).await?;
    let client = &service.microvms;
    client
        .delete_microvm_image()
        .image_identifier(&arn)
        .send()
        .await
        .map_err(|error| service.error(error))?;
    let bar = spinner(format!("removing {name}"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let image = client
            .get_microvm_image()
            .image_identifier(&arn)
            .send()
            .await
            .map_err(|e| service.error(e));
        let state = match image {
            Err(error) if error.is_not_found() => break,
            other => other?.state,
        };
        match state {
            MicrovmImageState::Deleted => break,
            MicrovmImageState::DeleteFailed => {
                return Err(Error::failed(
                    format!("{name} could not be removed"),
                    "See the daemon's log, then try again",
                ));
            }
            _ if Instant::now() > deadline => {
                let cause = format!("{name} is still {state} after {} s", PATIENCE.as_secs());
                return Err(Error::failed(cause, "See the daemon's log"));
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    bar.finish_and_clear();
    out.print(json!({ "imageArn": arn, "state": "DELETED" }), || {
        format!("{name} removed")
    })
}
