//! Calls to the application's lifecycle hooks (spec section 13.2): one POST, one answer, before a deadline.
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use hearth_agent_protocol::{HookCall, HookOutcome};

use crate::loopback;

const PATH: &str = "/aws/lambda-microvms/runtime/v1/";
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
/// An answer is over after this much of its body: nobody reads it.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Makes the call.
pub fn call(call: &HookCall) -> HookOutcome {
    if call.name.is_empty() || !call.name.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return HookOutcome::Failed("hook name is not a word of lowercase letters".into());
    }
    let deadline = Instant::now() + Duration::from_millis(call.timeout_ms);
    match exchange(call, deadline) {
        Ok(status) => HookOutcome::Status(status),
        Err(Fault::Io(error))
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
        {
            HookOutcome::TimedOut
        }
        Err(Fault::Io(error)) => HookOutcome::Failed(error.to_string()),
        Err(Fault::NoHttp(why)) => HookOutcome::Failed(format!("the answer is not HTTP: {why}")),
    }
}

enum Fault {
    Io(io::Error),
    NoHttp(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

fn exchange(call: &HookCall, deadline: Instant) -> Result<u16, Fault> {
    let mut stream = connect(call, deadline)?;
    let mut request = format!(
        "POST {PATH}{} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\nContent-Length: {}\r\n",
        call.name,
        call.port,
        call.body.len()
    );
    if !call.body.is_empty() {
        request.push_str("Content-Type: application/json\r\n");
    }
    request.push_str("\r\n");
    request.push_str(&call.body);
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    read_status(&mut stream, deadline)
}

fn connect(call: &HookCall, deadline: Instant) -> io::Result<TcpStream> {
    loop {
        match loopback::connect(call.port, left(deadline)?) {
            Err(error) if call.retry_connect && error.kind() == io::ErrorKind::ConnectionRefused => {
                thread::sleep(left(deadline)?.min(RETRY_INTERVAL));
            }
            other => return other,
        }
    }
}

/// Reads the whole answer, since a hook has done its work only when it has said all it has to say.
fn read_status(stream: &mut TcpStream, deadline: Instant) -> Result<u16, Fault> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let mut head = None;
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // What was said before the connection broke still counts.
            Err(error) if head.is_some() && error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other?,
        };
        answer.extend_from_slice(&buffer[..count]);
        if head.is_none() {
            head = Head::parse(&answer)?;
        }
        match &head {
            Some(head) if count == 0 || head.body_is_complete(&answer) => return Ok(head.status),
            None if count == 0 => return Err(Fault::NoHttp("the connection ended inside it".into())),
            _ => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Where the body starts.
    length: usize,
    content_length: Option<usize>,
    chunked: bool,
}

impl Head {
    /// The head of the final answer, after any interim ones (1xx); `None` while it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<Head>, Fault> {
        let mut start = 0;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response
                .parse(&bytes[start..])
                .map_err(|error| Fault::NoHttp(error.to_string()))?;
            let httparse::Status::Complete(length) = parsed else {
                if bytes.len() > MAX_HEAD_BYTES {
                    return Err(Fault::NoHttp(format!("its head is over {MAX_HEAD_BYTES} bytes")));
                }
                return Ok(None);
            };
            start += length;
            if start > MAX_HEAD_BYTES {
                return Err(Fault::NoHttp(format!("its head is over {MAX_HEAD_BYTES} bytes")));
            }
            let status = response.code.unwrap_or_default();
            if (100..200).contains(&status) {
                continue;
            }
            let value = |name: &str| {
                let header = response
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case(name))?;
                std::str::from_utf8(header.value).ok().map(str::trim)
            };
            return Ok(Some(Head {
                status,
                length: start,
                content_length: if status == 204 || status == 304 {
                    Some(0)
                } else {
                    value("content-length").and_then(|length| length.parse().ok())
                },
                chunked: value("transfer-encoding")
                    .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")),
            }));
        }
    }

    /// Whether nothing more needs to be waited for. Most servers close the connection, as they were asked to; this is
    /// for those that do not.
    fn body_is_complete(&self, answer: &[u8]) -> bool {
        let body = &answer[self.length..];
        body.len() >= MAX_BODY_BYTES
            || if self.chunked {
                body == b"0\r\n\r\n" || body.ends_with(b"\r\n0\r\n\r\n")
            } else {
                self.content_length.is_some_and(|length| body.len() >= length)
            }
    }
}

/// Time left, never zero (which sockets take for "no limit").
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

#[cfg(test)]
mod tests;
