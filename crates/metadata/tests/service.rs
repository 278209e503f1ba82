//! The service as a guest sees it, friendly or not.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use hearth_metadata::{
    ApiAccess, CredentialIssuer, Credentials, IssueError, Lease, Listeners, Metadata, Serving, Subject,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A guest's first question.
const ASK_FOR_TOKEN: &str =
    "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";

struct Issuer;

#[async_trait]
impl CredentialIssuer for Issuer {
    async fn issue(&self, role: &str, session: &str, life: Duration) -> Result<Credentials, IssueError> {
        Ok(Credentials {
            access_key_id: "ASIA".into(),
            secret_access_key: format!("{role} {session}").into(),
            session_token: "session".into(),
            expires_at: SystemTime::now() + life,
        })
    }
}

struct World {
    metadata: SocketAddr,
    api: SocketAddr,
    _serving: Serving,
}

#[derive(Default)]
struct Held(Mutex<Duration>);

impl Lease for Held {
    fn take(&self, time: Duration) {
        *self.0.lock().expect("whole") = time;
    }

    fn left(&self) -> Duration {
        *self.0.lock().expect("whole")
    }
}

async fn world(role: Option<&str>) -> World {
    world_with(role, None).await
}

/// A guest's service, with an API that greets.
async fn world_with(role: Option<&str>, lease: Option<Arc<dyn Lease>>) -> World {
    let listen = || async { TcpListener::bind("127.0.0.1:0").await.expect("binds") };
    let (metadata, api, control) = (listen().await, listen().await, listen().await);
    let address = |listener: &TcpListener| listener.local_addr().expect("an address");
    let access = ApiAccess {
        address: address(&control),
        url: "https://169.254.169.253".into(),
        ca_pem: "PEM".into(),
    };
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = control.accept().await {
            let _ = stream.write_all(b"the API").await;
        }
    });
    let subject = Subject {
        id: "microvm-1".into(),
        region: "us-east-1".into(),
        role_arn: role.map(str::to_owned),
    };
    let (at, api_at) = (address(&metadata), address(&api));
    let listeners = Listeners {
        metadata,
        api: Some(api),
    };
    World {
        metadata: at,
        api: api_at,
        _serving: Metadata::new(&[7; 32], Arc::new(Issuer), access).serve(listeners, subject, lease),
    }
}

/// What comes back for these bytes, until the service closes the connection.
async fn exchange(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = Vec::new();
    // A reset after the answer is an end, too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a response").1
}

async fn get(world: &World, path: &str) -> String {
    let token = exchange(world.metadata, ASK_FOR_TOKEN).await;
    assert!(token.starts_with("HTTP/1.1 200"), "{token}");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token: {}\r\n\r\n",
        body(&token)
    );
    exchange(world.metadata, &request).await
}

#[tokio::test]
async fn credentials_are_the_roles_and_named_after_the_microvm() {
    let world = world(Some("arn:role")).await;
    let answer = get(
        &world,
        "/latest/meta-data/iam/security-credentials/execution_role",
    )
    .await;
    let document: serde_json::Value = serde_json::from_str(body(&answer)).expect("JSON");
    assert_eq!(document["SecretAccessKey"], "arn:role microvm-1");
    assert_eq!(document["Token"], "session");
    assert_eq!(
        body(&get(&world, "/latest/meta-data/iam/").await),
        "security-credentials/"
    );
}

#[tokio::test]
async fn a_lease_is_taken_renewed_and_given_back_with_a_token_only() {
    let held = Arc::new(Held::default());
    let world = world_with(None, Some(held.clone())).await;
    let token = exchange(world.metadata, ASK_FOR_TOKEN).await;
    let token = format!("X-aws-ec2-metadata-token: {}\r\n", body(&token));
    let put = async |headers: &str| {
        let path = "/latest/meta-data/hearth/lease";
        let request = format!("PUT {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        exchange(world.metadata, &request).await
    };
    assert!(
        put("X-hearth-lease-seconds: 60\r\n")
            .await
            .starts_with("HTTP/1.1 401")
    );
    for wrong in [
        "",
        "X-hearth-lease-seconds: 28801\r\n",
        "X-hearth-lease-seconds: -1\r\n",
    ] {
        assert!(
            put(&format!("{token}{wrong}")).await.starts_with("HTTP/1.1 400"),
            "{wrong}"
        );
    }
    assert_eq!(held.left(), Duration::ZERO);
    for seconds in [60, 28_800, 0] {
        let answer = put(&format!("{token}X-hearth-lease-seconds: {seconds}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(held.left(), Duration::from_secs(seconds));
        let told = get(&world, "/latest/meta-data/hearth/lease").await;
        assert_eq!(body(&told), seconds.to_string());
    }
}

#[tokio::test]
async fn where_leases_do_not_count_there_is_none() {
    let world = world(None).await;
    let path = "/latest/meta-data/hearth/lease";
    assert!(get(&world, path).await.starts_with("HTTP/1.1 404"));
    let put = format!("PUT {path} HTTP/1.1\r\nHost: x\r\nX-hearth-lease-seconds: 60\r\n\r\n");
    assert!(exchange(world.metadata, &put).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn nothing_is_told_without_a_token_of_ones_own() {
    let world = world(Some("arn:role")).await;
    let path = "/latest/meta-data/iam/security-credentials/execution_role";
    let answer = exchange(world.metadata, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 401") && body(&answer).starts_with("No MMDS token provided"));
    for (request, status) in [
        (format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token: AAAA\r\n\r\n"), 401),
        ("PUT /latest/api/token HTTP/1.1\r\nHost: x\r\n\r\n".into(), 400),
        ("PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 21601\r\n\r\n".into(), 400),
        (
            "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\n\
             X-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n"
                .into(),
            403,
        ),
        ("PUT /latest/meta-data/ HTTP/1.1\r\nHost: x\r\n\r\n".into(), 404),
        ("DELETE /latest HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
    ] {
        let answer = exchange(world.metadata, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
}

#[tokio::test]
async fn the_apis_are_there_for_a_guest_with_a_role_alone() {
    assert_eq!(exchange(world(Some("arn:role")).await.api, "").await, "the API");
    let without = world(None).await;
    let refused = TcpStream::connect(without.api).await;
    assert_eq!(
        refused.map(drop).map_err(|error| error.kind()),
        Err(std::io::ErrorKind::ConnectionRefused)
    );
    assert!(
        get(&without, "/latest/meta-data/hearth/endpoint")
            .await
            .starts_with("HTTP/1.1 404")
    );
}

#[tokio::test]
async fn a_guest_that_floods_or_babbles_costs_little_and_blocks_itself_alone() {
    let world = world(None).await;
    let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    assert!(!exchange(world.metadata, &huge).await.contains("200 OK"));
    assert!(
        !exchange(world.metadata, "\0\0\0\r\n\r\n")
            .await
            .contains("200 OK")
    );
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(world.metadata).await.expect("connects"));
    }
    // More than there is room for: the last ones are closed without a word.
    let mut last = idle.pop().expect("a connection");
    assert_eq!(last.read(&mut [0; 1]).await.expect("closed"), 0);
    drop(idle);
    let answer = get_when_there_is_room(&world).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_guest_that_asks_without_end_is_slowed_down_and_still_answered() {
    let world = world(None).await;
    let start = Instant::now();
    // 100 at once, then 25 a second.
    for _ in 0..112 {
        let answer = exchange(world.metadata, ASK_FOR_TOKEN).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(
        start.elapsed() > Duration::from_millis(450),
        "{:?}",
        start.elapsed()
    );
}

/// Asks until the connections that were closed have been noticed.
async fn get_when_there_is_room(world: &World) -> String {
    loop {
        let mut stream = TcpStream::connect(world.metadata).await.expect("connects");
        let _ = stream.write_all(ASK_FOR_TOKEN.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        if !answer.is_empty() {
            return String::from_utf8_lossy(&answer).into_owned();
        }
    }
}
