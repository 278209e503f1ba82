//! Raw TCP by CONNECT over the authenticated endpoint.

use std::sync::atomic::Ordering::SeqCst;

use hearth_token::{Grant, PortRange};
use http_body_util::BodyExt;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{VM, World, empty, read_until};

fn connect(target: &str, token: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nX-aws-proxy-auth: {token}\r\n\r\n")
}

#[tokio::test]
async fn a_tunnel_carries_every_byte_both_ways_and_each_end_closes_for_itself() {
    let world = World::start().await;
    let listener = world.listen(5432).await;
    let all_bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut client = world.connect("http/1.1").await;
    client
        .write_all(connect("127.0.0.1:5432", &world.token()).as_bytes())
        .await
        .unwrap();
    let answer = read_until(&mut client, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (mut application, _) = listener.accept().await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(client);
    let sent = all_bytes.clone();
    let upload = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    application.read_to_end(&mut got).await.unwrap();
    assert!(got == all_bytes, "what arrived is what was sent");
    upload.await.unwrap();
    // The client has ended its side; the application still speaks.
    application.write_all(&all_bytes).await.unwrap();
    drop(application);
    let mut back = Vec::new();
    reader.read_to_end(&mut back).await.unwrap();
    assert!(back == all_bytes, "and back");
    assert!(world.machine.touched.load(SeqCst) > 2);
    assert_eq!(*world.machine.moved.lock().unwrap(), (300_000, 300_000));
}

#[tokio::test]
async fn a_tunnel_opens_over_http2_as_well() {
    let world = World::start().await;
    let listener = world.listen(22).await;
    let request = Request::connect("127.0.0.1:22")
        .header("x-aws-proxy-auth", world.token())
        .body(empty())
        .unwrap();
    let response = world.h2().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut tunnel = hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let (mut application, _) = listener.accept().await.unwrap();
    application.write_all(b"SSH-2.0").await.unwrap();
    assert_eq!(read_until(&mut tunnel, "SSH-2.0").await, "SSH-2.0");
    tunnel.write_all(b"hello").await.unwrap();
    assert_eq!(read_until(&mut application, "hello").await, "hello");
}

#[tokio::test]
async fn a_tunnel_needs_a_token_for_its_port_and_leads_nowhere_else() {
    let world = World::start().await;
    let _listener = world.listen(5432).await;
    let other = world.mint(
        VM,
        Grant::Http(vec![PortRange::single(80)]),
        std::time::Duration::from_secs(60),
    );
    let all = world.token();
    for (target, token, status) in [
        ("127.0.0.1:5432", "garbage", 403),
        ("127.0.0.1:5432", &*other, 403),
        ("127.0.0.1:0", &*all, 400),
        ("169.254.169.254:80", &*all, 400),
        ("example.com:443", &*all, 400),
    ] {
        let answer = world
            .raw(&(connect(target, token).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")))
            .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{target}: {answer}"
        );
    }
    assert_eq!(world.machine.entered.load(SeqCst), 0);
    let answer = world
        .raw(&connect("127.0.0.1:4711", &all).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn a_suspend_cuts_a_tunnel() {
    let world = World::start().await;
    let listener = world.listen(5432).await;
    let mut client = world.connect("http/1.1").await;
    client
        .write_all(connect("localhost:5432", &world.token()).as_bytes())
        .await
        .unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    let (mut application, _) = listener.accept().await.unwrap();
    world.machine.suspend_and_resume();
    let _end = application.read_to_end(&mut Vec::new()).await;
    let _end = client.read_to_end(&mut Vec::new()).await;
    // The next request goes its own way.
    world.application(8080, crate::world::inspect).await;
    let request = world.request("GET", "/").body(empty()).unwrap();
    let response = world.h1().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
}
