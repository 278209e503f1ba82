//! What HTTP carries (spec sections 18.1 and 18.2).

use std::io;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{HeaderMap, Request, Response, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Body, ENDPOINT, World, empty, full, inspect, passed, read_until, text};

/// Sends back what comes, trailers included.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut response = Response::new(passed(body));
    if let Some(trailer) = parts.headers.get("trailer") {
        response.headers_mut().insert("trailer", trailer.clone());
    }
    response
}

fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    BodyExt::boxed(StreamBody::new(tokio_stream(frames)))
}

fn tokio_stream(
    frames: Vec<Frame<Bytes>>,
) -> impl futures::Stream<Item = io::Result<Frame<Bytes>>> + Send + Sync {
    futures::stream::iter(frames.into_iter().map(Ok))
}

fn with_trailer() -> Body {
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "42".parse().unwrap())]);
    frames(vec![
        Frame::data("one".into()),
        Frame::data("two".into()),
        Frame::trailers(trailers),
    ])
}

#[tokio::test]
async fn the_application_sees_the_request_without_the_platform() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let request = world
        .request("GET", "/a//b%2Fc?x=1&y=%20")
        .header("x-aws-proxy-port", "8080")
        .header("x-app", "1");
    let got = text(
        world
            .h1()
            .await
            .send_request(request.body(empty()).unwrap())
            .await
            .unwrap(),
    )
    .await;
    let mut lines: Vec<&str> = got.lines().collect();
    assert_eq!(lines[0], "GET /a//b%2Fc?x=1&y=%20 HTTP/1.1");
    lines[1..].sort_unstable();
    assert_eq!(lines[1], format!("host: {ENDPOINT}"));
    assert!(
        lines[2].starts_with("x-amzn-requestid: ") && lines[3] == "x-app: 1" && lines.len() == 4,
        "{got}"
    );
}

#[tokio::test]
async fn http2_reaches_an_http1_application_with_host_and_one_cookie_line() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let request = Request::get(format!("https://{ENDPOINT}/p?q"))
        .header("x-aws-proxy-auth", world.token())
        .header("cookie", "a=1")
        .header("cookie", "b=2");
    let response = world
        .h2()
        .await
        .send_request(request.body(empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let got = text(response).await;
    assert!(got.starts_with("GET /p?q HTTP/1.1\n"), "{got}");
    assert!(
        got.contains(&format!("host: {ENDPOINT}\n")) && got.contains("cookie: a=1; b=2\n"),
        "{got}"
    );
}

#[tokio::test]
async fn force_h2_speaks_cleartext_http2_to_the_application() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    world.application(50051, echo).await;
    let request = world
        .request("GET", "/p")
        .header("x-aws-proxy-force-h2", "true")
        .header("te", "trailers");
    let got = text(
        world
            .h1()
            .await
            .send_request(request.body(empty()).unwrap())
            .await
            .unwrap(),
    )
    .await;
    assert!(
        got.starts_with(&format!("GET http://{ENDPOINT}/p HTTP/2.0\n")) && got.contains("te: trailers\n"),
        "{got}"
    );

    // A stream both ways with trailers, as gRPC has it.
    let request = Request::post(format!("https://{ENDPOINT}/echo"))
        .header("x-aws-proxy-auth", world.token())
        .header("x-aws-proxy-port", "50051")
        .header("x-aws-proxy-force-h2", "true");
    let response = world
        .h2()
        .await
        .send_request(request.body(with_trailer()).unwrap())
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "42");
    assert_eq!(body.to_bytes(), "onetwo");
}

#[tokio::test]
async fn force_h2_to_an_http1_application_is_a_bad_gateway() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let application = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 16]).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        let _rest = stream.read_to_end(&mut Vec::new()).await;
    };
    let mut client = world.h1().await;
    let request = world
        .request("GET", "/")
        .header("x-aws-proxy-force-h2", "true")
        .body(empty())
        .unwrap();
    let (response, ()) = tokio::join!(client.send_request(request), application);
    let response = response.unwrap();
    assert_eq!(
        (response.status(), text(response).await.len()),
        (StatusCode::BAD_GATEWAY, 0)
    );
}

#[tokio::test]
async fn trailers_pass_in_http1_too() {
    let world = World::start().await;
    world.application(8080, echo).await;
    let request = world
        .request("POST", "/")
        .header("te", "trailers")
        .header("trailer", "x-sum");
    let response = world
        .h1()
        .await
        .send_request(request.body(with_trailer()).unwrap())
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "42");
    assert_eq!(body.to_bytes(), "onetwo");
}

#[tokio::test]
async fn a_chunked_upload_of_any_method_arrives_whole() {
    let world = World::start().await;
    world.application(8080, echo).await;
    for method in ["POST", "PUT", "GET", "DELETE"] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {}\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            world.token()
        );
        let answer = world.raw(&request).await;
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let data: String = body.lines().skip(1).step_by(2).collect();
        assert_eq!(data, "abcde", "{method}: {answer}");
    }
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let mut client = world.h1().await;
    let request = world.request("GET", "/events").body(empty()).unwrap();
    let application = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let head =
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head).await.unwrap();
        stream
    };
    let (response, mut application) = tokio::join!(client.send_request(request), application);
    let mut events = response.unwrap().into_body();
    for number in 0..5 {
        // The next event is written only after the one before it was read: a buffer would hang the test.
        let event = format!("data: {number}\n\n");
        application
            .write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
            .await
            .unwrap();
        assert_eq!(events.frame().await.unwrap().unwrap().into_data().unwrap(), event);
    }
    application.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(events.frame().await.is_none());
}

#[tokio::test]
async fn continue_is_said_only_to_those_who_may_enter() {
    let world = World::start().await;
    world.application(8080, echo).await;
    let head = |token: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {token}\r\nExpect: 100-continue\r\n\
             Connection: close\r\nContent-Length: 5\r\n\r\n"
        )
    };
    let mut stream = world.connect("http/1.1").await;
    stream.write_all(head(&world.token()).as_bytes()).await.unwrap();
    // The application does not wait for the body before it begins to answer.
    let mut said = read_until(&mut stream, "\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 100 Continue\r\n\r\n"), "{said}");
    stream.write_all(b"hello").await.unwrap();
    said += &read_until(&mut stream, "hello").await;
    assert!(said.contains("\r\n\r\nHTTP/1.1 200 OK\r\n"), "{said}");

    let mut stream = world.connect("http/1.1").await;
    stream.write_all(head("garbage").as_bytes()).await.unwrap();
    assert!(
        read_until(&mut stream, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 403 ")
    );
}

#[tokio::test]
async fn an_early_response_reaches_a_client_that_still_sends() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        let _rest = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    let mut stream = world.connect("http/1.1").await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {}\r\nContent-Length: 1000000\r\n\r\nsome",
        world.token()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "big").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_request_is_sent_on_while_nobody_reads_its_response() {
    const UP: usize = 32 << 20;
    const DOWN: usize = 16 << 20;
    let world = World::start().await;
    let listener = world.listen(8080).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let (mut request, mut response) = stream.into_split();
        tokio::spawn(async move {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {DOWN}\r\n\r\n");
            response.write_all(head.as_bytes()).await.unwrap();
            response.write_all(&vec![b'd'; DOWN]).await.unwrap();
        });
        tokio::io::copy(&mut request, &mut tokio::io::sink())
            .await
            .unwrap();
    });
    let mut stream = world.connect("http/1.1").await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {}\r\nContent-Length: {UP}\r\n\r\n",
        world.token()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // All of it goes, though it is more than everything on its way can hold, and the response is not read.
    stream.write_all(&vec![b'u'; UP]).await.unwrap();
    stream.flush().await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let mut rest = vec![0; DOWN / 2];
    stream.read_exact(&mut rest).await.unwrap();
    assert!(rest.iter().all(|byte| *byte == b'd'));
}

#[tokio::test]
async fn ambiguous_framing_and_addressing_are_refused_and_never_forwarded() {
    let world = World::start().await;
    let token = world.token();
    let head = format!("POST / HTTP/1.1\r\nX-aws-proxy-auth: {token}\r\n");
    let host = format!("Host: {ENDPOINT}\r\n");
    for bad in [
        format!("{host}Host: two.vm.localhost\r\n\r\n"),
        format!("{host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        format!("{host}Content-Length: +3\r\n\r\nabc"),
        format!("{host}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("{host}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("{host}X-Folded: a\r\n b\r\n\r\n"),
        format!("{host}X-Nul: a\0b\r\n\r\n"),
    ] {
        let answer = world.raw(&format!("{head}Connection: close\r\n{bad}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad:?}: {answer}");
    }
    assert_eq!(world.machine.entered.load(SeqCst), 0);
}

#[tokio::test]
async fn length_and_chunks_together_reach_the_application_as_chunks_only() {
    let world = World::start().await;
    for order in [
        "Content-Length: 30\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 30\r\n",
    ] {
        let listener = world.listen(8080).await;
        let mut client = world.connect("http/1.1").await;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {}\r\n{order}\r\n\
             0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: {ENDPOINT}\r\n\r\n",
            world.token()
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut application, _) = listener.accept().await.unwrap();
        let mut seen = read_until(&mut application, "0\r\n\r\n").await;
        application
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        application.shutdown().await.unwrap();
        application.read_to_string(&mut seen).await.unwrap();
        let seen = seen.to_ascii_lowercase();
        assert!(
            seen.contains("transfer-encoding: chunked") && !seen.contains("content-length"),
            "{seen}"
        );
        assert!(!seen.contains("smuggled"), "{seen}");
    }
    assert_eq!(world.machine.entered.load(SeqCst), 2);
}

#[tokio::test]
async fn plain_http_is_not_answered() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: {ENDPOINT}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _end = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn a_connection_is_used_again_but_never_after_a_resume() {
    let mut config = hearth_gateway::GatewayConfig::new(crate::world::DOMAIN);
    config.upstream_idle_timeout = Duration::from_secs(600);
    let world = World::start_with(config).await;
    world.application(8080, inspect).await;
    let mut client = world.h1().await;
    let mut dials_for_one_request = async || {
        let before = world.machine.dialled.load(SeqCst);
        let response = client
            .send_request(world.request("GET", "/").body(empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        text(response).await;
        world.machine.dialled.load(SeqCst) - before
    };
    // A request may overtake the return of the connection before it to the pool: ask until one did not.
    while dials_for_one_request().await > 0 {}
    world.machine.suspend_and_resume();
    assert_eq!(dials_for_one_request().await, 1);
    while dials_for_one_request().await > 0 {}
}

#[tokio::test]
async fn an_application_that_closes_its_idle_connection_costs_no_request() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            // Promises to stay, and goes.
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
        }
    });
    let mut client = world.h1().await;
    for _ in 0..50 {
        let response = client
            .send_request(world.request("GET", "/").body(empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(
            (response.status(), text(response).await.as_str()),
            (StatusCode::OK, "ok")
        );
    }
}

#[tokio::test]
async fn head_and_not_modified_keep_their_length_and_have_no_body() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
        }
    });
    let request = world.request("HEAD", "/").body(empty()).unwrap();
    let response = world.h1().await.send_request(request).await.unwrap();
    assert_eq!(response.headers()["content-length"], "77");
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn the_body_of_a_request_is_one_of_its_own_even_when_many_run_at_once() {
    let world = World::start().await;
    world.application(8080, echo).await;
    let client = world.h2().await;
    let requests = (0..200).map(|number| {
        let mut client = client.clone();
        let request = Request::post(format!("https://{ENDPOINT}/"))
            .header("x-aws-proxy-auth", world.token())
            .body(full(format!("body {number}")))
            .unwrap();
        async move {
            assert_eq!(
                text(client.send_request(request).await.unwrap()).await,
                format!("body {number}")
            )
        }
    });
    futures::future::join_all(requests).await;
}
