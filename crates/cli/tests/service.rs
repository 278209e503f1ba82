//! The commands against a service that answers from a script.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, dead_code)]

mod fake;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use fake::{Answer, ENDPOINT, Fake, Seen, err, out};
use serde_json::{Value, json};

const A: &str = "microvm-aaaa0000-0000-4000-8000-000000000001";
const B: &str = "microvm-abbb0000-0000-4000-8000-000000000002";
const ARN: &str = "arn:aws:lambda:us-east-1:123456789012:microvm-image:demo";
const STS: &str = "<GetCallerIdentityResponse><GetCallerIdentityResult><Account>123456789012</Account>\
    </GetCallerIdentityResult></GetCallerIdentityResponse>";

fn ok(value: Value) -> Answer {
    (200, value.to_string())
}

fn refused(status: u16, kind: &str, message: &str) -> Answer {
    (
        status,
        json!({ "fakeType": kind, "message": message }).to_string(),
    )
}

fn not_found() -> Answer {
    refused(404, "ResourceNotFoundException", "not there")
}

fn vm(id: &str, state: &str) -> Value {
    json!({
        "microvmId": id, "state": state, "endpoint": ENDPOINT, "imageArn": ARN, "imageVersion": "1.0",
        "maximumDurationInSeconds": 28800, "startedAt": 1.7e9,
    })
}

fn listing(_: &Seen) -> Answer {
    ok(json!({ "items": [vm(A, "RUNNING"), vm(B, "TERMINATED")], "nextToken": null }))
}

#[test]
fn ps_shows_what_lives_and_everything_when_asked() {
    let fake = Fake::start(listing);
    let text = out(&fake.hearth(&["ps"]));
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["MICROVM", "IMAGE", "VERSION", "STATE", "AGE", "VMM"]);
    assert_eq!(rows[1][..4], [A, "demo", "1.0", "RUNNING"]);
    assert_eq!(rows[1][5], "-", "nobody tells");
    assert_eq!(rows.len(), 2);
    let all: Value = serde_json::from_str(&out(&fake.hearth(&["--json", "ps", "-a"]))).expect("one document");
    assert_eq!(
        (all[0]["microvmId"].as_str(), all[1]["state"].as_str()),
        (Some(A), Some("TERMINATED"))
    );
    let seen = &fake.seen()[0];
    assert!(
        seen.header("authorization").expect("signed").contains("AKIDTEST"),
        "{}",
        seen.head
    );
}

#[test]
fn ps_names_the_vmm_of_each_microvm() {
    let fake = Fake::start(listing).with_admin(json!({ A: "qemu 7.2, TCG" }));
    let text = out(&fake.hearth(&["ps"]));
    assert!(
        text.lines().nth(1).expect("a row").ends_with("  qemu 7.2, TCG"),
        "{text}"
    );
    let all: Value = serde_json::from_str(&out(&fake.hearth(&["--json", "ps", "-a"]))).expect("one document");
    assert_eq!(
        (&all[0]["vmm"], &all[1]["vmm"]),
        (&json!("qemu 7.2, TCG"), &Value::Null)
    );
}

#[test]
fn image_show_names_what_made_the_snapshot() {
    let fake = Fake::start(|seen| {
        let build = json!({
            "imageArn": ARN, "imageVersion": "1.0", "buildId": "b", "buildState": "SUCCESSFUL",
            "architecture": "X86_64", "chipset": "INTEL", "chipsetGeneration": "1", "createdAt": 1.0,
        });
        match seen.line().as_str() {
            "POST /" => (200, STS.to_owned()),
            line if line.ends_with("/builds/b") => {
                let mut build = build;
                build["snapshotBuild"] =
                    json!({ "memorySnapshotSizeInBytes": 1, "vmm": "firecracker 1.12, KVM" });
                ok(build)
            }
            line if line.ends_with("/builds") => ok(json!({ "items": [build] })),
            line if line.ends_with("/versions") => {
                let mut version = image(seen);
                version["state"] = "SUCCESSFUL".into();
                version["status"] = "ACTIVE".into();
                ok(json!({ "items": [version] }))
            }
            _ => {
                let mut image = image(seen);
                image["state"] = "CREATED".into();
                ok(image)
            }
        }
    });
    let output = fake.hearth(&["image", "show", "demo"]);
    let text = out(&output);
    assert!(text.contains("firecracker 1.12, KVM"), "{text}{}", err(&output));
    let shown: Value =
        serde_json::from_str(&out(&fake.hearth(&["--json", "image", "show", "demo"]))).expect("one document");
    let snapshot = &shown["versions"][0]["builds"][0]["snapshotBuild"];
    assert_eq!(snapshot["vmm"], "firecracker 1.12, KVM");
    assert_eq!(snapshot["memorySnapshotSizeInBytes"], 1);
}

#[test]
fn the_beginning_of_an_id_is_enough_to_suspend() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "GET /2025-09-09/microvms" => listing(seen),
        line if line.starts_with("POST") => ok(json!({})),
        _ => ok(vm(A, "SUSPENDED")),
    });
    let output = fake.hearth(&["suspend", "aaaa"]);
    assert_eq!(out(&output), format!("{A} SUSPENDED\n"), "{}", err(&output));
    assert!(
        fake.lines()
            .contains(&format!("POST /2025-09-09/microvms/{A}/suspend"))
    );
}

#[test]
fn an_error_of_the_service_is_one_line_with_its_type() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "POST /" => (200, STS.to_owned()),
        _ => refused(
            404,
            "ResourceNotFoundException",
            "No active version found for MicroVM image x",
        ),
    });
    let output = fake.hearth(&["run", "demo"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        err(&output),
        "hearth: ResourceNotFoundException: No active version found for MicroVM image x.\n"
    );
}

#[test]
fn a_daemon_that_is_away_or_not_trusted_is_told_apart() {
    let fake = Fake::start(listing);
    let file = fake.data.path().join("client.json");
    let text = fs::read_to_string(&file).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(fake.data.path().join("ca.pem"), other.cert.pem()).unwrap();
    let output = fake.hearth(&["ps"]);
    assert!(
        err(&output).starts_with("hearth: the certificate of the endpoint is not trusted: "),
        "{}",
        err(&output)
    );
    assert!(fake.seen().is_empty(), "nothing is sent to a stranger");

    // Bound and given back: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    fs::write(&file, text.replace(&fake.address.to_string(), &free)).unwrap();
    let output = fake.hearth(&["ps"]);
    let line = format!("hearth: the daemon is not running at https://{free}. Start it with `hearth up`.\n");
    assert_eq!((err(&output), output.status.code()), (line, Some(1)));

    fs::remove_file(&file).unwrap();
    assert!(err(&fake.hearth(&["ps"])).contains("does not exist. Start it with `hearth up`.\n"));
}

#[test]
fn run_waits_until_the_microvm_runs_and_says_why_when_it_never_does() {
    let asked = AtomicUsize::new(0);
    let fake = Fake::start(move |seen| match seen.line().as_str() {
        "POST /" => (200, STS.to_owned()),
        "POST /2025-09-09/microvms" => ok(vm(A, "PENDING")),
        _ if asked.fetch_add(1, SeqCst) == 0 => ok(vm(A, "PENDING")),
        _ => ok(vm(A, "RUNNING")),
    });
    let output = fake.hearth(&["run", "demo", "--idle", "60", "--auto-resume", "--payload", "p"]);
    assert_eq!(
        out(&output),
        format!("{A}\nhttps://{ENDPOINT}\n"),
        "{}",
        err(&output)
    );
    let sent = fake
        .seen()
        .iter()
        .find(|seen| seen.path == "/2025-09-09/microvms")
        .expect("launched")
        .json();
    assert_eq!(sent["imageIdentifier"], ARN);
    assert_eq!(sent["runHookPayload"], "p");
    assert_eq!(
        sent["idlePolicy"],
        json!({ "maxIdleDurationSeconds": 60, "suspendedDurationSeconds": 28800, "autoResumeEnabled": true })
    );

    let fake = Fake::start(|seen| match seen.line().as_str() {
        "POST /" => (200, STS.to_owned()),
        "POST /2025-09-09/microvms" => ok(vm(A, "PENDING")),
        _ => {
            let mut ended = vm(A, "TERMINATED");
            ended["stateReason"] = "Run lifecycle hook returned HTTP status 400.".into();
            ok(ended)
        }
    });
    let output = fake.hearth(&["run", "demo"]);
    assert!(
        err(&output).contains("has ended: Run lifecycle hook returned HTTP status 400"),
        "{}",
        err(&output)
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn curl_reaches_the_endpoint_through_the_gateway_with_a_token() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        line if line.ends_with("/auth-token") => ok(json!({ "authToken": { "X-aws-proxy-auth": "TOKEN" } })),
        "GET /2025-09-09/microvms" => listing(seen),
        line if line.contains("/2025-09-09/") => ok(vm(A, "RUNNING")),
        "POST /run" => (200, format!("ran {}", String::from_utf8_lossy(&seen.body))),
        _ => (404, "no such page".to_owned()),
    });
    let output = fake.hearth(&["curl", "aaaa", "/run", "-d", "6 * 7", "--port", "9000"]);
    assert_eq!(
        (out(&output), output.status.code()),
        ("ran 6 * 7".to_owned(), Some(0)),
        "{}",
        err(&output)
    );
    let seen = fake.seen();
    let sent = seen.last().expect("sent");
    assert_eq!(sent.header("host"), Some(ENDPOINT));
    assert_eq!(
        (sent.header("x-aws-proxy-auth"), sent.header("x-aws-proxy-port")),
        (Some("TOKEN"), Some("9000"))
    );
    let minted = seen
        .iter()
        .find(|seen| seen.path.ends_with("/auth-token"))
        .expect("minted");
    assert_eq!(minted.json()["allowedPorts"], json!([{ "port": 9000 }]));

    let output = fake.hearth(&["curl", "aaaa", "/nowhere"]);
    assert_eq!(
        (out(&output), output.status.code()),
        ("no such page".to_owned(), Some(22))
    );
    assert_eq!(err(&output).lines().count(), 1);
}

#[test]
fn logs_are_those_of_the_microvm_and_need_a_role() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "POST /" => {
            let event = |stream: &str, text: &str| json!({ "eventId": text, "logStreamName": stream, "timestamp": 1, "message": text });
            ok(
                json!({ "events": [event(&format!("2026/01/02[1.0]{A}"), "mine"), event(&format!("2026/01/02[1.0]{B}"), "other")] }),
            )
        }
        line if line.ends_with(A) => {
            let mut vm = vm(A, "RUNNING");
            vm["executionRoleArn"] = "arn:aws:iam::123456789012:role/r".into();
            ok(vm)
        }
        _ => ok(vm(B, "RUNNING")),
    });
    assert_eq!(out(&fake.hearth(&["logs", A])), "mine\n");
    let sent = fake.seen().last().expect("asked").json();
    assert_eq!(sent["logGroupName"], "/aws/lambda-microvms/demo");
    let output = fake.hearth(&["logs", B]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).ends_with("launched without a role. Launch it without --no-role, or give it one: hearth run NAME --role ARN.\n"),
        "{}",
        err(&output)
    );
}

/// A service where the image builds to `state` and its log has one line more at each look.
fn building(state: &'static str) -> Fake {
    let looks = AtomicUsize::new(0);
    Fake::start(move |seen| match seen.line().as_str() {
        "POST /" if seen.header("x-amz-target").is_none() => (200, STS.to_owned()),
        "POST /" => {
            let event = |n: usize| {
                let stream = if n == 9 {
                    "2026/01/02[3.0]microvm-x"
                } else {
                    "2026/01/02[0.0]microvm-x"
                };
                json!({ "eventId": n.to_string(), "logStreamName": stream, "timestamp": 1_700_000_000_000_i64, "message": format!("step {n}") })
            };
            let events: Vec<Value> = (1..=looks.load(SeqCst)).chain([9]).map(event).collect();
            ok(json!({ "events": events }))
        }
        line if line.starts_with("PUT /hearth-artifacts-123456789012") => (200, String::new()),
        line if line.starts_with("HEAD /hearth-artifacts-123456789012/demo/") => (404, String::new()),
        "GET /2025-09-09/managed-microvm-images" => {
            ok(json!({ "items": [{ "imageArn": "arn:base", "createdAt": 1.0, "updatedAt": 1.0 }] }))
        }
        "POST /2025-09-09/microvm-images" => {
            let mut image = image(seen);
            image["state"] = "CREATING".into();
            (201, image.to_string())
        }
        line if line.ends_with("/versions/1.0") => {
            let mut version = image(seen);
            version["state"] = if looks.fetch_add(1, SeqCst) < 1 {
                "IN_PROGRESS"
            } else {
                state
            }
            .into();
            version["status"] = "INACTIVE".into();
            ok(version)
        }
        line if line.ends_with("/builds") => ok(json!({ "items": [{
            "imageArn": ARN, "imageVersion": "1.0", "buildId": "b", "buildState": "FAILED", "architecture": "X86_64",
            "chipset": "INTEL", "chipsetGeneration": "1", "createdAt": 1.0, "stateReason": "The container image build failed.",
        }] })),
        _ => not_found(),
    })
}

fn image(_: &Seen) -> Value {
    json!({
        "imageArn": ARN, "name": "demo", "createdAt": 1.7e9, "baseImageArn": "arn:base", "buildRoleArn": "arn:role",
        "imageVersion": "1.0", "codeArtifact": { "uri": "s3://b/k" },
    })
}

fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Dockerfile"), "FROM scratch\n").unwrap();
    fs::write(
        dir.path().join("hearth.toml"),
        "memory = 512\nhooks = { ready = 60 }\n",
    )
    .unwrap();
    dir
}

#[test]
fn image_build_uploads_creates_and_follows_the_log_to_its_end() {
    let (fake, dir) = (building("SUCCESSFUL"), project());
    let output = fake.hearth(&[
        "image",
        "build",
        &dir.path().display().to_string(),
        "--name",
        "demo",
    ]);
    let text = out(&output);
    assert!(output.status.success(), "{}", err(&output));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..2],
        ["step 1", "step 2"],
        "each line once, other versions' not at all"
    );
    assert!(lines[2].starts_with("demo 1.0 built in "), "{text}");
    let seen = fake.seen();
    let created = seen
        .iter()
        .find(|s| s.line() == "POST /2025-09-09/microvm-images")
        .expect("created")
        .json();
    assert_eq!(created["baseImageArn"], "arn:base");
    assert_eq!(
        created["buildRoleArn"],
        "arn:aws:iam::123456789012:role/hearth-build"
    );
    assert_eq!(created["resources"], json!([{ "minimumMemoryInMiB": 512 }]));
    assert_eq!(created["hooks"]["microvmImageHooks"]["ready"], "ENABLED");
    assert!(created["hooks"]["microvmHooks"].is_null());
    let uri = created["codeArtifact"]["uri"].as_str().expect("a URI");
    let put = seen
        .iter()
        .find(|s| s.method == "PUT" && uri.ends_with(s.line().trim_start_matches("PUT ")))
        .expect("put");
    assert!(
        put.body.windows(4).any(|bytes| bytes == b"PK\x03\x04"),
        "a zip was sent"
    );
    let logs = seen
        .iter()
        .find(|s| s.header("x-amz-target") == Some("Logs_20140328.FilterLogEvents"))
        .expect("logs");
    assert!(
        logs.header("authorization")
            .expect("signed")
            .contains("/us-east-1/logs/aws4_request")
    );
}

#[test]
fn a_failed_build_ends_with_the_reason_of_the_build() {
    let (fake, dir) = (building("FAILED"), project());
    let output = fake.hearth(&[
        "image",
        "build",
        &dir.path().display().to_string(),
        "--name",
        "demo",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let line = "hearth: demo 1.0 was not built: The container image build failed. See the log above, or `hearth logs --image demo`.\n";
    assert_eq!(err(&output), line);
}

#[test]
fn a_mistake_on_the_command_line_is_usage() {
    let fake = Fake::start(listing);
    assert_eq!(fake.hearth(&["suspend"]).status.code(), Some(2));
    assert_eq!(fake.hearth(&["token", "x", "--port", "0"]).status.code(), Some(2));
    let dir = project();
    let output = fake.hearth(&[
        "image",
        "build",
        &dir.path().display().to_string(),
        "--name",
        "demo",
        "--env",
        "A",
    ]);
    assert_eq!((output.status.code(), err(&output).lines().count()), (Some(2), 1));
}
