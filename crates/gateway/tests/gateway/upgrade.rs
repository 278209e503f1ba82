//! WebSocket and other upgrades (spec section 20). The bytes after the 101 are opaque to the gateway.

use std::sync::atomic::Ordering::SeqCst;

use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::world::{ENDPOINT, World, empty, inspect, read_until, until};

fn offer(extra: &str) -> String {
    format!(
        "GET /socket HTTP/1.1\r\nHost: {ENDPOINT}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
}

/// Answers one upgrade; returns what the application saw, and its connection.
async fn accept(listener: &TcpListener, chosen: &str) -> (String, TcpStream) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let seen = read_until(&mut stream, "\r\n\r\n").await;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{chosen}\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    (seen.to_ascii_lowercase(), stream)
}

async fn converse(client: &mut TlsStream<TcpStream>, application: &mut TcpStream) {
    for message in ["one", "two", "three"] {
        client.write_all(message.as_bytes()).await.unwrap();
        assert_eq!(read_until(application, message).await, message);
        application.write_all(message.as_bytes()).await.unwrap();
        assert_eq!(read_until(client, message).await, message);
    }
}

async fn open(
    world: &World,
    extra: &str,
    port: u16,
    chosen: &str,
) -> (String, String, TlsStream<TcpStream>, TcpStream) {
    let listener = world.listen(port).await;
    let mut client = world.connect("http/1.1").await;
    client.write_all(offer(extra).as_bytes()).await.unwrap();
    let (seen, application) = accept(&listener, chosen).await;
    let answer = read_until(&mut client, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    (seen, answer.to_ascii_lowercase(), client, application)
}

#[tokio::test]
async fn a_websocket_opens_by_header_and_offers_nothing_it_was_not_offered() {
    let world = World::start().await;
    let extra = format!("X-aws-proxy-auth: {}\r\n", world.token());
    let (seen, answer, mut client, mut application) = open(&world, &extra, 8080, "").await;
    assert!(
        seen.contains("\r\nupgrade: websocket\r\n") && seen.contains("\r\nconnection: upgrade\r\n"),
        "{seen}"
    );
    assert!(
        seen.contains("\r\nsec-websocket-key: ") && !seen.contains("x-aws-proxy"),
        "{seen}"
    );
    assert!(
        answer.contains("\r\nsec-websocket-accept: ") && answer.contains("\r\nupgrade: websocket\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("sec-websocket-protocol"), "{answer}");
    converse(&mut client, &mut application).await;
}

#[tokio::test]
async fn a_websocket_opens_by_subprotocols_which_the_application_never_sees() {
    let world = World::start().await;
    let token = world.token();
    let extra = format!(
        "Sec-WebSocket-Protocol: lambda-microvms, lambda-microvms.authentication.{token}, lambda-microvms.port.9001\r\n"
    );
    let (seen, answer, mut client, mut application) = open(&world, &extra, 9001, "").await;
    assert!(
        !seen.contains("sec-websocket-protocol") && !seen.contains("lambda-microvms"),
        "{seen}"
    );
    assert!(
        answer.contains("\r\nsec-websocket-protocol: lambda-microvms\r\n"),
        "{answer}"
    );
    converse(&mut client, &mut application).await;
}

#[tokio::test]
async fn the_application_s_own_subprotocol_is_offered_and_chosen() {
    let world = World::start().await;
    let token = world.token();
    let extra =
        format!("Sec-WebSocket-Protocol: chat, lambda-microvms, lambda-microvms.authentication.{token}\r\n");
    let (seen, answer, ..) = open(&world, &extra, 8080, "Sec-WebSocket-Protocol: chat\r\n").await;
    assert!(seen.contains("\r\nsec-websocket-protocol: chat\r\n"), "{seen}");
    assert!(
        answer.contains("\r\nsec-websocket-protocol: chat\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_port_header_goes_before_the_subprotocol() {
    let world = World::start().await;
    let extra = format!(
        "X-aws-proxy-port: 9002\r\nSec-WebSocket-Protocol: lambda-microvms, lambda-microvms.authentication.{}, \
         lambda-microvms.port.9001\r\n",
        world.token()
    );
    open(&world, &extra, 9002, "").await;
}

#[tokio::test]
async fn a_bad_handshake_is_a_plain_error_and_wakes_nothing() {
    let world = World::start().await;
    let token = world.token();
    let by_header = format!("X-aws-proxy-auth: {token}\r\n");
    let auth = format!("lambda-microvms.authentication.{token}");
    for (extra, status) in [
        (String::new(), 403),
        ("Sec-WebSocket-Protocol: lambda-microvms\r\n".into(), 403),
        (
            "Sec-WebSocket-Protocol: lambda-microvms, lambda-microvms.authentication.x\r\n".into(),
            403,
        ),
        (format!("Sec-WebSocket-Protocol: {auth}\r\n"), 400),
        (
            format!("Sec-WebSocket-Protocol: lambda-microvms, {auth}, lambda-microvms.port.70000\r\n"),
            400,
        ),
        (
            format!("Sec-WebSocket-Protocol: lambda-microvms, {auth}, {auth}\r\n"),
            400,
        ),
        (
            format!("{by_header}Sec-WebSocket-Protocol: lambda-microvms.port.80\r\n"),
            400,
        ),
    ] {
        let mut client = world.connect("http/1.1").await;
        client.write_all(offer(&extra).as_bytes()).await.unwrap();
        let answer = read_until(&mut client, "\r\n\r\n").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{extra}: {answer}"
        );
    }
    assert_eq!(world.machine.entered.load(SeqCst), 0);
}

#[tokio::test]
async fn an_application_may_refuse_an_upgrade() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let mut client = world.connect("http/1.1").await;
    client
        .write_all(offer(&format!("X-aws-proxy-auth: {}\r\n", world.token())).as_bytes())
        .await
        .unwrap();
    assert!(
        read_until(&mut client, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn cleartext_http2_is_no_upgrade_to_grant() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let answer = world
        .raw(&format!(
            "GET / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {}\r\nConnection: close, Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
            world.token()
        ))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && !answer.contains("h2c") && !answer.contains("http2-"),
        "{answer}"
    );
}

#[tokio::test]
async fn when_one_side_of_a_websocket_leaves_the_other_is_closed() {
    let world = World::start().await;
    let extra = format!("X-aws-proxy-auth: {}\r\n", world.token());
    let (_, _, client, mut application) = open(&world, &extra, 8080, "").await;
    drop(client);
    let _end = application.read_to_end(&mut Vec::new()).await;

    let (_, _, mut client, mut application) = open(&world, &extra, 8080, "").await;
    application.write_all(b"bye").await.unwrap();
    drop(application);
    let mut last = Vec::new();
    let _end = client.read_to_end(&mut last).await;
    assert_eq!(last, b"bye");
}

#[tokio::test]
async fn frames_are_activity_and_a_suspend_cuts_the_connection() {
    let world = World::start().await;
    let extra = format!("X-aws-proxy-auth: {}\r\n", world.token());
    let (_, _, mut client, mut application) = open(&world, &extra, 8080, "").await;
    let before = world.machine.touched.load(SeqCst);
    converse(&mut client, &mut application).await;
    assert!(world.machine.touched.load(SeqCst) >= before + 6);
    assert_eq!(world.machine.pending.load(SeqCst), 0);
    world.machine.suspend_and_resume();
    let _end = client.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn a_stream_outlives_the_token_that_opened_it() {
    let world = World::start().await;
    let extra = format!("X-aws-proxy-auth: {}\r\n", world.token());
    let (_, _, mut client, mut application) = open(&world, &extra, 8080, "").await;
    *world.keyring.write().unwrap() = hearth_token::Keyring::generate();
    converse(&mut client, &mut application).await;
}

#[tokio::test]
async fn another_protocol_may_close_one_direction_only() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let mut client = world.connect("http/1.1").await;
    let request = format!(
        "POST /attach HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        world.token()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut application, _) = listener.accept().await.unwrap();
    read_until(&mut application, "\r\n\r\n").await;
    application
        .write_all(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    client.write_all(b"input").await.unwrap();
    client.shutdown().await.unwrap();
    let mut input = String::new();
    application.read_to_string(&mut input).await.unwrap();
    assert_eq!(input, "input");
    application.write_all(b"result").await.unwrap();
    read_until(&mut client, "result").await;
}

/// A WebSocket on a stream of an HTTP/2 connection (RFC 8441), and what the application answers it.
async fn extended(world: &World, answer: &str) -> (http::Response<hyper::body::Incoming>, String, TcpStream) {
    let listener = world.listen(8080).await;
    let mut h2 = world.h2().await;
    let mut request = world
        .request("CONNECT", &format!("https://{ENDPOINT}/socket"))
        .header("sec-websocket-version", "13")
        .body(empty())
        .unwrap();
    request
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    request.headers_mut().remove("host");
    let answered = tokio::spawn(async move { (h2.send_request(request).await.unwrap(), h2) });
    let (mut application, _) = listener.accept().await.unwrap();
    let seen = read_until(&mut application, "\r\n\r\n").await;
    application.write_all(answer.as_bytes()).await.unwrap();
    let (response, _h2) = answered.await.unwrap();
    (response, seen.to_ascii_lowercase(), application)
}

#[tokio::test]
async fn a_websocket_opens_on_a_stream_of_http2() {
    let world = World::start().await;
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: whatever\r\nX-Mine: kept\r\n\r\n";
    let (mut response, seen, mut application) = extended(&world, answer).await;
    assert!(seen.starts_with("get /socket http/1.1\r\n"), "{seen}");
    for header in [
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-key: ",
        "sec-websocket-version: 13",
    ] {
        assert!(seen.contains(&format!("\r\n{header}")), "{header} in {seen}");
    }
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-mine"]),
        (200, &"kept".parse().unwrap())
    );
    for header in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(header), "{header}");
    }
    let mut client = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    client.write_all(b"question").await.unwrap();
    assert_eq!(read_until(&mut application, "question").await, "question");
    application.write_all(b"answer").await.unwrap();
    assert_eq!(read_until(&mut client, "answer").await, "answer");
    assert_eq!(world.machine.attached.load(SeqCst), 1);
    drop(client);
    // The end of the stream ends the application's connection, and nothing stays counted.
    assert_eq!(application.read(&mut [0; 8]).await.unwrap_or(0), 0);
    until(|| world.machine.attached.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn a_refused_websocket_on_a_stream_of_http2_is_an_answer() {
    let world = World::start().await;
    for (answer, status) in [("404 Not Found", 404), ("200 OK", 502)] {
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        let (response, ..) = extended(&world, &answer).await;
        assert_eq!(response.status(), status);
    }
}
