//! `hearth image ls` and `show`.

use aws_sdk_lambdamicrovms::types::{MicrovmImageBuildSummary, MicrovmImageSummary};
use http::Method;
use serde_json::{Value, json};

use crate::error::Result;
use crate::keys::escaped;
use crate::output::Out;
use crate::service::Service;

/// Lists images.
pub(super) async fn list(service: &Service, out: Out) -> Result<()> {
    let images = service
        .microvms
        .list_microvm_images()
        .into_paginator()
        .items()
        .send();
    let images = images
        .collect::<std::result::Result<Vec<_>, _>>()
        .await
        .map_err(|error| service.error(error))?;
    let rows: Vec<Vec<String>> = images.iter().map(row).collect();
    let json: Value = images.iter().map(summary).collect();
    out.table(
        json,
        &["NAME", "STATE", "ACTIVE VERSION", "FAILED VERSION"],
        &rows,
    )
}

fn row(image: &MicrovmImageSummary) -> Vec<String> {
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        image.name.clone(),
        image.state.to_string(),
        version(&image.latest_active_image_version),
        version(&image.latest_failed_image_version),
    ]
}

fn summary(image: &MicrovmImageSummary) -> Value {
    json!({
        "imageArn": image.image_arn,
        "name": image.name,
        "state": image.state.as_str(),
        "latestActiveImageVersion": image.latest_active_image_version,
        "latestFailedImageVersion": image.latest_failed_image_version,
        "createdAt": image.created_at.as_secs_f64(),
    })
}

/// Shows one image with its versions and their builds.
pub(super) async fn show(service: &Service, name: &str, out: Out) -> Result<()> {
    let arn = service.image_arn(name).await?;
    let client = &service.microvms;
    let image = client
        .get_microvm_image()
        .image_identifier(&arn)
        .send()
        .await
        .map_err(|error| service.error(error))?;
    let listed = client
        .list_microvm_image_versions()
        .image_identifier(&arn)
        .into_paginator()
        .items()
        .send();
    let listed = listed
        .collect::<std::result::Result<Vec<_>, _>>()
        .await
        .map_err(|error| service.error(error))?;
    let (mut versions, mut rows) = (Vec::new(), Vec::new());
    for version in listed {
        let builds = client
            .list_microvm_image_builds()
            .image_identifier(&arn)
            .image_version(&version.image_version);
        let builds = builds
            .into_paginator()
            .items()
            .send()
            .collect::<std::result::Result<Vec<_>, _>>()
            .await;
        let builds = builds.map_err(|error| service.error(error))?;
        let mut described = Vec::new();
        for one in &builds {
            described.push(build(one, snapshot(service, one).await?));
        }
        let memory = version
            .resources
            .as_ref()
            .and_then(|all| all.first())
            .map(|first| first.minimum_memory_in_mib);
        rows.push(vec![
            version.image_version.clone(),
            version.state.to_string(),
            version.status.to_string(),
            memory.map_or_else(|| "-".to_owned(), |mib| format!("{mib} MiB")),
            described
                .iter()
                .find_map(|build| build["snapshotBuild"]["vmm"].as_str())
                .unwrap_or("-")
                .to_owned(),
            builds
                .iter()
                .find_map(|build| build.state_reason.clone())
                .unwrap_or_default(),
        ]);
        versions.push(json!({
            "imageVersion": version.image_version,
            "state": version.state.as_str(),
            "status": version.status.as_str(),
            "minimumMemoryInMiB": memory,
            "createdAt": version.created_at.as_secs_f64(),
            "builds": described,
        }));
    }
    let value = json!({
        "imageArn": image.image_arn,
        "name": image.name,
        "state": image.state.as_str(),
        "latestActiveImageVersion": image.latest_active_image_version,
        "latestFailedImageVersion": image.latest_failed_image_version,
        "createdAt": image.created_at.as_secs_f64(),
        "versions": versions,
    });
    if !out.json {
        out.line(&format!("{}  {}\n{}", image.name, image.state, image.image_arn))?;
    }
    out.table(
        value,
        &["VERSION", "STATE", "STATUS", "MEMORY", "VMM", "REASON"],
        &rows,
    )
}

/// A build's `snapshotBuild` as it is on the wire: the SDK does not know all of its members.
async fn snapshot(service: &Service, build: &MicrovmImageBuildSummary) -> Result<Value> {
    let path = format!(
        "/2025-09-09/microvm-images/{}/versions/{}/builds/{}",
        escaped(&build.image_arn),
        escaped(&build.image_version),
        escaped(&build.build_id)
    );
    let mut answer = service.call("lambda", Method::GET, &path, None, None).await?;
    Ok(answer["snapshotBuild"].take())
}

fn build(build: &MicrovmImageBuildSummary, snapshot: Value) -> Value {
    json!({
        "buildId": build.build_id,
        "buildState": build.build_state.as_str(),
        "architecture": build.architecture.as_str(),
        "chipset": build.chipset.as_str(),
        "chipsetGeneration": build.chipset_generation,
        "stateReason": build.state_reason,
        "snapshotBuild": snapshot,
    })
}
