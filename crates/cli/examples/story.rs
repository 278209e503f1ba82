//! The story of tests/test_api_clients.py, told by the AWS SDK for Rust. Prints one JSON document.

use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_sdk_lambdamicrovms::Client;
use aws_sdk_lambdamicrovms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_lambdamicrovms::types::{
    CodeArtifact, MicrovmImageVersionStatus::Active, PortSpecification, Resources,
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use serde_json::{Value, json};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Calls an operation: its name, then its members.
macro_rules! call {
    ($client:ident.$operation:ident($($member:ident($($value:expr),*)),* $(,)?)) => {
        $client.$operation()$(.$member($($value),*))*.send().await
    };
}

/// Waits until a resource is in a state, which is the value.
macro_rules! until {
    ($get:expr, $state:literal) => {{
        let mut looks = 0..600;
        while $get?.state.as_str() != $state {
            looks.next().ok_or(concat!("not within 120 s: ", $state))?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        $state
    }};
}

#[tokio::main]
async fn main() -> Result {
    let given = std::env::args().nth(1).ok_or("no arguments")?;
    let given: Value = serde_json::from_str(&given)?;
    let client = client().await?;
    let mut told = json!({});
    images(&client, &given, &mut told).await?;
    microvms(&client, &given, &mut told).await?;
    println!("{told}");
    Ok(())
}

/// A client as the environment describes it.
async fn client() -> Result<Client> {
    let authority = std::fs::read(std::env::var("AWS_CA_BUNDLE")?)?;
    let trust = TrustStore::empty().with_pem_certificate(authority);
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(TlsContext::builder().with_trust_store(trust).build()?)
        .build_https();
    let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    Ok(Client::new(&config.load().await))
}

fn text<'a>(given: &'a Value, name: &str) -> &'a str {
    given[name].as_str().unwrap_or_default()
}

/// Name and status of the error of a call.
fn error_of<T, E: ProvideErrorMetadata>(answer: Result<T, SdkError<E>>) -> Value {
    answer.err().map_or(Value::Null, |error| {
        json!([
            error.code(),
            error.raw_response().map(|answer| answer.status().as_u16())
        ])
    })
}

async fn images(client: &Client, given: &Value, told: &mut Value) -> Result {
    let managed = call!(client.list_managed_microvm_images())?.items;
    told["managed"] = managed.iter().map(|image| image.image_arn.as_str()).collect();
    let base = managed.first().ok_or("no managed image")?.image_arn.as_str();
    let versions = call!(client.list_managed_microvm_image_versions(image_identifier(base)))?.items;
    told["managedVersions"] = versions
        .iter()
        .map(|version| version.image_version.as_str())
        .collect();
    let (role, name) = (text(given, "role"), text(given, "name"));
    let artifact = CodeArtifact::Uri(text(given, "nowhere").to_owned());
    let create = async |name: &str| {
        call!(client.create_microvm_image(
            name(name),
            base_image_arn(base),
            build_role_arn(role),
            code_artifact(artifact.clone()),
            environment_variables("A", "1"),
        ))
    };
    let made = create(name).await?;
    let arn = made.image_arn.as_str();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let recent = made.created_at.secs().abs_diff(i64::try_from(now)?) < 600;
    let memory = made
        .resources
        .iter()
        .flatten()
        .next()
        .map(Resources::minimum_memory_in_mib);
    told["created"] = json!([made.state.as_str(), made.image_version, memory, recent]);
    let listed = call!(client.list_microvm_images(name_filter(name)))?.items;
    told["listed"] = listed.iter().map(|image| image.image_arn == arn).collect();
    told["failed"] = until!(
        call!(client.get_microvm_image(image_identifier(arn))),
        "CREATE_FAILED"
    )
    .into();
    let builds = call!(client.list_microvm_image_builds(image_identifier(arn), image_version("1.0")))?.items;
    let build = builds.first().ok_or("no build")?;
    told["reason"] = build
        .state_reason()
        .and_then(|reason| reason.split(':').next())
        .into();
    let build = call!(client.get_microvm_image_build(
        image_identifier(arn),
        image_version("1.0"),
        build_id(&build.build_id),
    ))?;
    told["build"] = json!([build.build_state.as_str(), build.architecture.as_str()]);
    let updated = call!(client.update_microvm_image(
        image_identifier(arn),
        base_image_arn(base),
        build_role_arn(role),
        code_artifact(artifact.clone()),
        environment_variables("A", "1"),
    ))?;
    told["updated"] = updated.image_version.into();
    until!(
        call!(client.get_microvm_image(image_identifier(arn))),
        "UPDATE_FAILED"
    );
    let version = call!(client.get_microvm_image_version(image_identifier(arn), image_version("2.0")))?;
    told["version"] = json!([
        version.state.as_str(),
        version.status.as_str(),
        version.environment_variables
    ]);
    call!(client.delete_microvm_image_version(image_identifier(arn), image_version("1.0")))?;
    let versions = client.list_microvm_image_versions().image_identifier(arn);
    let versions = versions.into_paginator().page_size(1).items().send();
    let versions = versions.collect::<Result<Vec<_>, _>>().await?;
    told["versions"] = versions
        .iter()
        .map(|version| version.image_version.as_str())
        .collect();
    call!(client.tag_resource(resource(arn), tags("a", "1"), tags("b", "2")))?;
    call!(client.untag_resource(resource(arn), tag_keys("b")))?;
    told["tags"] = json!(call!(client.list_tags(resource(arn)))?.tags);
    let deleted = call!(client.delete_microvm_image(image_identifier(arn)))?;
    told["deleted"] = deleted.state.as_str().into();
    told["missing"] = error_of(call!(
        client.get_microvm_image(image_identifier(format!("{arn}-none")))
    ));
    told["invalid"] = error_of(create("bad name!").await);
    Ok(())
}

async fn microvms(client: &Client, given: &Value, told: &mut Value) -> Result {
    let image = text(given, "image");
    let connectors = given["connectors"].as_array().into_iter().flatten();
    let connectors = connectors.filter_map(Value::as_str).map(str::to_owned).collect();
    let made = call!(client.run_microvm(
        image_identifier(image),
        set_ingress_network_connectors(Some(connectors)),
    ))?;
    let id = made.microvm_id.as_str();
    told["launched"] = json!([made.state.as_str(), made.maximum_duration_in_seconds]);
    let running = until!(call!(client.get_microvm(microvm_identifier(id))), "RUNNING");
    let items = client
        .list_microvms()
        .image_identifier(image)
        .into_paginator()
        .items();
    let items = items.send().collect::<Result<Vec<_>, _>>().await?;
    let found = items.iter().filter(|item| item.microvm_id == id);
    told["found"] = found.map(|item| item.state.as_str()).collect();
    let version = call!(client.update_microvm_image_version(
        image_identifier(image),
        image_version(&made.image_version),
        status(Active),
    ))?;
    told["activated"] = json!([version.state.as_str(), version.status.as_str()]);
    let token = call!(client.create_microvm_auth_token(
        microvm_identifier(id),
        expiration_in_minutes(5),
        allowed_ports(PortSpecification::Port(8080)),
        allowed_ports(PortSpecification::AllPorts),
    ))?;
    told["token"] = token.auth_token.into_keys().collect();
    let token =
        call!(client.create_microvm_shell_auth_token(microvm_identifier(id), expiration_in_minutes(5)))?;
    told["shellToken"] = token.auth_token.into_keys().collect();
    call!(client.suspend_microvm(microvm_identifier(id)))?;
    let suspended = until!(call!(client.get_microvm(microvm_identifier(id))), "SUSPENDED");
    call!(client.resume_microvm(microvm_identifier(id)))?;
    let resumed = until!(call!(client.get_microvm(microvm_identifier(id))), "RUNNING");
    call!(client.terminate_microvm(microvm_identifier(id)))?;
    let terminated = until!(call!(client.get_microvm(microvm_identifier(id))), "TERMINATED");
    told["states"] = json!([running, suspended, resumed, terminated]);
    Ok(())
}
