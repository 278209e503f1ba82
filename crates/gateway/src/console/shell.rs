//! The shell of spec section 21.

use futures::{SinkExt, StreamExt};
use hearth_agent_protocol::{Exec, ExecInput, Output, TerminalSize};
use serde::Deserialize;
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use uuid::Uuid;

use super::agent;
use super::session::{Dialect, End, carry, stdin};
use super::websocket::{Socket, close};
use crate::meter::Meter;

/// bash where the image has it, else what it calls `sh`; neither reads a start-up file that would change the prompt.
const SHELL: &str = "if command -v bash >/dev/null 2>&1; then exec bash --norc; else exec sh -i; fi";
const PROMPT: &str = "PS1=λ $ ";

pub(super) async fn run(socket: Socket, meter: &Meter) {
    let (mut sink, mut stream) = socket.split();
    let command = Exec {
        argv: ["/bin/sh", "-c", SHELL].map(str::to_owned).into(),
        env: vec!["TERM=xterm".into(), PROMPT.into()],
        working_directory: String::new(),
        user: "root".into(),
        terminal: Some(TerminalSize::default()),
    };
    let agent = match agent::start(&*meter.passage, command).await {
        Ok(agent) => agent,
        Err(reason) => {
            let error = json!({ "type": "session_error", "reason": reason, "error": reason });
            if sink.send(Message::text(error.to_string())).await.is_ok() {
                close(sink, stream, CloseCode::Error, "shell is not ready").await;
            }
            return;
        }
    };
    let init = json!({ "type": "session_init", "session_id": Uuid::new_v4().to_string() });
    if sink.send(Message::text(init.to_string())).await.is_err() {
        return;
    }
    match carry(&mut sink, &mut stream, agent, meter, &Terminal).await {
        End::Exited(_) => close(sink, stream, CloseCode::Normal, "shell exited").await,
        End::GuestGone => close(sink, stream, CloseCode::Away, "the guest has gone").await,
        End::ClientGone | End::Confused(_) => {}
    }
}

struct Terminal;

/// The one message that is not typed into the terminal.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Control {
    Resize { cols: u16, rows: u16 },
}

impl Dialect for Terminal {
    fn input(&self, message: Message) -> Result<Vec<ExecInput>, &'static str> {
        if let Message::Text(text) = &message
            && let Ok(Control::Resize { cols, rows }) = serde_json::from_str(text)
        {
            let size = TerminalSize { columns: cols, rows };
            return Ok(vec![ExecInput::Resize(size)]);
        }
        Ok(stdin(&message.into_data()))
    }

    fn output(&self, output: Output) -> Message {
        match output {
            Output::Stdout(bytes) | Output::Stderr(bytes) => Message::binary(bytes),
            Output::Exited(_) => Message::binary(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_resize_is_not_typed() {
        let input = |text: &str| Terminal.input(Message::text(text)).expect("takes everything");
        let size = TerminalSize {
            columns: 120,
            rows: 40,
        };
        assert_eq!(
            input(r#"{"type":"resize","cols":120,"rows":40}"#),
            [ExecInput::Resize(size)]
        );
        for text in [
            "ls\n",
            r#"{"type":"unknown"}"#,
            r#"{"type":"resize","cols":-1,"rows":40}"#,
            r#"{"type":"resize"}"#,
            "{",
        ] {
            assert_eq!(input(text), [ExecInput::Stdin(text.into())], "{text}");
        }
    }
}
