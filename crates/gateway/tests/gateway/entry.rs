//! Who may enter (spec sections 18.3 and 19).

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use hearth_gateway::{GateError, GatewayConfig};
use hearth_token::{Grant, Keyring, PortRange};
use hyper::{Request, Response, StatusCode, body::Incoming};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{DOMAIN, ENDPOINT, VM, World, empty, inspect, read_until, text};

const LIFE: Duration = Duration::from_secs(60);

async fn ask(world: &World, headers: &[(&str, &str)]) -> Response<Incoming> {
    let mut request = Request::builder().uri("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world
        .h1()
        .await
        .send_request(request.body(empty()).unwrap())
        .await
        .unwrap()
}

async fn assert_refused(world: &World, headers: &[(&str, &str)], status: u16, body: &str) {
    let response = ask(world, headers).await;
    let has = |name: &str, value: &str| response.headers().get(name).is_some_and(|found| found == value);
    assert_eq!(response.status(), status, "{headers:?}");
    assert!(response.headers()["x-amzn-requestid"].len() == 36 && has("cache-control", "private, no-store"));
    assert_eq!(has("content-type", "text/plain"), !body.is_empty());
    assert_eq!(text(response).await, body, "{headers:?}");
}

#[tokio::test]
async fn without_a_readable_token_authentication_is_missing() {
    let world = World::start().await;
    let foreign = Keyring::generate().mint(&hearth_token::Claims {
        microvm_id: VM.into(),
        grant: Grant::Http(vec![PortRange::ALL]),
        expires_at_ms: u64::MAX,
    });
    let good = world.token();
    let missing = "Request missing authentication";
    assert_refused(&world, &[("host", ENDPOINT)], 403, missing).await;
    for token in ["garbage", "", "a.b.c.d.e", &foreign] {
        assert_refused(
            &world,
            &[("host", ENDPOINT), ("x-aws-proxy-auth", token)],
            403,
            missing,
        )
        .await;
    }
    let twice = [
        ("host", ENDPOINT),
        ("x-aws-proxy-auth", &*good),
        ("x-aws-proxy-auth", &*good),
    ];
    assert_refused(&world, &twice, 403, missing).await;
    // Authentication is checked before anything else.
    assert_refused(
        &world,
        &[("host", "nobody.vm.localhost"), ("x-aws-proxy-port", "banana")],
        403,
        missing,
    )
    .await;
    let by_subprotocol = format!("lambda-microvms, lambda-microvms.authentication.{good}");
    let no_upgrade = [("host", ENDPOINT), ("sec-websocket-protocol", &*by_subprotocol)];
    assert_refused(&world, &no_upgrade, 403, missing).await;
    assert_eq!(world.machine.entered.load(SeqCst), 0);
}

#[tokio::test]
async fn a_token_of_another_vm_or_an_expired_one_or_an_unknown_host_fails() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let failed = "Token authentication failed";
    let good = world.token();
    let all = || Grant::Http(vec![PortRange::ALL]);
    let other = world.mint("microvm-two", all(), LIFE);
    let expired = world.mint(VM, all(), Duration::ZERO);
    for (host, token) in [
        (ENDPOINT, &other),
        (ENDPOINT, &expired),
        ("two.vm.localhost", &good),
        ("nobody.vm.localhost", &good),
        ("one.elsewhere", &good),
        ("127.0.0.1", &good),
    ] {
        assert_refused(
            &world,
            &[("host", host), ("x-aws-proxy-auth", token)],
            403,
            failed,
        )
        .await;
    }
    assert_eq!(world.machine.entered.load(SeqCst), 0);
    let response = ask(
        &world,
        &[("host", "ONE.vm.localhost:8443"), ("x-aws-proxy-auth", &good)],
    )
    .await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn ports_are_checked_for_syntax_and_then_against_the_grant() {
    let world = World::start().await;
    for port in [8080, 9000, 9005] {
        world.application(port, inspect).await;
    }
    let all = world.token();
    for bad in ["banana", "0", "-1", "1.5", "70000", "", "+80"] {
        let headers = [
            ("host", ENDPOINT),
            ("x-aws-proxy-auth", &*all),
            ("x-aws-proxy-port", bad),
        ];
        assert_refused(&world, &headers, 400, "Invalid port").await;
    }
    let ranges = vec![
        PortRange::single(9000),
        PortRange {
            start: 9003,
            end: 9010,
        },
    ];
    let some = world.mint(VM, Grant::Http(ranges), LIFE);
    let denied = "Access to port denied";
    assert_refused(
        &world,
        &[("host", ENDPOINT), ("x-aws-proxy-auth", &some)],
        403,
        denied,
    )
    .await;
    let headers = [
        ("host", ENDPOINT),
        ("x-aws-proxy-auth", &*some),
        ("x-aws-proxy-port", "9002"),
    ];
    assert_refused(&world, &headers, 403, denied).await;
    assert_eq!(world.machine.entered.load(SeqCst), 0);
    for port in ["9000", "9005"] {
        let headers = [
            ("host", ENDPOINT),
            ("x-aws-proxy-auth", &*some),
            ("x-aws-proxy-port", port),
        ];
        assert_eq!(ask(&world, &headers).await.status(), StatusCode::OK, "{port}");
    }
}

#[tokio::test]
async fn a_granted_port_without_listener_is_a_bad_gateway() {
    let world = World::start().await;
    assert_refused(
        &world,
        &[("host", ENDPOINT), ("x-aws-proxy-auth", &world.token())],
        502,
        "",
    )
    .await;
    assert_eq!(world.machine.dialled.load(SeqCst), 1);
}

#[tokio::test]
async fn a_shell_token_opens_no_http_and_wakes_nothing() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let shell = world.mint(VM, Grant::Shell, LIFE);
    assert_refused(
        &world,
        &[("host", ENDPOINT), ("x-aws-proxy-auth", &shell)],
        502,
        "",
    )
    .await;
    assert_eq!(world.machine.entered.load(SeqCst), 0);
}

#[tokio::test]
async fn the_gate_decides_and_is_asked_for_every_request() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let token = world.token();
    for (error, status, body) in [
        (GateError::Closed, 502, ""),
        (GateError::NoIngress, 403, "Ingress denied"),
        (GateError::Busy, 429, "Too many requests"),
    ] {
        *world.machine.shut.lock().unwrap() = Some(error);
        assert_refused(
            &world,
            &[("host", ENDPOINT), ("x-aws-proxy-auth", &token)],
            status,
            body,
        )
        .await;
    }
    *world.machine.shut.lock().unwrap() = None;
    let mut client = world.h1().await;
    for entered in 4..8 {
        let response = client
            .send_request(world.request("GET", "/").body(empty()).unwrap())
            .await
            .unwrap();
        assert!(text(response).await.starts_with("GET / "));
        assert_eq!(world.machine.entered.load(SeqCst), entered);
    }
}

#[tokio::test]
async fn a_rotated_keyring_keeps_live_tokens() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let token = world.token();
    world.keyring.write().unwrap().rotate(1);
    let response = ask(&world, &[("host", ENDPOINT), ("x-aws-proxy-auth", &token)]).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn without_host_the_tls_server_name_decides() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let answer = world
        .raw(&format!(
            "GET / HTTP/1.0\r\nX-aws-proxy-auth: {}\r\n\r\n",
            world.token()
        ))
        .await;
    assert!(
        answer.starts_with("HTTP/1.0 200 ") && answer.contains(&format!("host: {ENDPOINT}\n")),
        "{answer}"
    );
}

#[tokio::test]
async fn a_public_port_needs_no_token_and_every_other_does() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    world.application(9000, inspect).await;
    *world.machine.public.lock().unwrap() = vec![9000];
    for headers in [
        &[("host", ENDPOINT)][..],
        &[("host", ENDPOINT), ("x-aws-proxy-port", "9000")],
    ] {
        assert_eq!(ask(&world, headers).await.status(), 200, "{headers:?}");
    }
    let missing = "Request missing authentication";
    for headers in [
        &[("host", ENDPOINT), ("x-aws-proxy-port", "8080")][..],
        &[("host", ENDPOINT), ("x-aws-proxy-port", "banana")],
        &[
            ("host", ENDPOINT),
            ("x-aws-proxy-auth", "garbage"),
            ("x-aws-proxy-port", "9000"),
        ],
        &[("host", "two.vm.localhost")],
        &[("host", "nobody.vm.localhost")],
    ] {
        assert_refused(&world, headers, 403, missing).await;
    }
    // Neither what the ingress says nor a token of another MicroVM has to do with it.
    let other = world.mint("microvm-two", Grant::Http(vec![PortRange::ALL]), LIFE);
    let headers = [("host", ENDPOINT), ("x-aws-proxy-auth", &*other)];
    assert_refused(&world, &headers, 403, "Token authentication failed").await;
}

#[tokio::test]
async fn a_public_port_is_open_to_websockets_and_tunnels() {
    let world = World::start().await;
    let listener = world.listen(9000).await;
    *world.machine.public.lock().unwrap() = vec![9000];
    let application = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).await.unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"raw").await.unwrap();
        head
    });
    let upgrade = format!(
        "GET / HTTP/1.1\r\nHost: {ENDPOINT}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Protocol: chat\r\n\r\n"
    );
    let answer = world.raw(&upgrade).await;
    assert!(
        answer.starts_with("HTTP/1.1 101") && answer.ends_with("hello"),
        "{answer}"
    );
    let answer = world
        .raw("CONNECT 127.0.0.1:9000 HTTP/1.1\r\nHost: 127.0.0.1:9000\r\n\r\n")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("raw"),
        "{answer}"
    );
    assert!(application.await.unwrap().contains("chat"));
    let closed = world
        .raw("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n")
        .await;
    assert!(closed.starts_with("HTTP/1.1 403"), "{closed}");
}

#[tokio::test]
async fn of_too_many_strangers_the_oldest_goes_and_nobody_else() {
    let world = World::start_with(GatewayConfig {
        strangers: 2,
        // Nothing else ends them meanwhile.
        handshake_timeout: Duration::from_secs(3600),
        request_header_timeout: Duration::from_secs(3600),
        ..GatewayConfig::new(DOMAIN)
    })
    .await;
    world
        .application(8080, |_| async { Response::new(empty()) })
        .await;
    let mut known = world.h2().await;
    let again = async |known: &mut hyper::client::conn::http2::SendRequest<_>| {
        let request = world.request("GET", &format!("https://{ENDPOINT}/"));
        known
            .send_request(request.body(empty()).unwrap())
            .await
            .unwrap()
            .status()
    };
    assert_eq!(again(&mut known).await, 200);

    // One says nothing, one is refused, and one is through with TLS.
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    let mut refused = world.connect("http/1.1").await;
    let request = format!("GET / HTTP/1.1\r\nHost: {ENDPOINT}\r\n\r\n");
    refused.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut refused, "Request missing authentication").await;
    let mut waits = world.connect("http/1.1").await;
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    let _fourth = world.connect("http/1.1").await;
    // It is closed without notice.
    assert!(!matches!(refused.read(&mut [0]).await, Ok(1..)));
    assert_eq!(again(&mut known).await, 200);
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {}\r\nConnection: close\r\n\r\n",
        world.token()
    );
    waits.write_all(request.as_bytes()).await.unwrap();
    assert!(
        read_until(&mut waits, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
}
