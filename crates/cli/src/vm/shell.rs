//! `hearth shell`: a shell in a MicroVM.

use std::io;

use clap::Args;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::Message;

use crate::endpoint::{Endpoint, Socket, shell_token};
use crate::error::{Error, Result};
use crate::service::Service;
use crate::vm::id;
use crate::vm::terminal::{Raw, keyboard, show, size};

/// What a terminal takes for the end of input.
const END_OF_FILE: &[u8] = b"\x04";

/// Opens a shell.
#[derive(Args)]
pub(crate) struct Shell {
    /// Id of the MicroVM, or its beginning
    id: String,
}

impl Shell {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service) -> Result<()> {
        let id = id::resolve(service, &self.id).await?;
        let token = shell_token(service, &id).await?;
        let mut socket = Endpoint::of(service, &id)
            .await?
            .websocket("/shell", &token)
            .await?;
        greet(&mut socket).await?;
        let _raw = Raw::enter()?;
        carry(socket).await
    }
}

/// Waits for the first message, which says whether there is a shell.
async fn greet(socket: &mut Socket) -> Result<()> {
    while let Some(message) = socket.next().await {
        match message {
            Ok(Message::Text(text)) => {
                let first: Value = serde_json::from_str(&text).unwrap_or_default();
                if first["type"] == "session_init" {
                    return Ok(());
                }
                let reason = first["reason"].as_str().unwrap_or("the guest gave no reason");
                return Err(Error::failed(format!("there is no shell: {reason}"), ""));
            }
            Ok(_) => {}
            Err(error) => return Err(Error::Transport(error.to_string())),
        }
    }
    Err(lost())
}

async fn carry(socket: Socket) -> Result<()> {
    let (mut sink, mut stream) = socket.split();
    let mut keys = keyboard();
    let mut resized = signal(SignalKind::window_change()).map_err(Error::file("signals"))?;
    let up = async {
        if let Some(message) = resize() {
            sink.send(message).await?;
        }
        let mut more = true;
        loop {
            let message = tokio::select! {
                key = keys.recv(), if more => match key {
                    Some(bytes) => Some(Message::binary(bytes)),
                    None => {
                        more = false;
                        Some(Message::binary(END_OF_FILE))
                    }
                },
                _ = resized.recv() => resize(),
            };
            if let Some(message) = message {
                sink.send(message).await?;
            }
        }
    };
    let down = async {
        while let Some(message) = stream.next().await {
            match message {
                Ok(Message::Binary(bytes)) => show(io::stdout(), &bytes)?,
                Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1000 => return Ok(()),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Err(lost())
    };
    tokio::select! {
        ended = down => ended,
        broken = up => {
            let broken: std::result::Result<(), tokio_tungstenite::tungstenite::Error> = broken;
            broken.map_err(|_| lost())
        }
    }
}

fn resize() -> Option<Message> {
    let (cols, rows) = size()?;
    let message = json!({ "type": "resize", "cols": cols, "rows": rows });
    Some(Message::text(message.to_string()))
}

fn lost() -> Error {
    Error::failed(
        "the connection was cut: the MicroVM was suspended or has ended",
        "See with `hearth ps`",
    )
}
