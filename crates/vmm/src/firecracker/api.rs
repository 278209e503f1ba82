//! Firecracker's HTTP API: one connection a request, so that a later daemon goes on where this one stopped.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, body::Bytes, client::conn::http1, header::CONTENT_TYPE};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::command;
use crate::{
    driver::VmmError,
    log::Log,
    process::{Process, connect_when_there},
};

/// Longest answer that is read: the process may be broken.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// How long after its connections a process that ends may live.
const LAST_BREATH: Duration = Duration::from_millis(300);

/// The API of one process.
#[derive(Debug)]
pub(super) struct Api {
    /// The process's own directory.
    pub(super) directory: PathBuf,
    pub(super) process: Process,
    /// What it says, and its guest's console.
    pub(super) words: Log,
}

/// A request that was not answered as it should be.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is not what the API promises: {0}")]
    Answer(String),
    #[error("{0}")]
    Refused(String),
}

impl Api {
    /// Waits until the process answers.
    pub(super) async fn wait(&self) -> Result<(), VmmError> {
        self.call("GET /version", Method::GET, "/version", None)
            .await
            .map(drop)
    }

    /// Asks for something.
    pub(super) async fn get(&self, command: &'static str, path: &str) -> Result<Value, VmmError> {
        self.call(command, Method::GET, path, None).await
    }

    /// Makes or sets something.
    pub(super) async fn put(&self, command: &'static str, path: &str, body: Value) -> Result<(), VmmError> {
        self.call(command, Method::PUT, path, Some(body)).await.map(drop)
    }

    /// Changes something.
    pub(super) async fn patch(&self, command: &'static str, path: &str, body: Value) -> Result<(), VmmError> {
        self.call(command, Method::PATCH, path, Some(body))
            .await
            .map(drop)
    }

    async fn call(
        &self,
        name: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, VmmError> {
        let socket = self.directory.join(command::API_SOCKET);
        let answered = tokio::select! {
            // An answer counts although the process ends after it: it says why.
            biased;
            answered = request(&socket, method, path, body) => answered,
            () = self.process.ended() => return Err(self.ended()),
        };
        match answered {
            Ok(answer) => Ok(answer),
            Err(ApiError::Refused(cause)) => Err(VmmError::Refused { command: name, cause }),
            Err(error) => match tokio::time::timeout(LAST_BREATH, self.process.ended()).await {
                Ok(()) => Err(self.ended()),
                Err(_) => Err(VmmError::Io {
                    context: format!("asking the VMM to {name}"),
                    cause: std::io::Error::other(error),
                }),
            },
        }
    }

    fn ended(&self) -> VmmError {
        VmmError::Ended(self.words.tail())
    }
}

async fn request(socket: &Path, method: Method, path: &str, body: Option<Value>) -> Result<Value, ApiError> {
    let stream = connect_when_there(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| ApiError::Answer(error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body
            .map_err(|error| ApiError::Answer(error.to_string()))?
            .to_bytes();
        let value = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body).map_err(|error| ApiError::Answer(error.to_string()))?,
        };
        match status.is_success() {
            true => Ok(value),
            false => Err(ApiError::Refused(match value["fault_message"].as_str() {
                Some(cause) => cause.to_owned(),
                None => status.to_string(),
            })),
        }
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        closed = &mut connection => match closed {
            // The last answer may have come with the end.
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    use super::*;
    use crate::process::ProcessRecord;

    /// Answers one request with these bytes and returns what was asked.
    async fn exchange(
        answer: &str,
        call: impl AsyncFnOnce(&Api) -> Result<(), VmmError>,
    ) -> (String, Result<(), VmmError>) {
        let directory = tempfile::tempdir().expect("temp dir");
        let listener = UnixListener::bind(directory.path().join(command::API_SOCKET)).expect("bound");
        let record = ProcessRecord::of(std::process::id() as i32).expect("alive");
        let api = Api {
            words: Log::new().expect("a log"),
            directory: directory.path().to_owned(),
            process: Process::watch(record).expect("pidfd").expect("alive"),
        };
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("connected");
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.expect("read");
            stream.write_all(answer.as_bytes()).await.expect("written");
            asked.truncate(length);
            String::from_utf8(asked).expect("text")
        };
        tokio::join!(serve, call(&api))
    }

    #[tokio::test]
    async fn a_request_is_json_and_a_refusal_passes_its_words_on() {
        let body = r#"{"fault_message":"no such thing"}"#;
        let answer = format!("HTTP/1.1 400 \r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (asked, result) = exchange(&answer, async |api: &Api| {
            api.put("PUT /entropy", "/entropy", serde_json::json!({ "a": 1 }))
                .await
        })
        .await;
        assert!(
            asked.starts_with("PUT /entropy HTTP/1.1\r\n") && asked.ends_with(r#"{"a":1}"#),
            "{asked}"
        );
        let error = result.expect_err("refused").to_string();
        assert_eq!(error, "the VMM refused PUT /entropy: no such thing");
    }

    #[tokio::test]
    async fn an_empty_answer_is_a_success_and_nonsense_is_none() {
        let call = async |api: &Api| api.patch("PATCH /vm", "/vm", Value::Null).await;
        exchange("HTTP/1.1 204 \r\n\r\n", call).await.1.expect("done");
        for nonsense in [
            "HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\nabc",
            "hello\r\n\r\n",
            "",
        ] {
            exchange(nonsense, call).await.1.expect_err("no answer");
        }
    }

    #[tokio::test]
    async fn a_process_that_ends_before_it_answers_is_named_with_its_last_words() {
        let directory = tempfile::tempdir().expect("temp dir");
        let listener = UnixListener::bind(directory.path().join(command::API_SOCKET)).expect("bound");
        let words = Log::new().expect("a log");
        std::fs::File::from(words.writer().expect("a writer"))
            .write_all(b"the cause")
            .expect("written");
        let mut child = tokio::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep starts");
        let record = ProcessRecord::of(child.id().expect("alive") as i32).expect("alive");
        let api = Api {
            words,
            directory: directory.path().to_owned(),
            process: Process::watch(record).expect("pidfd").expect("alive"),
        };
        let die = async {
            let (stream, _) = listener.accept().await.expect("connected");
            drop(stream);
            child.start_kill().expect("ended");
        };
        let (_, result) = tokio::join!(die, api.get("GET /", "/"));
        assert_eq!(
            result.expect_err("no answer").to_string(),
            "the VMM process ended: the cause"
        );
    }
}
