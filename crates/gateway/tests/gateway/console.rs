//! Shells, commands and files, with the test as the agent in the guest.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use hearth_agent_protocol::{
    AGENT_PORT, ExecInput, ExitStatus, FileAction, FileChunk, FileFailure, FileInfo, FileKind, Output, Reply,
    Request, TerminalSize, receive, send,
};
use hearth_token::Grant;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::world::{Body, ENDPOINT, VM, World, empty, full, until};

type Socket = WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>;

fn shell_token(world: &World) -> String {
    world.mint(VM, Grant::Shell, Duration::from_secs(60))
}

async fn websocket(world: &World, path: &str, token: &str) -> Result<Socket, Error> {
    let mut request = format!("wss://{ENDPOINT}{path}").into_client_request()?;
    let token = token.parse().expect("a header value");
    request.headers_mut().insert("x-aws-proxy-auth", token);
    Ok(client_async(request, world.connect("http/1.1").await).await?.0)
}

/// The next thing asked of the agent.
async fn asked(agent: &TcpListener) -> (Request, TcpStream) {
    let (mut stream, _) = agent.accept().await.unwrap();
    let request = receive(&mut stream).await.unwrap().unwrap();
    (request, stream)
}

async fn try_files(
    world: &World,
    method: &str,
    query: &str,
    body: Body,
) -> hyper::Result<hyper::Response<hyper::body::Incoming>> {
    let io = TokioIo::new(world.connect("http/1.1").await);
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method(method)
        .uri(format!("/hearth/v1/files?{query}"))
        .header("host", ENDPOINT)
        .header("x-aws-proxy-auth", shell_token(world))
        .body(body)
        .unwrap();
    sender.send_request(request).await
}

async fn files(
    world: &World,
    method: &str,
    query: &str,
    body: Body,
) -> hyper::Response<hyper::body::Incoming> {
    try_files(world, method, query, body).await.unwrap()
}

fn file(bytes: u64) -> FileInfo {
    FileInfo {
        name: "f".into(),
        kind: FileKind::File,
        bytes,
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified_ns: 0,
        target: None,
    }
}

#[tokio::test]
async fn a_shell_speaks_the_services_protocol() {
    let world = World::start().await;
    let agent = world.listen(AGENT_PORT).await;
    let mut client = websocket(&world, "/any/path", &shell_token(&world))
        .await
        .unwrap();
    let (request, mut guest) = asked(&agent).await;
    let Request::Exec(command) = request else {
        panic!("{request:?}")
    };
    assert_eq!(command.terminal, Some(TerminalSize::default()));
    assert!(command.user == "root" && command.env.contains(&"TERM=xterm".into()));
    send(&mut guest, &Reply::Started).await.unwrap();
    let first = client.next().await.unwrap().unwrap();
    assert!(
        first.to_text().unwrap().starts_with(r#"{"session_id":""#)
            && first.to_text().unwrap().contains(r#""type":"session_init""#),
        "{first}"
    );

    client.send(Message::binary(b"ls\n".to_vec())).await.unwrap();
    assert_eq!(
        receive(&mut guest).await.unwrap(),
        Some(ExecInput::Stdin(b"ls\n".into()))
    );
    let resize = r#"{"type":"resize","cols":7,"rows":9}"#;
    client.send(Message::text(resize)).await.unwrap();
    let size = TerminalSize { columns: 7, rows: 9 };
    assert_eq!(receive(&mut guest).await.unwrap(), Some(ExecInput::Resize(size)));
    client.send(Message::Ping("x".into())).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong("x".into()));
    send(&mut guest, &Output::Stdout(vec![0, 255])).await.unwrap();
    assert_eq!(
        client.next().await.unwrap().unwrap(),
        Message::binary(vec![0, 255])
    );
    send(&mut guest, &Output::Exited(ExitStatus::Code(3)))
        .await
        .unwrap();
    let Message::Close(Some(close)) = client.next().await.unwrap().unwrap() else {
        panic!("no close")
    };
    assert_eq!(
        (u16::from(close.code), close.reason.as_str()),
        (1000, "shell exited")
    );
    assert!(world.machine.touched.load(std::sync::atomic::Ordering::SeqCst) >= 4);
}

#[tokio::test]
async fn a_shell_that_cannot_start_says_so_and_a_suspend_cuts_one_that_runs() {
    let world = World::start().await;
    let agent = world.listen(AGENT_PORT).await;
    let mut client = websocket(&world, "/", &shell_token(&world)).await.unwrap();
    let (_, mut guest) = asked(&agent).await;
    send(&mut guest, &Reply::Refused("no\nshell".into()))
        .await
        .unwrap();
    let first = client.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(
        first.contains(r#""type":"session_error""#) && first.contains("no shell"),
        "{first}"
    );

    let mut client = websocket(&world, "/", &shell_token(&world)).await.unwrap();
    let (_, mut guest) = asked(&agent).await;
    send(&mut guest, &Reply::Started).await.unwrap();
    client.next().await.unwrap().unwrap();
    world.machine.suspend_and_resume();
    assert!(client.next().await.is_none_or(|message| message.is_err()));
    assert_eq!(receive::<ExecInput>(&mut guest).await.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_conversation_with_the_agent() {
    let world = World::start().await;
    let agent = world.listen(AGENT_PORT).await;
    let mut client = websocket(&world, "/hearth/v1/exec", &shell_token(&world))
        .await
        .unwrap();
    client
        .send(Message::text(r#"{"argv":["sleep","9"]}"#))
        .await
        .unwrap();
    let (request, mut guest) = asked(&agent).await;
    assert!(matches!(request, Request::Exec(command) if command.argv == ["sleep", "9"]));
    send(&mut guest, &Reply::Started).await.unwrap();
    assert_eq!(
        client.next().await.unwrap().unwrap(),
        Message::text(r#"{"type":"started"}"#)
    );
    drop(client);
    assert_eq!(receive::<ExecInput>(&mut guest).await.unwrap(), None);
}

#[tokio::test]
async fn what_leads_nowhere_does_not_reach_the_gate() {
    let world = World::start().await;
    let get = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: {ENDPOINT}\r\nx-aws-proxy-auth: {}\r\nconnection: close\r\n\r\n",
            shell_token(&world)
        )
    };
    assert!(world.raw(&get("/")).await.starts_with("HTTP/1.1 502"));
    assert!(
        world
            .raw(&get("/hearth/v1/exec"))
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert!(
        world
            .raw(&get("/hearth/v1/filesystem"))
            .await
            .starts_with("HTTP/1.1 502")
    );
    assert_eq!(world.machine.entered.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_token_for_ports_opens_no_shell() {
    let world = World::start().await;
    let agent = world.listen(AGENT_PORT).await;
    world.application(8080, crate::world::inspect).await;
    let refused = websocket(&world, "/hearth/v1/exec", &world.token()).await;
    assert!(matches!(refused, Err(Error::Http(response)) if response.status() == 200));
    let nobody = tokio::time::timeout(Duration::from_millis(50), agent.accept()).await;
    assert!(nobody.is_err());
}

#[tokio::test]
async fn files_stream_both_ways() {
    let world = World::start().await;
    let agent = world.listen(AGENT_PORT).await;
    let content = vec![7; 3_000_000];
    let upload = files(&world, "PUT", "path=/f&mode=600", full(content.clone()));
    let guest = async {
        let (request, mut guest) = asked(&agent).await;
        assert!(matches!(request, Request::Files(request) if matches!(request.action, FileAction::Write(_))));
        let mut bytes = Vec::new();
        while let Some(FileChunk::Data(piece)) = receive(&mut guest).await.unwrap() {
            bytes.extend(piece);
        }
        send(&mut guest, &Reply::File(file(bytes.len() as u64)))
            .await
            .unwrap();
        bytes
    };
    let (response, received) = tokio::join!(upload, guest);
    assert_eq!((response.status().as_u16(), received == content), (200, true));

    // What the guest sends beyond or short of what it said never looks whole.
    for sent in [2, 3, 4] {
        let download = try_files(&world, "GET", "path=/f", empty());
        let guest = async {
            let (_, mut guest) = asked(&agent).await;
            send(&mut guest, &Reply::File(file(3))).await.unwrap();
            send(&mut guest, &FileChunk::Data(vec![1; sent])).await.unwrap();
            send(&mut guest, &FileChunk::End).await.unwrap();
        };
        let (response, ()) = tokio::join!(download, guest);
        // What breaks at once may break before the header is out.
        let whole = match response {
            Ok(response) => response.into_body().collect().await.is_ok(),
            Err(_) => false,
        };
        assert_eq!(whole, sent == 3, "{sent}");
    }
}

#[tokio::test]
async fn a_refused_upload_is_answered_before_it_has_been_sent() {
    let world = World::start().await;
    let agent = world.listen(AGENT_PORT).await;
    let endless = futures::stream::repeat_with(|| Ok(hyper::body::Frame::data(vec![0; 65536].into())));
    let body = http_body_util::StreamBody::new(endless);
    let upload = files(&world, "PUT", "path=/f", BodyExt::boxed(body));
    let guest = async {
        let (_, mut guest) = asked(&agent).await;
        let failure = FileFailure {
            errno: 28,
            cause: "no space\nleft".into(),
        };
        send(&mut guest, &Reply::FileRefused(failure)).await.unwrap();
        // As the agent does: reads on until the host has gone.
        while receive::<FileChunk>(&mut guest)
            .await
            .is_ok_and(|chunk| chunk.is_some())
        {}
    };
    let (response, ()) = tokio::join!(upload, guest);
    assert_eq!(response.status().as_u16(), 507);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, r#"{"message":"no space left"}"#);
}

#[tokio::test]
async fn queries_that_make_no_sense_do_not_reach_the_guest() {
    let world = World::start().await;
    for (method, query, status) in [
        ("GET", "", 400),
        ("GET", "path=/f&format=zip", 400),
        ("GET", "path=/f&color=red", 400),
        ("PUT", "path=/f&mode=8", 400),
        ("PUT", "path=/f&format=list", 400),
        ("POST", "path=/f", 405),
    ] {
        let response = files(&world, method, query, empty()).await;
        assert_eq!(response.status().as_u16(), status, "{method} {query}");
    }
    assert_eq!(world.machine.dialled.load(std::sync::atomic::Ordering::SeqCst), 0);
    until(|| world.machine.pending.load(std::sync::atomic::Ordering::SeqCst) == 0).await;
}
