//! Conversations with the agent in the guest, whose every word is distrusted.

use std::io;
use std::time::Duration;

use hearth_agent_protocol::{Exec, Reply, Request, receive, send};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::gate::Passage;

/// Longest wait for a command to start or a file to be found: a cold guest under emulation reads both from disk.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest text of the guest that is passed on, in characters.
const MAX_TEXT: usize = 500;

/// Asks the agent for something; what follows is on the connection.
pub(super) async fn ask(passage: &dyn Passage, request: &Request) -> io::Result<TcpStream> {
    let mut agent = passage.connect_agent().await?;
    agent.set_nodelay(true)?;
    send(&mut agent, request).await.map_err(io::Error::other)?;
    Ok(agent)
}

/// The agent's first answer.
pub(super) async fn reply(agent: &mut TcpStream) -> io::Result<Reply> {
    let answer = timeout(START_TIMEOUT, receive(agent)).await?;
    answer
        .map_err(io::Error::other)?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Starts a command; the text says why it does not run.
pub(super) async fn start(passage: &dyn Passage, command: Exec) -> Result<TcpStream, String> {
    let started = async {
        let mut agent = ask(passage, &Request::Exec(command)).await?;
        let reply = reply(&mut agent).await?;
        io::Result::Ok((agent, reply))
    };
    match started.await {
        Ok((agent, Reply::Started)) => Ok(agent),
        Ok((_, Reply::Refused(why) | Reply::Failed(why))) => Err(one_line(&why)),
        Ok(_) => Err("the guest gave an answer that does not fit".into()),
        Err(error) => {
            tracing::debug!(%error, "the agent does not answer");
            Err("the guest does not answer".into())
        }
    }
}

/// A guest's words, fit for a client: one line, printable, bounded.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(MAX_TEXT)
        .collect()
}
