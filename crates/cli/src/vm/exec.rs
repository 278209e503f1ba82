//! `hearth exec`: a command in a MicroVM.

use std::io;

use clap::Args;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::Message;

use crate::endpoint::{Endpoint, Socket, shell_token};
use crate::error::{Error, Result};
use crate::service::Service;
use crate::vm::id;
use crate::vm::terminal::{Raw, keyboard, show, size};

const STDIN: u8 = 0;
const STDERR: u8 = 2;
/// What a shell's exit code is for a command that cannot run.
const CANNOT_RUN: u8 = 126;

/// Runs a command.
#[derive(Args)]
pub(crate) struct Exec {
    /// Id of the MicroVM, or its beginning
    id: String,
    /// Give it a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// Do not pass on standard input
    #[arg(short = 'n', long)]
    no_stdin: bool,
    /// The user, `name`, `uid` or `user:group` [default: the application's]
    #[arg(
        short = 'u',
        long,
        value_name = "USER",
        default_value = "",
        hide_default_value = true
    )]
    user: String,
    /// The working directory [default: the application's]
    #[arg(
        short = 'w',
        long,
        value_name = "DIR",
        default_value = "",
        hide_default_value = true
    )]
    workdir: String,
    /// A variable, NAME=VALUE; may be repeated
    #[arg(short = 'e', long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    argv: Vec<String>,
}

fn variable(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is written NAME=VALUE".to_owned()),
    }
}

impl Exec {
    /// Runs the command; its exit code becomes this program's.
    pub(crate) async fn run(self, service: &Service) -> Result<()> {
        let id = id::resolve(service, &self.id).await?;
        let token = shell_token(service, &id).await?;
        let endpoint = Endpoint::of(service, &id).await?;
        let mut socket = endpoint.websocket("/hearth/v1/exec", &token).await?;
        let start = Message::text(self.start().to_string());
        socket.send(start).await.map_err(|_| lost())?;
        let first = control(&mut socket).await?;
        if first["type"] != "started" {
            let cause = first["message"].as_str().unwrap_or("the guest gave no reason");
            eprintln!("hearth: {cause}");
            return Err(Error::Exit(CANNOT_RUN));
        }
        let _raw = if self.tty { Raw::enter()? } else { None };
        let (sink, stream) = socket.split();
        let code = tokio::select! {
            code = down(stream) => code?,
            broken = up(sink, self.no_stdin) => return Err(broken.err().unwrap_or_else(lost)),
        };
        if code == 0 { Ok(()) } else { Err(Error::Exit(code)) }
    }

    fn start(&self) -> Value {
        let env: Map<String, Value> = self
            .env
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().into()))
            .collect();
        let mut start = json!({ "argv": self.argv, "env": env, "cwd": self.workdir, "user": self.user });
        if self.tty {
            let (cols, rows) = size().unwrap_or_default();
            start["tty"] = json!({ "cols": cols, "rows": rows });
        }
        start
    }
}

/// The next message that is text.
async fn control(socket: &mut Socket) -> Result<Value> {
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            return Ok(serde_json::from_str(&text).unwrap_or_default());
        }
    }
    Err(lost())
}

async fn down(mut stream: SplitStream<Socket>) -> Result<u8> {
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Binary(bytes) => match bytes.split_first() {
                Some((&STDERR, bytes)) => show(io::stderr(), bytes)?,
                Some((_, bytes)) => show(io::stdout(), bytes)?,
                None => {}
            },
            Message::Text(text) => {
                let said: Value = serde_json::from_str(&text).unwrap_or_default();
                if said["type"] == "exit" {
                    return Ok(said["code"].as_i64().unwrap_or_default() as u8);
                }
            }
            _ => {}
        }
    }
    Err(lost())
}

/// Input, signals and sizes, for as long as the command runs.
async fn up(mut sink: SplitSink<Socket, Message>, no_stdin: bool) -> Result<()> {
    let listen = |kind| signal(kind).map_err(Error::file("signals"));
    let mut resized = listen(SignalKind::window_change())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let say = |value: Value| Some(Message::text(value.to_string()));
    let kill = |name: &str| say(json!({ "type": "signal", "signal": name }));
    let mut keys = if no_stdin {
        tokio::sync::mpsc::channel(1).1
    } else {
        keyboard()
    };
    let mut more = true;
    loop {
        let message = tokio::select! {
            key = keys.recv(), if more => match key {
                Some(mut bytes) => {
                    bytes.insert(0, STDIN);
                    Some(Message::binary(bytes))
                }
                None => {
                    more = false;
                    say(json!({ "type": "stdin_end" }))
                }
            },
            _ = resized.recv() => size().and_then(|(cols, rows)| {
                say(json!({ "type": "resize", "cols": cols, "rows": rows }))
            }),
            _ = interrupt.recv() => kill("INT"),
            _ = terminate.recv() => kill("TERM"),
            _ = hang_up.recv() => kill("HUP"),
        };
        if let Some(message) = message
            && sink.send(message).await.is_err()
        {
            // The other direction has the last word.
            return std::future::pending().await;
        }
    }
}

fn lost() -> Error {
    Error::failed(
        "the connection was cut: the MicroVM was suspended or has ended, and the command with it",
        "See with `hearth ps`",
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        exec: Exec,
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let parsed =
            |line: &str| Line::try_parse_from(format!("exec {line}").split(' ')).map(|line| line.exec);
        for line in ["-t 1a -- ls -l -t", "1a -t ls -l -t", "1a -t -- ls -l -t"] {
            let exec = parsed(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(exec.tty && exec.id == "1a", "{line}");
            assert_eq!(exec.argv, ["ls", "-l", "-t"], "{line}");
        }
        let exec = parsed("-e A=1=2 -u app 1a -- -odd").expect("parses");
        assert_eq!(exec.argv, ["-odd"]);
        assert_eq!(exec.env, [("A".to_owned(), "1=2".to_owned())]);
        for bad in ["1a", "1a --", "-e A 1a ls"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
