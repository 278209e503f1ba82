//! Commands: `/hearth/v1/exec`, an extension of ours (docs/openapi-endpoint.yaml).
//!
//! The client's first message says what to run. Then binary messages carry bytes of the standard streams, each behind
//! one byte that names the stream, and text messages carry everything else as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use hearth_agent_protocol::{Exec, ExecInput, ExitStatus, Output, TerminalSize};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::agent;
use super::session::{Dialect, End, carry, stdin};
use super::websocket::{Sink, Socket, close};
use crate::meter::Meter;

/// Longest wait for the first message.
const START_TIMEOUT: Duration = Duration::from_secs(30);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// Signals by name, as Linux numbers them on every machine that guests have.
const SIGNALS: [(&str, i32); 14] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ABRT", 6),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("WINCH", 28),
];
const MAX_SIGNAL: i32 = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    argv: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    cwd: String,
    #[serde(default)]
    user: String,
    tty: Option<Size>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Size {
    cols: u16,
    rows: u16,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Control {
    Resize { cols: u16, rows: u16 },
    Signal { signal: SignalName },
    StdinEnd,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SignalName {
    Number(i32),
    Name(String),
}

pub(super) async fn run(socket: Socket, meter: &Meter) {
    let (mut sink, mut stream) = socket.split();
    let first = loop {
        match timeout(START_TIMEOUT, stream.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => break text,
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(Some(Ok(Message::Binary(_)))) | Err(_) => {
                return close(
                    sink,
                    stream,
                    CloseCode::Policy,
                    "the first message names the command",
                )
                .await;
            }
            Ok(Some(_) | None) => return,
        }
    };
    meter.up_in_turn(first.len()).await;
    let started = match command(&first) {
        Ok(command) => agent::start(&*meter.passage, command).await,
        Err(cause) => Err(cause),
    };
    let agent = match started {
        Ok(agent) => agent,
        Err(cause) => {
            let error = json!({ "type": "error", "message": cause });
            if say(&mut sink, error).await {
                close(sink, stream, CloseCode::Policy, "the command does not run").await;
            }
            return;
        }
    };
    if !say(&mut sink, json!({ "type": "started" })).await {
        return;
    }
    match carry(&mut sink, &mut stream, agent, meter, &Streams).await {
        End::Exited(status) => {
            let mut exit = json!({ "type": "exit", "code": status.code() });
            if let ExitStatus::Signal(signal) = status {
                exit["signal"] = signal.into();
            }
            if say(&mut sink, exit).await {
                close(sink, stream, CloseCode::Normal, "exited").await;
            }
        }
        End::Confused(cause) => close(sink, stream, CloseCode::Policy, cause).await,
        End::GuestGone => close(sink, stream, CloseCode::Away, "the guest has gone").await,
        End::ClientGone => {}
    }
}

async fn say(sink: &mut Sink, message: serde_json::Value) -> bool {
    sink.send(Message::text(message.to_string())).await.is_ok()
}

fn command(first: &str) -> Result<Exec, String> {
    let start: Start =
        serde_json::from_str(first).map_err(|error| format!("the first message is not valid: {error}"))?;
    let mut env: Vec<String> = Vec::new();
    if start.tty.is_some() && !start.env.contains_key("TERM") {
        env.push("TERM=xterm".into());
    }
    for (name, value) in start.env {
        if name.is_empty() || name.contains('=') {
            return Err(format!("{name:?} is no name of a variable"));
        }
        env.push(format!("{name}={value}"));
    }
    Ok(Exec {
        argv: start.argv,
        env,
        working_directory: start.cwd,
        user: start.user,
        terminal: start.tty.map(|size| TerminalSize {
            columns: size.cols,
            rows: size.rows,
        }),
    })
}

struct Streams;

impl Dialect for Streams {
    fn input(&self, message: Message) -> Result<Vec<ExecInput>, &'static str> {
        match message {
            Message::Binary(bytes) => match bytes.split_first() {
                Some((&STDIN, bytes)) => Ok(stdin(bytes)),
                _ => Err("a binary message begins with 0, for standard input"),
            },
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(Control::Resize { cols, rows }) => {
                    Ok(vec![ExecInput::Resize(TerminalSize { columns: cols, rows })])
                }
                Ok(Control::Signal { signal }) => {
                    let number = number(&signal).ok_or("no such signal")?;
                    Ok(vec![ExecInput::Signal(number)])
                }
                Ok(Control::StdinEnd) => Ok(vec![ExecInput::StdinEnd]),
                Err(_) => Err("a text message is resize, signal or stdin_end"),
            },
            _ => Ok(Vec::new()),
        }
    }

    fn output(&self, output: Output) -> Message {
        let (stream, bytes) = match output {
            Output::Stdout(bytes) => (STDOUT, bytes),
            Output::Stderr(bytes) => (STDERR, bytes),
            Output::Exited(_) => (STDOUT, Vec::new()),
        };
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(stream);
        message.extend_from_slice(&bytes);
        Message::binary(message)
    }
}

fn number(signal: &SignalName) -> Option<i32> {
    match signal {
        SignalName::Number(number) => (1..=MAX_SIGNAL).contains(number).then_some(*number),
        SignalName::Name(name) => {
            let name = name.strip_prefix("SIG").unwrap_or(name);
            let found = SIGNALS.iter().find(|(known, _)| *known == name);
            found.map(|(_, number)| *number)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_message_names_a_command() {
        let exec = command(
            r#"{"argv":["ls","-l"],"env":{"A":"1=2"},"cwd":"/x","user":"app","tty":{"cols":80,"rows":24}}"#,
        )
        .expect("a command");
        assert_eq!(exec.argv, ["ls", "-l"]);
        assert_eq!(exec.env, ["TERM=xterm", "A=1=2"]);
        assert_eq!(
            (exec.working_directory.as_str(), exec.user.as_str()),
            ("/x", "app")
        );
        let size = TerminalSize {
            columns: 80,
            rows: 24,
        };
        assert_eq!(exec.terminal, Some(size));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"argv":"ls"}"#,
            r#"{"argv":["ls"],"shell":true}"#,
            r#"{"argv":["ls"],"env":{"A=B":"1"}}"#,
            r#"{"argv":["ls"],"tty":true}"#,
        ] {
            assert!(command(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn input_signals_and_sizes_are_told_apart() {
        let text = |text: &str| Streams.input(Message::text(text));
        let binary = |bytes: &[u8]| Streams.input(Message::binary(bytes.to_vec()));
        assert_eq!(binary(b"\0abc"), Ok(vec![ExecInput::Stdin(b"abc".into())]));
        assert_eq!(binary(b"\0"), Ok(vec![]));
        assert_eq!(text(r#"{"type":"stdin_end"}"#), Ok(vec![ExecInput::StdinEnd]));
        for signal in ["\"TERM\"", "\"SIGTERM\"", "15"] {
            let message = format!(r#"{{"type":"signal","signal":{signal}}}"#);
            assert_eq!(text(&message), Ok(vec![ExecInput::Signal(15)]));
        }
        for bad in [
            r#"{"type":"signal","signal":0}"#,
            r#"{"type":"signal","signal":"X"}"#,
            "ls",
        ] {
            assert!(text(bad).is_err(), "{bad}");
        }
        assert!(binary(b"\x01abc").is_err() && binary(b"").is_err());
    }

    proptest! {
        #[test]
        fn hostile_messages_never_panic(text in ".{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = command(&text);
            let _ = Streams.input(Message::text(text));
            let _ = Streams.input(Message::binary(bytes));
        }
    }
}
