//! A gateway on loopback, two MicroVMs behind it, and clients.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use hearth_gateway::{
    Attachment, Endpoint, GateError, GatewayConfig, Limits, Metrics, MicroVms, Passage, ca::Authority, serve,
};
use hearth_token::{Claims, Grant, Keyring, PortRange};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

pub const DOMAIN: &str = "vm.localhost";
pub const ENDPOINT: &str = "one.vm.localhost";
pub const VM: &str = "microvm-one";

pub type Body = BoxBody<Bytes, io::Error>;

/// A MicroVM that is nothing but ports.
#[derive(Default)]
pub struct Machine {
    pub shut: Mutex<Option<GateError>>,
    pub ports: Mutex<HashMap<u16, SocketAddr>>,
    pub generation: AtomicU64,
    pub ended: Mutex<CancellationToken>,
    pub entered: AtomicUsize,
    pub dialled: AtomicUsize,
    pub touched: AtomicUsize,
    pub pending: AtomicI64,
    pub attached: AtomicI64,
    /// Bytes to and from the application.
    pub moved: Mutex<(u64, u64)>,
    pub limits: Mutex<Limits>,
    /// Ports that need no token.
    pub public: Mutex<Vec<u16>>,
}

impl Machine {
    /// What a suspend and a resume look like from the gateway.
    pub fn suspend_and_resume(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        std::mem::take(&mut *self.ended.lock().unwrap()).cancel();
    }
}

pub struct Machines(HashMap<&'static str, (&'static str, Arc<Machine>)>);

struct Way {
    machine: Arc<Machine>,
    generation: u64,
    ended: CancellationToken,
}

#[async_trait]
impl MicroVms for Machines {
    fn find(&self, endpoint_id: &str) -> Option<Endpoint> {
        self.0.get(endpoint_id).map(|(id, machine)| Endpoint {
            microvm_id: (*id).to_owned(),
            limits: *machine.limits.lock().unwrap(),
        })
    }

    fn public_port(&self, endpoint_id: &str, asked: Option<u16>) -> Option<u16> {
        let (_, machine) = self.0.get(endpoint_id)?;
        let public = machine.public.lock().unwrap();
        let port = asked.or(public.first().copied())?;
        public.contains(&port).then_some(port)
    }

    async fn enter(&self, microvm_id: &str) -> Result<Box<dyn Passage>, GateError> {
        let (_, machine) = self.0.values().find(|(id, _)| *id == microvm_id).unwrap();
        machine.entered.fetch_add(1, Ordering::SeqCst);
        match *machine.shut.lock().unwrap() {
            Some(error) => Err(error),
            None => Ok(Box::new(Way {
                machine: machine.clone(),
                generation: machine.generation.load(Ordering::SeqCst),
                ended: machine.ended.lock().unwrap().clone(),
            })),
        }
    }

    async fn enter_shell(&self, microvm_id: &str) -> Result<Box<dyn Passage>, GateError> {
        self.enter(microvm_id).await
    }
}

#[async_trait]
impl Passage for Way {
    fn generation(&self) -> u64 {
        self.generation
    }

    async fn dial(&self, port: u16) -> io::Result<TcpStream> {
        self.machine.dialled.fetch_add(1, Ordering::SeqCst);
        let address = self.machine.ports.lock().unwrap().get(&port).copied();
        TcpStream::connect(address.ok_or(io::ErrorKind::ConnectionRefused)?).await
    }

    /// Where the agent would be, a test may put one of its own: port 1.
    async fn connect_agent(&self) -> io::Result<TcpStream> {
        self.dial(hearth_agent_protocol::AGENT_PORT).await
    }

    async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn touch(&self) {
        self.machine.touched.fetch_add(1, Ordering::SeqCst);
    }

    fn moved(&self, to_application: u64, from_application: u64) {
        let mut moved = self.machine.moved.lock().unwrap();
        *moved = (moved.0 + to_application, moved.1 + from_application);
    }

    fn request_began(&self) {
        self.machine.pending.fetch_add(1, Ordering::SeqCst);
    }

    fn request_ended(&self) {
        self.machine.pending.fetch_sub(1, Ordering::SeqCst);
    }

    fn attached(&self, _what: Attachment) {
        self.machine.attached.fetch_add(1, Ordering::SeqCst);
    }

    fn detached(&self, _what: Attachment) {
        self.machine.attached.fetch_sub(1, Ordering::SeqCst);
    }
}

pub struct World {
    pub address: SocketAddr,
    pub machine: Arc<Machine>,
    pub keyring: Arc<RwLock<Keyring>>,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    pub roots: Arc<RootCertStore>,
    pub ca_file: std::path::PathBuf,
    /// The gateway's alone, so that what it leaves behind can be counted.
    runtime: Option<Runtime>,
    _dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl World {
    /// A gateway before `one.vm.localhost` (microvm-one) and `two.vm.localhost` (microvm-two).
    pub async fn start() -> World {
        let mut config = GatewayConfig::new(DOMAIN);
        // Some clients here read until the gateway closes a connection that it might keep.
        config.request_header_timeout = Duration::from_secs(5);
        World::start_with(config).await
    }

    pub async fn start_with(config: GatewayConfig) -> World {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let names = [format!("*.{DOMAIN}"), "localhost".into(), "127.0.0.1".into()];
        let tls = authority.server_config(&names, &["h2", "http/1.1"]).unwrap();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap())
            .unwrap();

        let machine = Arc::new(Machine::default());
        let machines = [
            ("one", (VM, machine.clone())),
            ("two", ("microvm-two", Arc::default())),
        ];
        let keyring = Arc::new(RwLock::new(Keyring::generate()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _its_own = runtime.enter();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            TcpListener::from_std(listener).unwrap()
        };
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let metrics = Metrics::default();
        let machines = Arc::new(Machines(machines.into()));
        let serving = runtime.spawn(serve(
            vec![listener],
            tls,
            config,
            machines,
            keyring.clone(),
            metrics.clone(),
            shutdown.clone(),
        ));
        let ca_file = dir.path().join("ca.pem");
        World {
            address,
            machine,
            keyring,
            metrics,
            shutdown,
            serving,
            roots: Arc::new(roots),
            ca_file,
            runtime: Some(runtime),
            _dir: dir,
        }
    }

    /// A listener that the test itself answers, behind a port of microvm-one.
    pub async fn listen(&self, port: u16) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.machine
            .ports
            .lock()
            .unwrap()
            .insert(port, listener.local_addr().unwrap());
        listener
    }

    /// An application behind a port of microvm-one, speaking HTTP/1.1 and cleartext HTTP/2.
    pub async fn application<F, R>(&self, port: u16, answer: F)
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = self.listen(port).await;
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = answer.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let answering = answer(request);
                        async move { Ok::<_, Infallible>(answering.await) }
                    });
                    let _closed = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
    }

    pub fn mint(&self, microvm_id: &str, grant: Grant, lives: Duration) -> String {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let claims = Claims {
            microvm_id: microvm_id.into(),
            grant,
            expires_at_ms: now_ms + lives.as_millis() as u64,
        };
        self.keyring.read().unwrap().mint(&claims)
    }

    /// A token for every port of microvm-one.
    pub fn token(&self) -> String {
        self.mint(VM, Grant::Http(vec![PortRange::ALL]), Duration::from_secs(600))
    }

    pub async fn connect(&self, alpn: &str) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(ENDPOINT).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    pub async fn h1(&self) -> http1::SendRequest<Body> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.connect("http/1.1").await))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
    }

    pub async fn h2(&self) -> http2::SendRequest<Body> {
        let io = TokioIo::new(self.connect("h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Client connections that the gateway counts now, all of them.
    pub fn connections(&self) -> u64 {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut shown = String::new();
        prometheus_client::encoding::text::encode(&mut shown, &registry).unwrap();
        let line = shown
            .lines()
            .find_map(|line| line.strip_prefix("hearth_endpoint_clients "));
        line.unwrap().parse().unwrap()
    }

    /// Until the gateway has ended by itself.
    pub async fn served(&self) {
        until(|| self.serving.is_finished()).await;
    }

    /// Tasks of the gateway, whatever they are for.
    pub fn tasks(&self) -> usize {
        let runtime = self.runtime.as_ref().unwrap();
        runtime.metrics().num_alive_tasks()
    }

    /// A request to the endpoint of microvm-one with a token for all ports.
    pub fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", ENDPOINT)
            .header("x-aws-proxy-auth", self.token())
    }

    /// Sends raw bytes as one HTTP/1.1 connection and reads until the gateway closes it.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect("http/1.1").await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A close without notice is a close as well.
        let _end = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

pub fn empty() -> Body {
    full("")
}

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

pub fn passed(body: Incoming) -> Body {
    body.map_err(io::Error::other).boxed()
}

pub async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// What an application got, as text: the request line, then one line for each header.
pub async fn inspect(request: Request<Incoming>) -> Response<Body> {
    let mut lines = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        lines += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    Response::new(full(lines))
}

/// Reads from a stream until the text holds `end`.
pub async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains(end) {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(got).unwrap()
}

/// Waits until the condition holds; a test that waits in vain is ended by its runner.
pub async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
