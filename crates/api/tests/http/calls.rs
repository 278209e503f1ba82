//! Calls that succeed, and the operations' own errors: status, headers and body as the specification has them.

use crate::support::{ACCOUNT, KEY_ID, Server, Signing, image_arn};
use hearth_wire::Operation;
use serde_json::json;
use std::time::Duration;

const CREATE: &str = r#"{
    "name": "demo", "baseImageArn": "arn:aws:lambda:eu-west-1:aws:microvm-image:al2023-1",
    "buildRoleArn": "arn:aws:iam::111122223333:role/build", "codeArtifact": {"uri": "s3://bucket/app.zip"}
}"#;

#[tokio::test]
async fn create_answers_201_with_nulls_and_numeric_times() {
    let server = Server::start().await;
    let answer = server.call("POST", "/2025-09-09/microvm-images", CREATE).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-amzn-requestid").is_some_and(|id| id.len() == 36));
    let length = answer.body.len().to_string();
    assert_eq!(answer.header("content-length"), Some(length.as_str()));
    assert_eq!(
        answer.json(),
        json!({
            "imageArn": image_arn("demo"), "name": "demo", "state": "CREATING", "createdAt": 1785000000.123,
            "latestActiveImageVersion": null, "latestFailedImageVersion": null, "id": null, "updatedAt": null,
            "tags": null, "imageVersion": "1.0",
            "baseImageArn": "arn:aws:lambda:eu-west-1:aws:microvm-image:al2023-1", "baseImageVersion": null,
            "buildRoleArn": "arn:aws:iam::111122223333:role/build", "codeArtifact": {"uri": "s3://bucket/app.zip"},
            "description": null, "logging": null, "egressNetworkConnectors": null, "cpuConfigurations": null,
            "resources": null, "additionalOsCapabilities": null, "hooks": null, "environmentVariables": null,
            "kmsKeyIdentifier": null, "buildPhaseOverrides": null, "roleConfiguration": null
        })
    );
}

#[tokio::test]
async fn the_caller_is_told_by_the_signature() {
    let server = Server::start().await;
    let signing = Signing {
        region: "cn-north-1",
        ..Signing::default()
    };
    let answer = server
        .call_as(&signing, "POST", "/2025-09-09/microvms/m/suspend", "{}")
        .await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "{}"));
    let (operation, caller, _) = server.fake.last();
    assert_eq!(operation, "suspend_microvm");
    assert_eq!(
        (caller.account_id.as_str(), caller.access_key_id.as_str()),
        (ACCOUNT, KEY_ID)
    );
    assert_eq!(
        (caller.region.as_str(), caller.partition.as_str()),
        ("cn-north-1", "aws-cn")
    );
    assert_eq!(
        Some(caller.request_id.as_str()),
        answer.header("x-amzn-requestid")
    );
}

#[tokio::test]
async fn raw_and_escaped_colons_name_the_same_image() {
    let server = Server::start().await;
    let arn = image_arn("demo");
    for label in [arn.clone(), arn.replace(':', "%3A"), arn.replace(':', "%3a")] {
        let answer = server
            .call("GET", &format!("/2025-09-09/microvm-images/{label}"), "")
            .await;
        assert_eq!(answer.status, 200, "{label}: {}", answer.text());
        assert_eq!(answer.json()["imageArn"], arn);
        assert_eq!(answer.json()["tags"], json!({}));
    }
}

#[tokio::test]
async fn tag_mutations_answer_204_without_a_body() {
    let server = Server::start().await;
    let path = format!("/2017-03-31/tags/{}", image_arn("demo").replace(':', "%3A"));
    let tagged = server.call("POST", &path, r#"{"Tags":{"team":"a b"}}"#).await;
    let untagged = server
        .call("DELETE", &format!("{path}?tagKeys=team&tagKeys=other"), "")
        .await;
    for answer in [tagged, untagged] {
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
        assert_eq!(answer.header("content-type"), None);
        assert!(answer.header("x-amzn-requestid").is_some());
    }
    assert!(server.fake.last().2.contains(r#"tag_keys: ["team", "other"]"#));
    let listed = server.call("GET", &path, "").await;
    assert_eq!((listed.status.as_u16(), listed.text()), (200, r#"{"Tags":{}}"#));
}

#[tokio::test]
async fn every_operation_has_its_route_on_the_one_port() {
    let server = Server::start().await;
    let bodies = |operation| match operation {
        Operation::CreateMicrovmImage | Operation::UpdateMicrovmImage => CREATE,
        Operation::UpdateMicrovmImageVersion => r#"{"status":"INACTIVE"}"#,
        Operation::RunMicrovm => r#"{"imageIdentifier":"x"}"#,
        Operation::CreateMicrovmAuthToken => r#"{"expirationInMinutes":5,"allowedPorts":[{"port":80}]}"#,
        Operation::CreateMicrovmShellAuthToken => r#"{"expirationInMinutes":5}"#,
        Operation::TagResource => r#"{"Tags":{}}"#,
        Operation::CreateNetworkConnector => {
            r#"{"Name":"net","Configuration":{"VpcEgressConfiguration":{"SubnetIds":["subnet-1"]}}}"#
        }
        Operation::ImportBase => r#"{"archiveUri":"s3://b/k","name":"debian:13"}"#,
        Operation::CreateRole => r#"{"name":"work","policy":"{}"}"#,
        _ => "",
    };
    for operation in Operation::ALL {
        let (method, pattern) = operation.route();
        let path = pattern
            .replace("{imageIdentifier}", &image_arn("demo"))
            .replace("{Resource}", &image_arn("demo"))
            .replace("{imageVersion}", "1.0")
            .replace("{buildId}", "b")
            .replace("{accessKeyId}", "AKIAIOSFODNN7EXAMPLE")
            .replace("{name}", "work")
            .replace("{Identifier}", "nc-1")
            .replace("{microvmIdentifier}", "microvm-1");
        let query = if *operation == Operation::UntagResource {
            "?tagKeys=a"
        } else {
            ""
        };
        let before = server.fake.count();
        let answer = server
            .call(method, &format!("{path}{query}"), bodies(*operation))
            .await;
        assert_eq!(server.fake.count(), before + 1, "{operation:?}: {answer:?}");
        assert_eq!(
            server.fake.last().0.replace('_', ""),
            operation.name().to_lowercase()
        );
    }
}

#[tokio::test]
async fn an_operations_error_has_its_status_header_and_exact_body() {
    let server = Server::start().await;
    let image = format!("/2025-09-09/microvm-images/{}", image_arn("demo"));
    let cases = [
        (
            server.call("GET", "/2025-09-09/microvms/microvm-9", "").await,
            (404, "ResourceNotFoundException"),
            json!({"message": "MicroVM not found: microvm-9", "resourceId": null, "resourceType": null}),
        ),
        (
            server
                .call(
                    "PATCH",
                    &format!("{image}/versions/1.0"),
                    r#"{"status":"ACTIVE"}"#,
                )
                .await,
            (409, "ConflictException"),
            json!({"message": "MicroVM Image is already in state: UPDATING", "resourceId": null, "resourceType": null}),
        ),
        (
            server.call("DELETE", &format!("{image}/versions/1.0"), "").await,
            (400, "ValidationException"),
            json!({"message": "This is the last version. Please delete the entire image"}),
        ),
        (
            server.call("GET", "/hearth/v1/bases", "").await,
            (402, "ServiceQuotaExceededException"),
            json!({"message": "The base maximum allocated memory limit has been reached for this account.",
                   "resourceId": null, "resourceType": null, "serviceCode": null, "quotaCode": null}),
        ),
    ];
    for (answer, error, body) in cases {
        assert_eq!(answer.error(), error);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json(), body);
    }
}

#[tokio::test]
async fn throttling_tells_when_to_come_back() {
    let server = Server::start().await;
    let answer = server
        .call(
            "DELETE",
            &format!("/2025-09-09/microvm-images/{}", image_arn("demo")),
            "",
        )
        .await;
    assert_eq!(answer.error(), (429, "ThrottlingException"));
    assert_eq!(answer.header("retry-after"), Some("7"));
}

#[tokio::test]
async fn a_fault_of_the_service_is_a_500_without_details() {
    let server = Server::start().await;
    let path = format!(
        "/2025-09-09/managed-microvm-images/{}/versions",
        image_arn("demo")
    );
    let answer = server.call("GET", &path, "").await;
    assert_eq!(answer.error(), (500, "InternalServerException"));
    assert_eq!(answer.json(), json!({"message": "Internal server error"}));
    assert_eq!(
        server.call("GET", "/2025-09-09/microvms", "").await.status,
        200,
        "the server goes on"
    );
}

#[tokio::test]
async fn http2_serves_the_same_calls() {
    let server = Server::start().await;
    let mut request = server.request(
        "GET",
        &format!("/2025-09-09/microvm-images/{}", image_arn("demo")),
        "",
    );
    Signing::default().sign(&mut request);
    let answer = server.send_http2(request).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["name"].as_str()),
        (200, Some("demo"))
    );
}

#[tokio::test]
async fn health_needs_no_signature() {
    let server = Server::start().await;
    let answer = server.send(server.request("GET", "/health", "")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")})
    );
}

#[tokio::test]
async fn s3_gets_its_request_whole_and_unverified() {
    let server = Server::start().await;
    let signing = Signing {
        secret: "0000000000000000000000000000000000000000",
        ..Signing::service("s3")
    };
    let body = vec![b'x'; 3 << 20];
    let answer = server.call_as(&signing, "PUT", "/bucket/a%2Fb", body).await;
    assert_eq!(
        answer.json(),
        json!({"path": "/bucket/a%2Fb", "length": 3 << 20, "host": true})
    );
    let presigned = "/bucket/key?X-Amz-Credential=AKID%2F20260101%2Fhome%2Fs3%2Faws4_request";
    assert_eq!(
        server.send(server.request("GET", presigned, "")).await.json()["path"],
        "/bucket/key"
    );
}

#[tokio::test]
async fn logs_are_called_by_target() {
    let server = Server::start().await;
    let call = async |target: &str, body: &str| {
        let mut request = server.request("POST", "/", body.to_owned());
        request
            .headers_mut()
            .insert("x-amz-target", target.parse().expect("target"));
        Signing::service("logs").sign(&mut request);
        server.send(request).await
    };
    let answer = call("Logs_20140328.DescribeLogGroups", r#"{"limit":5}"#).await;
    assert_eq!(answer.header("content-type"), Some("application/x-amz-json-1.1"));
    assert_eq!(
        answer.json(),
        json!({"logGroups": [], "echo": {"limit": 5}, "as": ACCOUNT})
    );
    let missing = call("Logs_20140328.GetLogEvents", "{}").await;
    assert_eq!(missing.error(), (400, "ResourceNotFoundException"));
    assert_eq!(missing.json()["__type"], "ResourceNotFoundException");
    assert_eq!(
        call("Logs_20140328.DescribeLogGroups", "{").await.json()["__type"],
        "SerializationException"
    );
}

#[tokio::test]
async fn an_unsigned_target_is_refused() {
    let server = Server::start().await;
    let mut request = server.request("POST", "/", "{}");
    Signing::service("logs").sign(&mut request);
    request.headers_mut().insert(
        "x-amz-target",
        "Logs_20140328.DescribeLogGroups".parse().expect("target"),
    );
    let answer = server.send(request).await;
    assert_eq!(answer.json()["__type"], "InvalidSignatureException");
}

#[tokio::test]
async fn sts_tells_the_caller_who_it_is() {
    let server = Server::start().await;
    let signing = Signing::service("sts");
    let answer = server
        .call_as(
            &signing,
            "POST",
            "/",
            "Action=GetCallerIdentity&Version=2011-06-15",
        )
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type")),
        (200, Some("text/xml"))
    );
    assert!(
        answer
            .text()
            .contains(&format!("<Arn>arn:aws:iam::{ACCOUNT}:root</Arn>")),
        "{}",
        answer.text()
    );
    let unknown = server
        .call_as(&signing, "POST", "/", "Action=GetSessionToken")
        .await;
    assert_eq!(unknown.status, 400);
    assert!(
        unknown.text().contains("<Code>InvalidAction</Code>"),
        "{}",
        unknown.text()
    );
    let stranger = Signing {
        key_id: "AKIANOBODY",
        ..signing
    };
    let refused = server
        .call_as(&stranger, "POST", "/", "Action=GetCallerIdentity")
        .await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.text().contains("<Code>InvalidClientTokenId</Code>"),
        "{}",
        refused.text()
    );
}

#[tokio::test]
async fn a_call_is_carried_out_to_its_end_when_its_client_goes_away() {
    let server = Server::start().await;
    let client = server.begin("POST", "/2025-09-09/microvms/slow/suspend").await;
    while server.fake.count() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(client);
    // The server sees the end of the connection before the call goes on.
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.fake.may_end.notify_one();
    tokio::time::timeout(Duration::from_secs(10), server.fake.ended.notified())
        .await
        .expect("the call ends");
}

#[tokio::test]
async fn a_shutdown_ends_the_server() {
    let server = Server::start().await;
    assert_eq!(server.call("GET", "/2025-09-09/microvms", "").await.status, 200);
    let address = server.address;
    server.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
