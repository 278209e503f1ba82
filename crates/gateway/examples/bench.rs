//! The gateway before a static responder, for `bench/gateway.py`: prints one JSON line that says how to reach both, and serves
//! until its standard input ends.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use hearth_gateway::ca::Authority;
use hearth_gateway::{
    Attachment, Endpoint, GateError, GatewayConfig, Limits, Metrics, MicroVms, Passage, serve,
};
use hearth_token::{Claims, Grant, Keyring, PortRange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const LARGE: usize = 1 << 20;

#[derive(Clone)]
struct OneMicrovm(SocketAddr);

#[async_trait]
impl MicroVms for OneMicrovm {
    fn find(&self, endpoint_id: &str) -> Option<Endpoint> {
        (endpoint_id == "one").then(|| Endpoint {
            microvm_id: "microvm-one".into(),
            limits: Limits::default(),
        })
    }

    fn public_port(&self, _: &str, _: Option<u16>) -> Option<u16> {
        None
    }

    async fn enter(&self, _microvm_id: &str) -> Result<Box<dyn Passage>, GateError> {
        Ok(Box::new(self.clone()))
    }

    async fn enter_shell(&self, _microvm_id: &str) -> Result<Box<dyn Passage>, GateError> {
        Err(GateError::Closed)
    }
}

#[async_trait]
impl Passage for OneMicrovm {
    fn generation(&self) -> u64 {
        1
    }

    async fn dial(&self, _port: u16) -> io::Result<TcpStream> {
        TcpStream::connect(self.0).await
    }

    async fn connect_agent(&self) -> io::Result<TcpStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn ended(&self) {
        std::future::pending().await
    }

    fn touch(&self) {}
    fn request_began(&self) {}
    fn request_ended(&self) {}
    fn attached(&self, _what: Attachment) {}
    fn detached(&self, _what: Attachment) {}
}

/// Answers every request on a connection: a few bytes, or a mebibyte at `/large`.
async fn respond(mut stream: TcpStream) -> io::Result<()> {
    let answer = |body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let (small, large) = (answer(b"hello"), answer(&vec![b'x'; LARGE]));
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    loop {
        while let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            let is_large = request.starts_with(b"GET /large ");
            request.drain(..end + 4);
            stream.write_all(if is_large { &large } else { &small }).await?;
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
}

/// The responder has threads of its own, as it has beside nginx.
fn start_responder() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(respond(stream));
            }
        });
    });
    address
}

#[tokio::main]
async fn main() {
    let responds_at = start_responder();

    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(directory.path()).unwrap();
    let tls = authority
        .server_config(&["*.vm.localhost".into()], &["h2", "http/1.1"])
        .unwrap();
    let keyring = Keyring::generate();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let token = keyring.mint(&Claims {
        microvm_id: "microvm-one".into(),
        grant: Grant::Http(vec![PortRange::ALL]),
        expires_at_ms: (now + Duration::from_secs(3600)).as_millis() as u64,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = listener.local_addr().unwrap();
    let config = GatewayConfig {
        access_log: false,
        ..GatewayConfig::new("vm.localhost")
    };
    tokio::spawn(serve(
        vec![listener],
        tls,
        config,
        Arc::new(OneMicrovm(responds_at)),
        Arc::new(RwLock::new(keyring)),
        Metrics::default(),
        CancellationToken::new(),
    ));
    println!(r#"{{"gateway": "{gateway}", "responder": "{responds_at}", "token": "{token}"}}"#);
    let _end = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
}
