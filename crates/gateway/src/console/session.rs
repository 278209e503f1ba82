//! A running command between a WebSocket and the agent.

use futures::{SinkExt, StreamExt};
use hearth_agent_protocol::{ExecInput, ExitStatus, Output, receive, send};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::websocket::{Sink, Stream};
use crate::meter::Meter;

/// Most bytes of input in one frame to the agent.
const MAX_INPUT_BYTES: usize = 64 * 1024;

/// How a service's messages and the agent's frames correspond.
pub(super) trait Dialect {
    /// What a client's text or binary message means; an error ends the session with its text.
    fn input(&self, message: Message) -> Result<Vec<ExecInput>, &'static str>;
    /// What the command's output looks like.
    fn output(&self, output: Output) -> Message;
}

/// How a session ended.
pub(super) enum End {
    /// The command ended.
    Exited(ExitStatus),
    /// The client left, or broke off.
    ClientGone,
    /// The client said something that makes no sense.
    Confused(&'static str),
    /// The guest broke off.
    GuestGone,
}

/// Carries bytes both ways, each direction at its own pace, until the command or the client is done. Dropping the
/// agent's connection afterwards ends a command that still runs.
pub(super) async fn carry(
    sink: &mut Sink,
    stream: &mut Stream,
    agent: TcpStream,
    meter: &Meter,
    dialect: &impl Dialect,
) -> End {
    let (mut from_agent, mut to_agent) = agent.into_split();
    let up = async {
        while let Some(message) = stream.next().await {
            let message = match message {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => message,
                // Pings are answered below us; after a close comes the end.
                Ok(_) => continue,
                Err(_) => return End::ClientGone,
            };
            meter.up_in_turn(message.len()).await;
            let inputs = match dialect.input(message) {
                Ok(inputs) => inputs,
                Err(cause) => return End::Confused(cause),
            };
            for input in inputs {
                if send(&mut to_agent, &input).await.is_err() {
                    // The command may have ended meanwhile, which the other direction tells.
                    return std::future::pending().await;
                }
            }
        }
        End::ClientGone
    };
    let down = async {
        loop {
            match receive(&mut from_agent).await {
                Ok(Some(Output::Exited(status))) => return End::Exited(status),
                Ok(Some(output)) => {
                    let message = dialect.output(output);
                    meter.down_in_turn(message.len()).await;
                    if sink.send(message).await.is_err() {
                        return End::ClientGone;
                    }
                }
                Ok(None) | Err(_) => return End::GuestGone,
            }
        }
    };
    tokio::select! {
        end = up => end,
        end = down => end,
    }
}

/// Standard input, in pieces that fit into frames.
pub(super) fn stdin(bytes: &[u8]) -> Vec<ExecInput> {
    let pieces = bytes.chunks(MAX_INPUT_BYTES);
    pieces.map(|piece| ExecInput::Stdin(piece.to_vec())).collect()
}
