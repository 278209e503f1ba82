//! Requests that must not get through: unsigned, wrongly signed, malformed, too large, too slow.

use std::time::Duration;

use crate::support::{Answer, Server, Signing, image_arn, impatient};
use bytes::Bytes;
use hearth_api::ApiConfig;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

const LIST: &str = "/2025-09-09/microvms";
const RUN: &str = "/2025-09-09/microvms";
const UNRECOGNIZED: &str = "The security token included in the request is invalid.";

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_without_a_signature_is_refused() {
    let server = Server::start().await;
    let answer = server.send(server.request("GET", LIST, "")).await;
    assert_eq!(answer.error(), (403, "MissingAuthenticationTokenException"));
    assert_eq!(answer.json(), json!({"message": "Missing Authentication Token"}));
    assert_eq!(server.fake.count(), 0);
}

#[tokio::test]
async fn a_wrong_secret_key_or_token_is_refused() {
    let server = Server::start().await;
    let right = Signing::default();
    let wrong_secret = Signing {
        secret: "0000000000000000000000000000000000000000",
        ..right.clone()
    };
    let answer = server.call_as(&wrong_secret, "GET", LIST, "").await;
    assert_eq!(answer.error(), (403, "InvalidSignatureException"));
    assert!(
        message(&answer).starts_with("The request signature we calculated does not match"),
        "{answer:?}"
    );
    for stranger in [
        Signing {
            key_id: "AKIANOBODY",
            ..right.clone()
        },
        Signing {
            session_token: Some("t"),
            ..right
        },
    ] {
        let answer = server.call_as(&stranger, "GET", LIST, "").await;
        assert_eq!(answer.error(), (403, "UnrecognizedClientException"));
        assert_eq!(message(&answer), UNRECOGNIZED);
    }
    assert_eq!(server.fake.count(), 0);
}

#[tokio::test]
async fn whatever_is_changed_after_signing_is_noticed() {
    let server = Server::start().await;
    let path = format!("/2025-09-09/microvm-images/{}", image_arn("demo"));
    let rewrite = |request: &mut Request<bytes::Bytes>, from: &str, to: &str| {
        *request.uri_mut() = request.uri().to_string().replace(from, to).parse().expect("uri");
    };
    type Change<'a> = &'a dyn Fn(&mut Request<bytes::Bytes>);
    let changes: [Change<'_>; 6] = [
        &|request| *request.method_mut() = http::Method::DELETE,
        &|request| *request.body_mut() = bytes::Bytes::from_static(b"{}"),
        &|request| rewrite(request, ":demo", ":other"),
        &|request| rewrite(request, ":demo", ":demo?maxResults=1"),
        &|request| rewrite(request, ":demo", "%3Ademo"),
        &|request| rewrite(request, ":demo", "%253Ademo"),
    ];
    for change in changes {
        let mut request = server.request("GET", &path, "");
        Signing::default().sign(&mut request);
        change(&mut request);
        let answer = server.send(request).await;
        assert_eq!(answer.error(), (403, "InvalidSignatureException"));
    }
    assert_eq!(server.fake.count(), 0);
}

#[tokio::test]
async fn a_clock_more_than_a_quarter_of_an_hour_off_is_refused() {
    let server = Server::start().await;
    for (seconds, words) in [
        (-1000, "Signature expired: "),
        (1000, "Signature not yet current: "),
    ] {
        let answer = server.call_as(&Signing::skewed(seconds), "GET", LIST, "").await;
        assert_eq!(answer.error(), (403, "InvalidSignatureException"));
        assert!(message(&answer).starts_with(words), "{answer:?}");
    }
    for seconds in [-800, 800] {
        assert_eq!(
            server
                .call_as(&Signing::skewed(seconds), "GET", LIST, "")
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn a_malformed_authorization_is_an_incomplete_signature() {
    let server = Server::start().await;
    let scope = "AKIAIOSFODNN7EXAMPLE/20260101/eu-west-1/lambda/aws4_request";
    for value in [
        "Bearer x",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/b",
        &format!("AWS4-HMAC-SHA256 Credential={scope}"),
    ] {
        let mut request = server.request("GET", LIST, "");
        request
            .headers_mut()
            .insert("authorization", value.parse().expect("header"));
        assert_eq!(
            server.send(request).await.error(),
            (403, "IncompleteSignatureException"),
            "{value}"
        );
    }
}

#[tokio::test]
async fn another_service_is_not_offered() {
    let server = Server::start().await;
    let answer = server
        .call_as(&Signing::service("dynamodb"), "POST", "/", "{}")
        .await;
    assert_eq!(answer.error(), (403, "InvalidSignatureException"));
}

#[tokio::test]
async fn an_unknown_path_or_method_is_an_unknown_operation() {
    let server = Server::start().await;
    for (method, path) in [
        ("GET", "/"),
        ("PUT", LIST),
        ("GET", "/2015-03-31/functions"),
        ("POST", "/2025-09-09/microvms//suspend"),
    ] {
        let answer = server.call(method, path, "").await;
        assert_eq!(
            answer.error(),
            (404, "UnknownOperationException"),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_not_plain_json_is_a_serialization_error() {
    let server = Server::start().await;
    let deep = format!("{{\"imageIdentifier\":{}", "[".repeat(10_000));
    let bodies: [&[u8]; 8] = [
        b"{",
        b"[]",
        b"\"x\"",
        br#"{"imageIdentifier":"x","imageIdentifier":"y"}"#,
        b"{\"imageIdentifier\":\"\xff\"}",
        br#"{"imageIdentifier":5}"#,
        br#"{"imageIdentifier":"x","idlePolicy":{"autoResumeEnabled":"yes"}}"#,
        deep.as_bytes(),
    ];
    for body in bodies {
        let answer = server
            .call_as(&Signing::default(), "POST", RUN, body.to_vec())
            .await;
        assert_eq!(
            answer.error(),
            (400, "SerializationException"),
            "{}",
            String::from_utf8_lossy(body)
        );
        assert!(answer.json()["Message"].is_string(), "{answer:?}");
    }
    assert_eq!(server.fake.count(), 0);
}

#[tokio::test]
async fn all_violations_come_in_one_message() {
    let server = Server::start().await;
    let body = r#"{"runHookPayload":null,"maximumDurationInSeconds":28801,"idlePolicy":{"maxIdleDurationSeconds":59,
        "autoResumeEnabled":true},"clientToken":""}"#;
    let answer = server.call("POST", RUN, body).await;
    assert_eq!(answer.error(), (400, "ValidationException"));
    assert_eq!(
        answer.json(),
        json!({"message": "5 validation errors detected: Value null at 'imageIdentifier' failed to satisfy \
            constraint: Member must not be null; Value '59' at 'idlePolicy.maxIdleDurationSeconds' failed to satisfy \
            constraint: Member must have value greater than or equal to 60; Value null at \
            'idlePolicy.suspendedDurationSeconds' failed to satisfy constraint: Member must not be null; Value \
            '28801' at 'maximumDurationInSeconds' failed to satisfy constraint: Member must have value less than or \
            equal to 28800; Value '' at 'clientToken' failed to satisfy constraint: Member must have length greater \
            than or equal to 1"})
    );
    assert_eq!(server.fake.count(), 0);
}

#[tokio::test]
async fn a_page_size_outside_its_range_is_refused() {
    let server = Server::start().await;
    for (size, status) in [
        ("0", 400),
        ("1", 200),
        ("50", 200),
        ("51", 400),
        ("many", 400),
        ("", 400),
    ] {
        assert_eq!(
            server
                .call("GET", &format!("{LIST}?maxResults={size}"), "")
                .await
                .status,
            status,
            "{size}"
        );
    }
    let unescaped = server.call("GET", &format!("{LIST}?nextToken=abc="), "").await;
    assert_eq!(
        (unescaped.status.as_u16(), unescaped.json()),
        (400, json!({"message": null}))
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let server = Server::start().await;
    let answer = server.call("POST", RUN, &" ".repeat((1 << 20) + 1)).await;
    assert_eq!(answer.error(), (413, "RequestEntityTooLargeException"));
    let just_fits = format!("{{\"imageIdentifier\":\"x\"{}}}", " ".repeat((1 << 20) - 23));
    assert_eq!(just_fits.len(), 1 << 20);
    assert_eq!(server.call("POST", RUN, &just_fits).await.status, 200);
}

#[tokio::test]
async fn an_http2_connection_without_a_call_is_ended_and_one_with_a_slow_call_is_not() {
    let server = Server::start_with(impatient()).await;
    let stream = server.connect(b"h2").await;
    let (_sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .expect("handshake");
    let end = timeout(Duration::from_secs(20), connection).await;
    assert!(end.is_ok(), "the server kept the connection");
    let mut slow = server.request("POST", "/2025-09-09/microvms/slow/suspend", "");
    Signing::default().sign(&mut slow);
    let finish = async {
        tokio::time::sleep(4 * impatient().header_timeout).await;
        server.fake.may_end.notify_one();
    };
    let (answer, ()) = tokio::join!(server.send_http2(slow), finish);
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn connections_without_a_good_call_keep_nobody_out_and_end_none() {
    let server = Server::start_with(ApiConfig {
        max_connections: 8,
        max_idle: 4,
        ..ApiConfig::default()
    })
    .await;
    let mut slow = server.begin("POST", "/2025-09-09/microvms/slow/suspend").await;
    while server.fake.count() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut begun = Vec::new();
    for _ in 0..10 {
        begun.push(begin_body(&server, server.connect(b"http/1.1").await).await);
    }
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(server.address).await.expect("connects"));
    }
    let answer = timeout(Duration::from_secs(20), server.call("GET", LIST, "")).await;
    assert_eq!(answer.expect("there is a place").status, 200);
    // The oldest went, the newest may still speak.
    let end = timeout(Duration::from_secs(20), silent[0].read(&mut [0])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    let end = timeout(Duration::from_secs(20), begun[9].read(&mut [0])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    let end = timeout(Duration::from_millis(100), silent[9].read(&mut [0])).await;
    assert!(end.is_err(), "{end:?}");
    server.fake.may_end.notify_one();
    let mut begin = [0; 15];
    let answered = timeout(Duration::from_secs(20), slow.read_exact(&mut begin)).await;
    assert!(matches!(answered, Ok(Ok(_))), "{answered:?}");
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_client_that_does_not_go_on_is_cut_off() {
    let server = Server::start_with(impatient()).await;
    let closes = |mut stream: Box<dyn Connection>| async move {
        let mut rest = Vec::new();
        let end = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the server kept the connection");
        String::from_utf8_lossy(&rest).into_owned()
    };
    closes(Box::new(
        TcpStream::connect(server.address).await.expect("connects"),
    ))
    .await;
    closes(Box::new(server.connect(b"h2").await)).await;
    let mut head = server.connect(b"http/1.1").await;
    head.write_all(b"GET / HTTP/1.1\r\nhost").await.expect("writes");
    closes(Box::new(head)).await;
    let body = server.connect(b"http/1.1").await;
    let answer = closes(Box::new(begin_body(&server, body).await)).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.contains("x-amzn-errortype: RequestTimeoutException"),
        "{answer}"
    );
}

/// Sends the head of a signed request and half of its body.
async fn begin_body(server: &Server, mut stream: TlsStream<TcpStream>) -> TlsStream<TcpStream> {
    let mut request = server.request("POST", RUN, "{}");
    request
        .headers_mut()
        .insert("host", "localhost".parse().expect("host"));
    Signing::default().sign(&mut request);
    let mut text = format!("POST {RUN} HTTP/1.1\r\ncontent-length: 2\r\nconnection: close\r\n");
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().expect("text")));
    }
    stream
        .write_all(format!("{text}\r\n{{").as_bytes())
        .await
        .expect("writes");
    stream
}

trait Connection: tokio::io::AsyncRead + Unpin + Send {}
impl<T: tokio::io::AsyncRead + Unpin + Send> Connection for T {}

#[test]
fn no_mutated_request_gives_a_5xx() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let server = runtime.block_on(Server::start());
    let path = "(/2025-09-09|/2017-03-31)?(/microvms|/microvm-images|/tags)?(/[a-z:%0-9A-F]{0,12})?(/versions)?(\\?[ -~&&[^#]]{0,20})?";
    let body = prop_oneof![
        "[ -~]{0,40}",
        Just(r#"{"imageIdentifier":"x"}"#.to_owned()),
        "\\{\"(imageIdentifier|name|allowedPorts|hooks)\":(1|null|\\[\\{\\}\\]|\"a\")\\}",
    ];
    let strategy = ("GET|POST|PUT|PATCH|DELETE", path, body, "lambda|logs|sts");
    TestRunner::new(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
    .run(&strategy, |(method, path, body, service)| {
        let service = ["lambda", "logs", "sts"]
            .into_iter()
            .find(|known| *known == service)
            .expect("service");
        let path = if path.starts_with('/') {
            path
        } else {
            format!("/{path}")
        };
        let uri_is_valid = format!("https://localhost{path}").parse::<http::Uri>().is_ok();
        prop_assume!(uri_is_valid);
        let answer = runtime.block_on(server.call_as(&Signing::service(service), &method, &path, body));
        prop_assert!(answer.status.as_u16() < 500, "{method} {path}: {answer:?}");
        prop_assert!(service == "sts" || answer.body.is_empty() || answer.json() != Value::Null);
        Ok(())
    })
    .expect("no request gives a 5xx");
}
