//! Hostile HTTP/2, frame by frame (RFC 9113): what would be another request in HTTP/1.1, and floods. Each ends its own
//! stream or connection, reaches no application and leaves nothing behind.

use std::sync::atomic::Ordering::SeqCst;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::torture::assert_well;
use crate::world::{ENDPOINT, World, inspect};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block whose fields are all literals (RFC 7541, section 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fn text(block: &mut Vec<u8>, text: &str) {
        let mut length = text.len();
        if length < 127 {
            block.push(length as u8);
        } else {
            block.push(127);
            length -= 127;
            while length >= 128 {
                block.push((length % 128) as u8 | 128);
                length /= 128;
            }
            block.push(length as u8);
        }
        block.extend(text.as_bytes());
    }
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

struct Frames(TlsStream<TcpStream>);

impl Frames {
    async fn connect(world: &World) -> Frames {
        let mut stream = world.connect("h2").await;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Frames(stream)
    }

    /// Whether the gateway still listens.
    async fn say(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok() && self.0.flush().await.is_ok()
    }

    /// The next frame that is not about settings or windows: kind, stream and payload; none when the gateway has closed.
    async fn hear(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            if matches!(head[3], DATA | HEADERS | RST_STREAM | GOAWAY) {
                return Some((head[3], stream, payload));
            }
        }
    }

    /// Reads until the gateway closes or says goodbye.
    async fn until_closed(&mut self) {
        while let Some((kind, ..)) = self.hear().await {
            if kind == GOAWAY {
                return;
            }
        }
    }
}

#[tokio::test]
async fn what_would_be_another_request_in_http1_is_refused_in_http2() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let token = world.token();
    let good: Vec<(&str, &str)> = vec![
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", ENDPOINT),
        ("x-aws-proxy-auth", &token),
    ];
    let with = |field: (&'static str, &'static str)| [good.clone(), vec![field]].concat();
    let without = |name: &str| -> Vec<(&str, &str)> {
        let others = good.iter().filter(|(other, _)| *other != name);
        others.copied().collect()
    };
    let instead = |name: &'static str, value: &'static str| -> Vec<(&str, &str)> {
        let fields = good.iter();
        fields
            .map(|(other, kept)| (*other, if *other == name { value } else { kept }))
            .collect()
    };
    for fields in [
        with(("transfer-encoding", "chunked")),
        with(("connection", "keep-alive")),
        with(("content-length", "7")),
        with(("content-length", "-1")),
        with(("x-split", "a\r\nx-smuggled: b")),
        with(("x-split", "a\nGET /smuggled HTTP/1.1")),
        with(("x-zero", "a\0b")),
        with(("X-Upper", "a")),
        with(("x bad", "a")),
        with(("x-bad:", "a")),
        with((":path", "/other")),
        with((":status", "200")),
        instead(":path", "/ HTTP/1.1\r\nx-smuggled: b\r\n\r\nGET /smuggled"),
        instead(":path", "relative"),
        instead(":path", ""),
        instead(":method", "GET / HTTP/1.1\r\n\r\nGET"),
        instead(":authority", "one.vm.localhost\r\nx-smuggled: b"),
        without(":method"),
        without(":path"),
        [vec![("x-first", "a")], good.clone()].concat(),
    ] {
        let mut client = Frames::connect(&world).await;
        let request = frame(HEADERS, END_HEADERS, 1, &block(&fields));
        let body = frame(DATA, END_STREAM, 1, b"GET /smuggled HTTP/1.1\r\n\r\n");
        client.say(&[request, body].concat()).await;
        match client.hear().await {
            None | Some((RST_STREAM, 1, _) | (GOAWAY, ..)) => {}
            // An answer of the gateway's own: HPACK's `:status` 400 is in its static table.
            Some((HEADERS, 1, payload)) => assert_eq!(payload[0], 0x80 | 12, "{fields:?}: {payload:?}"),
            other => panic!("{fields:?}: {other:?}"),
        }
    }
    // None of them was sent on with anything but what it was; the ones that were begun were given up.
    assert_well(&world).await;
}

#[tokio::test]
async fn a_good_request_made_by_hand_is_served() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    let mut client = Frames::connect(&world).await;
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/by-hand"),
        (":authority", ENDPOINT),
        ("x-aws-proxy-auth", &world.token()),
    ];
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields));
    assert!(client.say(&request).await);
    let (kind, stream, payload) = client.hear().await.unwrap();
    assert_eq!(
        (kind, stream, payload[0]),
        (HEADERS, 1, 0x80 | 8),
        "HPACK's `:status` 200"
    );
    let (kind, _, body) = client.hear().await.unwrap();
    assert_eq!(kind, DATA);
    assert!(body.starts_with(b"GET /by-hand HTTP/1.1\n"), "{body:?}");
    drop(client);
    assert_well(&world).await;
}

#[tokio::test]
async fn a_header_without_an_end_is_cut_off_and_wakes_nothing() {
    let world = World::start().await;
    let mut client = Frames::connect(&world).await;
    let piece = block(&[("x-endless", &"y".repeat(8000))]);
    assert!(
        client
            .say(&frame(HEADERS, 0, 1, &block(&[(":method", "GET")])))
            .await
    );
    // A hundred times what a header may have.
    let mut sent = 0;
    while sent < 100 * 64 * 1024 && client.say(&frame(CONTINUATION, 0, 1, &piece)).await {
        sent += piece.len();
    }
    client.until_closed().await;
    assert_eq!(world.machine.entered.load(SeqCst), 0);
    drop(client);
    assert_well(&world).await;
}

#[tokio::test]
async fn floods_of_resets_and_pings_end_their_own_connection_and_no_other() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    let token = world.token();
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", ENDPOINT),
        ("x-aws-proxy-auth", &token),
    ];
    // Every request is taken back as soon as it is made.
    let mut client = Frames::connect(&world).await;
    for number in 0..20_000 {
        let stream = 2 * number + 1;
        let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields));
        let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        if !client.say(&[request, reset].concat()).await {
            break;
        }
    }
    client.until_closed().await;
    drop(client);

    // Answers are asked for and never read.
    let mut client = Frames::connect(&world).await;
    let pings: Vec<u8> = frame(PING, 0, 0, &[0; 8]).repeat(1000);
    let settings: Vec<u8> = frame(SETTINGS, 0, 0, &[]).repeat(1000);
    for _ in 0..20 {
        let more = [pings.as_slice(), settings.as_slice()].concat();
        let saying = tokio::time::timeout(std::time::Duration::from_secs(2), client.say(&more)).await;
        // Either closed, or made to wait: nothing piles up.
        if !matches!(saying, Ok(true)) {
            break;
        }
    }
    drop(client);
    drop(listener);
    assert_well(&world).await;
}

#[tokio::test]
async fn an_acknowledgement_of_nothing_and_unknown_frames_harm_nobody() {
    let world = World::start().await;
    for nonsense in [
        frame(SETTINGS, ACK, 0, &[]),
        frame(SETTINGS, ACK, 0, b"more"),
        frame(DATA, 0, 1, b"of no stream"),
        frame(HEADERS, END_HEADERS, 2, &block(&[(":method", "GET")])),
        frame(HEADERS, END_HEADERS, 1, &[0xff; 64]),
        frame(CONTINUATION, END_HEADERS, 1, &[]),
        frame(200, 0xff, 77, b"unknown"),
        frame(8, 0, 0, &[0; 4]),
        frame(8, 0, 0, &0x7fff_ffffu32.to_be_bytes()),
        vec![0xff; 4096],
    ] {
        let mut client = Frames::connect(&world).await;
        client.say(&nonsense).await;
        client.0.shutdown().await.ok();
        client.until_closed().await;
    }
    assert_eq!(world.machine.entered.load(SeqCst), 0);
    assert_well(&world).await;
}
