//! What a proxy must survive: hostile framing, floods of headers, clients and applications that dawdle, vanish or talk
//! out of turn. After each of them nothing is left behind, and the next request is served.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Body, ENDPOINT, World, empty, full, inspect, read_until, text, until};

const GIB: u64 = 1 << 30;
/// The gateway's own tasks without a client: it keeps house, listens, and waits for the end of the MicroVM it spoke to.
const RESTING_TASKS: usize = 3;

fn head(world: &World, method: &str, more: &str) -> String {
    let token = world.token();
    format!("{method} / HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {token}\r\n{more}")
}

/// The next request is served, and whatever came before has let go of everything.
pub async fn assert_well(world: &World) {
    world.application(8099, inspect).await;
    let request = world
        .request("GET", "/well")
        .header("x-aws-proxy-port", "8099")
        .body(empty())
        .unwrap();
    let response = world.h1().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(text(response).await.starts_with("GET /well "));
    until(|| world.machine.pending.load(SeqCst) == 0).await;
    until(|| world.machine.attached.load(SeqCst) == 0).await;
    until(|| world.connections() == 0).await;
    until(|| world.tasks() <= RESTING_TASKS).await;
}

/// Answers every request on one connection with the number of bytes it brought.
async fn count(request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => return Response::new(full("cut short")),
        }
    }
    Response::new(full(format!("{bytes}")))
}

#[tokio::test]
async fn smuggled_requests_never_reach_the_application() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {ENDPOINT}\r\n\r\n");
    for framing in [
        // Chunked in words that one side might read and the other not.
        "Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity, chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        // Lengths that are none, or two.
        "Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
        "Content-Length: 4, 5\r\n\r\nabcd",
        "Content-Length: 0x4\r\n\r\nabcd",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n",
        "Content-Length: 4 4\r\n\r\nabcd",
        // A line that ends for one side only.
        "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\0z\r\n\r\n",
    ] {
        let answer = world
            .raw(&format!("{}{framing}{smuggled}", head(&world, "POST", "")))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{framing:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{framing:?}: {answer}");
    }
    assert_eq!(world.machine.entered.load(SeqCst), 0);
    drop(listener);
    assert_well(&world).await;
}

#[tokio::test]
async fn chunks_that_are_none_end_the_connection_and_smuggle_nothing() {
    for chunks in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabc\r\n0\r\nX-Trailer : bad\r\n\r\n",
    ] {
        let world = World::start().await;
        world.application(8080, count).await;
        let request = head(&world, "POST", "Transfer-Encoding: chunked\r\n\r\n");
        let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {ENDPOINT}\r\n\r\n");
        let answer = world.raw(&format!("{request}{chunks}{smuggled}")).await;
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{chunks:?}: {answer}");
        assert!(!answer.contains("smuggled"), "{chunks:?}: {answer}");
        assert_eq!(world.machine.entered.load(SeqCst), 1, "{chunks:?}");
        assert_well(&world).await;
    }
}

#[tokio::test]
async fn bare_line_feeds_make_no_second_request_or_header_of_their_own() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let request = head(&world, "GET", "X-One: a\nX-Two: b\r\nConnection: close\r\n\r\n");
    let answer = world.raw(&request).await;
    // Either refused, or read as two lines: both sides see the same then.
    let refused = answer.starts_with("HTTP/1.1 400 ");
    assert!(
        refused || (answer.contains("\nx-one: a\n") && answer.contains("\nx-two: b\n")),
        "{answer}"
    );
    assert_well(&world).await;
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_refused_and_wake_nothing() {
    let world = World::start().await;
    let many: String = (0..2000).map(|number| format!("X-{number}: y\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "y".repeat(100_000));
    let long_name = format!("{}: y\r\n", "x".repeat(100_000));
    for bomb in [&many, &large, &long_name] {
        let answer = world.raw(&format!("{}{bomb}\r\n", head(&world, "GET", ""))).await;
        assert!(
            answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 400 "),
            "{}",
            &answer[..answer.len().min(200)]
        );
    }
    let path = format!(
        "GET /{} HTTP/1.1\r\nHost: {ENDPOINT}\r\n\r\n",
        "p".repeat(100_000)
    );
    let answer = world.raw(&path).await;
    assert!(
        answer.starts_with("HTTP/1.1 4"),
        "{}",
        &answer[..answer.len().min(200)]
    );
    let mut client = world.h2().await;
    let mut request = Request::get(format!("https://{ENDPOINT}/")).header("x-aws-proxy-auth", world.token());
    for number in 0..100 {
        request = request.header(format!("x-{number}"), "y".repeat(1000));
    }
    let refused = client.send_request(request.body(empty()).unwrap()).await;
    let refused = refused.map_or(true, |response| response.status() == 431);
    assert!(refused, "an HTTP/2 request with 100 KB of headers");
    assert_eq!(world.machine.entered.load(SeqCst), 0);
    assert_well(&world).await;
}

#[tokio::test]
async fn a_response_that_floods_its_header_is_a_bad_gateway() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
                while stream
                    .write_all(b"X-Flood: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")
                    .await
                    .is_ok()
                {}
            });
        }
    });
    let request = world.request("POST", "/").body(empty()).unwrap();
    let response = world.h1().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    drop(response);
    assert_well(&world).await;
}

#[tokio::test]
async fn responses_with_ambiguous_framing_are_not_passed_on() {
    for framing in [
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "Content-Length: nonsense\r\n\r\nabc",
        "X-Folded: a\r\n b: c\r\n\r\n",
        "Bad Name: x\r\nContent-Length: 0\r\n\r\n",
    ] {
        let world = World::start().await;
        let listener = world.listen(8080).await;
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_until(&mut stream, "\r\n\r\n").await;
                let answer = format!("HTTP/1.1 200 OK\r\n{framing}");
                let _told = stream.write_all(answer.as_bytes()).await;
            }
        });
        let request = world.request("POST", "/").body(empty()).unwrap();
        let response = world.h1().await.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{framing:?}");
        drop(response);
        assert_well(&world).await;
    }
}

#[tokio::test]
async fn a_response_splits_no_other_response() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                read_until(&mut stream, "\r\n\r\n").await;
                // More than it announced: what is left over belongs to nobody.
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";
                let _told = stream.write_all(answer.as_bytes()).await;
                let _end = stream.read(&mut [0; 4096]).await;
            });
        }
    });
    let mut client = world.h1().await;
    for _ in 0..20 {
        let response = client
            .send_request(world.request("GET", "/").body(empty()).unwrap())
            .await
            .unwrap();
        let status = response.status();
        let answer = text(response).await;
        assert!(!answer.contains("stolen"), "{answer}");
        assert!(
            answer == "ok" || status == StatusCode::BAD_GATEWAY,
            "{status} {answer}"
        );
    }
    drop(client);
    assert_well(&world).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let world = World::start().await;
    world
        .application(8080, |request: Request<Incoming>| async move {
            let path = request.uri().path().to_owned();
            if path == "/0" {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Response::new(full(path))
        })
        .await;
    let token = world.token();
    let requests: String = (0..20)
        .map(|number| {
            format!("GET /{number} HTTP/1.1\r\nHost: {ENDPOINT}\r\nX-aws-proxy-auth: {token}\r\n\r\n")
        })
        .collect();
    let mut stream = world.connect("http/1.1").await;
    stream.write_all(requests.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "/19").await;
    let paths: Vec<&str> = answer
        .split("\r\n\r\n")
        .skip(1)
        .map(|part| part.split("HTTP/").next().unwrap())
        .collect();
    let wanted: Vec<String> = (0..20).map(|number| format!("/{number}")).collect();
    assert_eq!(paths, wanted);
    drop(stream);
    assert_well(&world).await;
}

#[tokio::test]
async fn a_client_that_sends_its_request_byte_by_byte_is_served() {
    let world = World::start().await;
    world.application(8080, count).await;
    let mut stream = world.connect("http/1.1").await;
    let request = head(&world, "POST", "Content-Length: 5\r\n\r\nhello");
    for byte in request.as_bytes() {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let answer = read_until(&mut stream, "\r\n\r\n5").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(stream);
    assert_well(&world).await;
}

#[tokio::test]
async fn a_client_that_half_closes_while_it_waits_is_gone_and_its_request_with_it() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let mut client = world.connect("http/1.1").await;
    client
        .write_all(head(&world, "GET", "\r\n").as_bytes())
        .await
        .unwrap();
    let (mut application, _) = listener.accept().await.unwrap();
    read_until(&mut application, "\r\n\r\n").await;
    client.shutdown().await.unwrap();
    // Nobody listens any more: the application learns of it, rather than work for nothing.
    let _end = application.read_to_end(&mut Vec::new()).await;
    let mut answer = Vec::new();
    let _end = client.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{answer:?}");
    assert_well(&world).await;
}

#[tokio::test]
async fn what_an_application_says_before_a_hundred_continue_or_instead_of_it_arrives() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
                      HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let mut stream = world.connect("http/1.1").await;
    let request = head(
        &world,
        "POST",
        "Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "no").await;
    assert!(answer.contains("HTTP/1.1 417 "), "{answer}");
    drop(stream);
    assert_well(&world).await;
}

#[tokio::test]
async fn a_gibibyte_goes_up_and_comes_down_through_little_memory() {
    let world = World::start().await;
    world.application(8080, count).await;
    world
        .application(8081, |_| async { Response::new(gibibyte()) })
        .await;
    for (client, prefix) in [(1, ""), (2, "https://one.vm.localhost")] {
        let up = Request::post(format!("{prefix}/"))
            .header("host", ENDPOINT)
            .header("x-aws-proxy-auth", world.token())
            .body(gibibyte())
            .unwrap();
        let down = Request::get(format!("{prefix}/"))
            .header("host", ENDPOINT)
            .header("x-aws-proxy-auth", world.token())
            .header("x-aws-proxy-port", "8081")
            .body(empty())
            .unwrap();
        let (up, down) = if client == 1 {
            let mut sender = world.h1().await;
            (
                sender.send_request(up).await.unwrap(),
                sender.send_request(down).await,
            )
        } else {
            let mut sender = world.h2().await;
            (
                sender.send_request(up).await.unwrap(),
                sender.send_request(down).await,
            )
        };
        assert_eq!(text(up).await, GIB.to_string());
        let mut body = down.unwrap().into_body();
        let mut got = 0;
        while let Some(frame) = body.frame().await {
            got += frame.unwrap().data_ref().map_or(0, Bytes::len) as u64;
        }
        assert_eq!(got, GIB);
    }
    let peak = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 700 * 1024, "nothing is buffered whole: {peak_kib} KiB");
    assert_well(&world).await;
}

fn gibibyte() -> Body {
    let piece = Bytes::from(vec![b'g'; 1 << 18]);
    let pieces = (0..GIB >> 18).map(move |_| Ok(Frame::data(piece.clone())));
    BodyExt::boxed(StreamBody::new(futures::stream::iter(pieces)))
}

#[tokio::test]
async fn ten_thousand_frames_pass_each_way_through_an_upgraded_connection_at_once() {
    const FRAMES: usize = 10_000;
    /// A text frame of seven bytes, as a client masks it with zeros.
    fn frames(masked: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..FRAMES {
            bytes.extend_from_slice(if masked {
                &[0x81, 0x87, 0, 0, 0, 0]
            } else {
                &[0x81, 0x07]
            });
            bytes.extend_from_slice(format!("{number:07}").as_bytes());
        }
        bytes
    }
    async fn exchange<S: tokio::io::AsyncRead + tokio::io::AsyncWrite>(
        stream: S,
        say: Vec<u8>,
        hear: Vec<u8>,
    ) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let speak = async {
            for piece in say.chunks(13) {
                writer.write_all(piece).await.unwrap();
            }
            writer.flush().await.unwrap();
        };
        let listen = async {
            let mut got = vec![0; hear.len()];
            reader.read_exact(&mut got).await.unwrap();
            assert!(got == hear, "every frame in its place");
        };
        tokio::join!(speak, listen);
    }
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let application = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        exchange(stream, frames(false), frames(true)).await;
    });
    let mut client = world.connect("http/1.1").await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client
        .write_all(head(&world, "GET", upgrade).as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
    exchange(client, frames(true), frames(false)).await;
    application.await.unwrap();
    assert_well(&world).await;
}

#[tokio::test]
async fn clients_that_vanish_at_any_moment_leave_nothing_behind() {
    let world = World::start().await;
    world.application(8080, count).await;
    world
        .application(8081, |_| async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Response::new(empty())
        })
        .await;
    let request = head(
        &world,
        "POST",
        "X-aws-proxy-port: 8081\r\nContent-Length: 100\r\n\r\nsome",
    );
    let upload = head(&world, "POST", "Content-Length: 100\r\n\r\nsome");
    for cut in (0..request.len()).step_by(29).chain([request.len()]) {
        let mut client = world.connect("http/1.1").await;
        client.write_all(&request.as_bytes()[..cut]).await.unwrap();
        client.flush().await.unwrap();
        reset(client.into_inner().0);
    }
    for _ in 0..50 {
        let mut client = world.connect("http/1.1").await;
        client.write_all(upload.as_bytes()).await.unwrap();
        reset(client.into_inner().0);
        let mut client = TcpStream::connect(world.address).await.unwrap();
        client.write_all(&[22, 3, 1, 0]).await.unwrap();
        reset(client);
    }
    assert_well(&world).await;
}

/// Goes without a word: a reset, as from a machine that was unplugged.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}
