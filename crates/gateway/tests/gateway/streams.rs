//! Streams: back-pressure, clients that vanish, MicroVMs that go away, what counts as activity.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{ENDPOINT, World, empty, full, inspect, read_until, text, until};

const BODY_BYTES: usize = 64 << 20;
/// All that may lie in buffers between client and application: theirs, the kernel's and the gateway's.
const IN_FLIGHT_BYTES: usize = 24 << 20;
const STALL: Duration = Duration::from_millis(500);

async fn read_to_the_end(stream: &mut TcpStream) {
    let _end = tokio::io::copy(stream, &mut tokio::io::sink()).await;
}

/// Writes until the other side takes no more; returns how much it took.
async fn write_until_stalled(stream: &mut (impl AsyncWriteExt + Unpin), limit: usize) -> usize {
    let piece = vec![b'x'; 64 << 10];
    let mut written = 0;
    while written < limit {
        match timeout(STALL, stream.write(&piece[..piece.len().min(limit - written)])).await {
            Ok(count) => written += count.unwrap(),
            Err(_) => break,
        }
    }
    written
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_application_and_then_gets_everything() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let application = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let taken = write_until_stalled(&mut stream, BODY_BYTES).await;
        (stream, taken)
    });
    let request = world.request("GET", "/").body(empty()).unwrap();
    let response = world.h1().await.send_request(request).await.unwrap();
    let (mut stream, taken) = application.await.unwrap();
    assert!(taken < IN_FLIGHT_BYTES, "the gateway swallowed {taken} bytes");
    let rest = tokio::spawn(async move { stream.write_all(&vec![b'x'; BODY_BYTES - taken]).await });
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(read, BODY_BYTES);
    rest.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_application_that_does_not_read_stops_the_client_and_then_gets_everything() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let mut client = world.connect("http/1.1").await;
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {}\r\nContent-Length: {BODY_BYTES}\r\n\r\n",
        world.token()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let taken = write_until_stalled(&mut client, BODY_BYTES).await;
    assert!(taken < IN_FLIGHT_BYTES, "the gateway swallowed {taken} bytes");
    let (mut application, _) = listener.accept().await.unwrap();
    let rest = tokio::spawn(async move {
        client.write_all(&vec![b'x'; BODY_BYTES - taken]).await.unwrap();
        // The last record may still wait in the TLS session.
        client.flush().await.unwrap();
        client
    });
    let got = read_until(&mut application, "\r\n\r\n").await;
    let mut read = got.len() - got.find("\r\n\r\n").unwrap() - 4;
    let mut buffer = vec![0; 1 << 20];
    while read < BODY_BYTES {
        let count = application.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0);
        read += count;
    }
    application
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
        .await
        .unwrap();
    read_until(&mut rest.await.unwrap(), "done").await;
}

#[tokio::test]
async fn a_client_that_vanishes_before_the_response_closes_the_application_s_connection() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let mut client = world.connect("http/1.1").await;
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {}\r\n\r\n",
        world.token()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut application, _) = listener.accept().await.unwrap();
    read_until(&mut application, "\r\n\r\n").await;
    assert_eq!(world.machine.pending.load(SeqCst), 1);
    drop(client);
    read_to_the_end(&mut application).await;
    until(|| world.machine.pending.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn a_reset_http2_stream_closes_the_application_s_connection_and_no_other() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    world.application(8081, inspect).await;
    let mut client = world.h2().await;
    let request = |port: &str| {
        Request::get(format!("https://{ENDPOINT}/"))
            .header("x-aws-proxy-auth", world.token())
            .header("x-aws-proxy-port", port)
            .body(empty())
            .unwrap()
    };
    let waiting = tokio::spawn(client.send_request(request("8080")));
    let (mut application, _) = listener.accept().await.unwrap();
    read_until(&mut application, "\r\n\r\n").await;
    waiting.abort();
    read_to_the_end(&mut application).await;
    assert_eq!(
        client.send_request(request("8081")).await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_client_that_vanishes_in_a_stream_closes_the_application_s_connection() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let mut client = world.connect("http/1.1").await;
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {}\r\n\r\n",
        world.token()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut application, _) = listener.accept().await.unwrap();
    read_until(&mut application, "\r\n\r\n").await;
    application
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        .await
        .unwrap();
    read_until(&mut client, "a").await;
    drop(client);
    read_to_the_end(&mut application).await;
}

#[tokio::test]
async fn an_upload_cut_short_is_not_a_whole_one() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let mut client = world.connect("http/1.1").await;
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        world.token()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut application, _) = listener.accept().await.unwrap();
    read_until(&mut application, "abc").await;
    drop(client);
    let mut rest = String::new();
    let _end = application.read_to_string(&mut rest).await;
    assert!(
        !rest.contains("0\r\n\r\n"),
        "the application was told the body is complete"
    );
}

#[tokio::test]
async fn a_suspended_microvm_cuts_its_streams_and_waiting_requests() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let (mut streaming, mut waiting) = (world.h1().await, world.h1().await);
    let first = tokio::spawn(streaming.send_request(world.request("GET", "/").body(empty()).unwrap()));
    let (mut application, _) = listener.accept().await.unwrap();
    read_until(&mut application, "\r\n\r\n").await;
    application
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        .await
        .unwrap();
    let mut body = first.await.unwrap().unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    let second = tokio::spawn(waiting.send_request(world.request("GET", "/").body(empty()).unwrap()));
    let _held_open = listener.accept().await.unwrap();

    world.machine.suspend_and_resume();
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(second.await.unwrap().unwrap().status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn bytes_are_activity_and_a_silent_stream_is_not() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let mut client = world.h1().await;
    let response = tokio::spawn(client.send_request(world.request("POST", "/").body(full("ask")).unwrap()));
    let (mut application, _) = listener.accept().await.unwrap();
    read_until(&mut application, "ask").await;
    assert_eq!(
        world.machine.pending.load(SeqCst),
        1,
        "a request without response headers is pending"
    );
    application
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let mut body = response.await.unwrap().unwrap().into_body();
    assert_eq!(world.machine.pending.load(SeqCst), 0, "an open response is not");
    for _ in 0..3 {
        let before = world.machine.touched.load(SeqCst);
        application.write_all(b"1\r\na\r\n").await.unwrap();
        body.frame().await.unwrap().unwrap();
        assert!(world.machine.touched.load(SeqCst) > before);
    }
}

#[tokio::test]
async fn a_shutdown_lets_a_request_finish_and_takes_no_new_one() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let mut client = world.h1().await;
    let response = tokio::spawn(client.send_request(world.request("GET", "/").body(empty()).unwrap()));
    let (mut application, _) = listener.accept().await.unwrap();
    read_until(&mut application, "\r\n\r\n").await;
    world.shutdown.cancel();
    until(|| std::net::TcpStream::connect(world.address).is_err()).await;
    application
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast")
        .await
        .unwrap();
    assert_eq!(text(response.await.unwrap().unwrap()).await, "last");
    world.served().await;
}

#[tokio::test]
async fn a_shutdown_cuts_what_outlasts_its_grace() {
    let mut config = hearth_gateway::GatewayConfig::new(crate::world::DOMAIN);
    config.shutdown_grace = Duration::from_millis(50);
    let world = World::start_with(config).await;
    let listener = world.listen(8080).await;
    let mut client = world.h1().await;
    let response = tokio::spawn(client.send_request(world.request("GET", "/").body(empty()).unwrap()));
    let (mut application, _) = listener.accept().await.unwrap();
    world.shutdown.cancel();
    world.served().await;
    assert!(response.await.unwrap().is_err());
    read_to_the_end(&mut application).await;
}

#[tokio::test]
async fn a_client_that_never_asks_or_never_ends_its_header_is_closed() {
    let mut config = hearth_gateway::GatewayConfig::new(crate::world::DOMAIN);
    config.request_header_timeout = Duration::from_millis(100);
    config.handshake_timeout = Duration::from_millis(100);
    let world = World::start_with(config).await;
    for (alpn, start) in [
        ("http/1.1", "GET / HTTP/1.1\r\nHost:"),
        ("http/1.1", ""),
        ("h2", "PRI * HT"),
        ("h2", ""),
    ] {
        let mut stream = world.connect(alpn).await;
        stream.write_all(start.as_bytes()).await.unwrap();
        let _end = stream.read_to_end(&mut Vec::new()).await;
    }
    read_to_the_end(&mut TcpStream::connect(world.address).await.unwrap()).await;
}
