//! A service on loopback that answers what a test tells it to, over TLS with a CA of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};

/// The name of the one endpoint of a MicroVM that the certificate covers.
pub const ENDPOINT: &str = "vm.example";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// Header lines, names in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    /// Method and path without the query.
    pub fn line(&self) -> String {
        format!(
            "{} {}",
            self.method,
            self.path.split('?').next().unwrap_or_default()
        )
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Status and body of an answer.
pub type Answer = (u16, String);

pub struct Fake {
    /// A data directory with the `client.json` of this service.
    pub data: tempfile::TempDir,
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    pub fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let names = vec!["127.0.0.1".to_owned(), ENDPOINT.to_owned()];
        let certified = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        let ca = data.path().join("ca.pem");
        fs::write(&ca, certified.cert.pem()).expect("written");
        let client = json!({
            "endpointUrl": format!("https://{address}"), "region": "us-east-1", "accessKeyId": "AKIDTEST",
            "secretAccessKey": "it's secret", "caBundle": ca, "ca": ca, "gateway": address.to_string(),
        });
        fs::write(data.path().join("client.json"), client.to_string()).expect("written");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, config, log) = (Arc::new(answer), Arc::new(config), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, config, log) = (answer.clone(), config.clone(), log.clone());
                // A client that goes away is a client's business; what it sent is in the log.
                std::thread::spawn(move || serve(stream, config, &log, &*answer));
            }
        });
        Self { data, address, seen }
    }

    /// Has a listener for operators beside it, which answers every question with this.
    pub fn with_admin(self, answer: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let file = self.data.path().join("client.json");
        let text = fs::read_to_string(&file).expect("written before");
        let mut client: Value = serde_json::from_str(&text).expect("JSON");
        client["admin"] = listener.local_addr().expect("an address").to_string().into();
        fs::write(&file, client.to_string()).expect("written");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _the_client_went_away = tell(stream, &answer.to_string());
            }
        });
        self
    }

    /// Runs `hearth` on this service's data directory, with nothing else in its environment.
    pub fn hearth(&self, line: &[&str]) -> Output {
        hearth(Path::new(env!("CARGO_BIN_EXE_hearth")), self.data.path(), line)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

pub fn hearth(program: &Path, data: &Path, line: &[&str]) -> Output {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
        .env("HEARTH_DATA", data)
        .args(line)
        .output()
        .expect("hearth runs")
}

pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn tell(stream: TcpStream, body: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line)?;
    }
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}");
    stream
        .get_mut()
        .write_all(format!("{head}\r\n\r\n{body}").as_bytes())
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    log: &Mutex<Vec<Seen>>,
    answer: &dyn Fn(&Seen) -> Answer,
) -> Option<()> {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config).ok()?, stream));
    let mut first = String::new();
    stream.read_line(&mut first).ok()?;
    let mut head = String::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.trim().split_once(": ")?;
        head.push_str(&format!("{}: {value}\n", name.to_lowercase()));
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut seen = Seen {
        method,
        path,
        head,
        body: Vec::new(),
    };
    let length = seen
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    seen.body.resize(length, 0);
    stream.read_exact(&mut seen.body).ok()?;
    let (status, body) = answer(&seen);
    let body = if seen.method == "HEAD" {
        String::new()
    } else {
        body
    };
    log.lock().expect("not poisoned").push(seen);
    let length = body.len();
    let stream = stream.get_mut();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n"
    )
    .ok()?;
    if let Some(kind) = serde_json::from_str::<Value>(&body)
        .ok()
        .and_then(|v| v["fakeType"].as_str().map(str::to_owned))
    {
        write!(stream, "x-amzn-errortype: {kind}\r\n").ok()?;
    }
    write!(stream, "\r\n{body}").ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}
