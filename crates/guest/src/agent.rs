//! Requests to the agent. Everything it answers is bounded in size and time and checked against the question.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant, SystemTime},
};

use hearth_agent_protocol::{
    AGENT_PORT, Application, Exec, ExecInput, ExitStatus, FrameError, Freeze, GUEST_ADDRESS, HookCall,
    HookOutcome, Output, PROTOCOL_VERSION, Reply, Request, Thaw, receive, send,
};
use hearth_network::Slot;
use tokio::{
    net::{TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    time::timeout,
};

use crate::GuestError;

/// Longest wait for an answer that takes the agent no time of its own.
const PROMPT: Duration = Duration::from_secs(20);
/// Longest wait until the application stands still or goes on.
const FREEZE_OR_THAW: Duration = Duration::from_secs(60);
/// A guest whose clock may be later than this is told the time again, so often at most.
const TIMELY: Duration = Duration::from_millis(250);
const TOLD_AGAIN: usize = 3;
/// Longest wait for one connection of a guest that is still booting, before the next is tried.
const BOOT_ATTEMPT: Duration = Duration::from_millis(250);

/// Speaks to the agent of one guest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    slot: Slot,
}

impl Agent {
    pub(crate) fn new(slot: Slot) -> Agent {
        Agent { slot }
    }

    /// Waits until a booting agent answers and speaks our protocol; returns the guest's kernel release.
    pub async fn await_boot(&self, longest: Duration) -> Result<String, GuestError> {
        let attempts = async {
            loop {
                // A guest without a driver for its card loses the first packet: a new connection beats TCP's own patience.
                match timeout(BOOT_ATTEMPT, self.connect()).await {
                    Ok(Ok(stream)) => return self.hello(stream).await,
                    Ok(Err(_)) => tokio::time::sleep(BOOT_ATTEMPT / 5).await,
                    Err(_) => {}
                }
            }
        };
        timeout(longest, attempts)
            .await
            .unwrap_or(Err(GuestError::TimedOut(longest.as_secs())))
    }

    async fn hello(&self, mut stream: TcpStream) -> Result<String, GuestError> {
        match exchange(&mut stream, &Request::Hello).await? {
            Reply::Hello {
                protocol: PROTOCOL_VERSION,
                kernel,
            } => Ok(kernel),
            Reply::Hello { protocol, .. } => Err(GuestError::Protocol {
                found: protocol,
                expected: PROTOCOL_VERSION,
            }),
            other => Err(unexpected(other)),
        }
    }

    /// Mounts the disks and starts the application.
    pub async fn start(&self, application: Application) -> Result<(), GuestError> {
        self.done(Request::Start(application), Duration::from_secs(120))
            .await
    }

    /// Makes the guest ready for a pause.
    pub async fn freeze(&self, freeze: Freeze) -> Result<(), GuestError> {
        self.done(Request::Freeze(freeze), FREEZE_OR_THAW).await
    }

    /// Wakes a guest whose clock stood still, with the time and entropy of this moment.
    pub async fn thaw(&self, close_connections: bool) -> Result<(), GuestError> {
        until_timely(|again| self.tell_time(close_connections && !again)).await
    }

    /// By how much the guest's clock may be late.
    async fn tell_time(&self, close_connections: bool) -> Result<Duration, GuestError> {
        let entropy = fresh_entropy().map_err(GuestError::io("reading /dev/urandom"))?;
        let mut said = None;
        let thaw = || {
            said = Some(Instant::now());
            Request::Thaw(Thaw {
                wall_clock_ns: wall_clock_ns(),
                entropy,
                close_connections,
            })
        };
        done(self.ask(thaw, FREEZE_OR_THAW).await?)?;
        Ok(said.map_or(Duration::ZERO, |said| said.elapsed()))
    }

    /// Calls a lifecycle hook. A guest that does not answer counts as a hook that timed out.
    pub async fn hook(&self, call: HookCall) -> Result<HookOutcome, GuestError> {
        let longest = Duration::from_millis(call.timeout_ms) + PROMPT;
        match self.ask(|| Request::Hook(call), longest).await {
            Ok(Reply::Hook(outcome)) => Ok(outcome),
            Ok(other) => Err(unexpected(other)),
            Err(GuestError::TimedOut(_)) => Ok(HookOutcome::TimedOut),
            Err(error) => Err(error),
        }
    }

    /// Waits until something in the guest listens.
    pub async fn await_listener(&self, longest: Duration) -> Result<bool, GuestError> {
        let timeout_ms = longest.as_millis() as u64;
        match self
            .ask(|| Request::AwaitListener { timeout_ms }, longest + PROMPT)
            .await?
        {
            Reply::Listening(listening) => Ok(listening),
            other => Err(unexpected(other)),
        }
    }

    /// A connection to 127.0.0.1:`port` in the guest.
    pub async fn forward(&self, port: u16) -> io::Result<TcpStream> {
        let attempt = async {
            let mut stream = self.connect().await?;
            match exchange(&mut stream, &Request::Forward { port }).await {
                Ok(Reply::Connected) => Ok(stream),
                Ok(Reply::Refused(_)) => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                Ok(_) => Err(io::Error::from(io::ErrorKind::InvalidData)),
                Err(error) => Err(io::Error::other(error)),
            }
        };
        timeout(PROMPT, attempt)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
    }

    /// The application's output from a position on.
    pub async fn output(&self, from: u64) -> Result<OutputStream, GuestError> {
        let open = async {
            let mut stream = self.connect().await.map_err(FrameError::from)?;
            send(&mut stream, &Request::Output { from }).await?;
            Ok::<_, GuestError>(OutputStream { stream })
        };
        timeout(PROMPT, open)
            .await
            .unwrap_or(Err(GuestError::TimedOut(PROMPT.as_secs())))
    }

    /// Runs a command in the application's container.
    pub async fn exec(&self, exec: Exec) -> Result<(ExecSink, OutputStreamHalf), GuestError> {
        let open = async {
            let mut stream = self.connect().await.map_err(FrameError::from)?;
            match exchange(&mut stream, &Request::Exec(exec)).await? {
                Reply::Started => {
                    let (read, write) = stream.into_split();
                    Ok((ExecSink { write }, OutputStreamHalf { read }))
                }
                other => Err(unexpected(other)),
            }
        };
        timeout(PROMPT, open)
            .await
            .unwrap_or(Err(GuestError::TimedOut(PROMPT.as_secs())))
    }

    async fn done(&self, request: Request, longest: Duration) -> Result<(), GuestError> {
        done(self.ask(|| request, longest).await?)
    }

    /// Asks what `request` gives once there is a connection.
    async fn ask(&self, request: impl FnOnce() -> Request, longest: Duration) -> Result<Reply, GuestError> {
        let exchange = async {
            let mut stream = self.connect().await.map_err(FrameError::from)?;
            Ok::<_, GuestError>(exchange(&mut stream, &request()).await?)
        };
        timeout(longest, exchange)
            .await
            .unwrap_or(Err(GuestError::TimedOut(longest.as_secs())))
    }

    /// A connection on which one [`Request`] may be made; its answer is the caller's to read, and to distrust.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        self.slot
            .connect(SocketAddrV4::new(Ipv4Addr::from(GUEST_ADDRESS), AGENT_PORT))
            .await
    }
}

/// What was long on its way may have brought an old time: it is told again. That fails no guest which has been told.
async fn until_timely<F>(mut tell: impl FnMut(bool) -> F) -> Result<(), GuestError>
where
    F: Future<Output = Result<Duration, GuestError>>,
{
    let mut late = tell(false).await?;
    for _ in 0..TOLD_AGAIN {
        if late <= TIMELY {
            break;
        }
        late = tell(true).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "a guest's clock may be late");
            Duration::ZERO
        });
    }
    Ok(())
}

/// The wall clock, nanoseconds since the epoch.
pub fn wall_clock_ns() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

fn fresh_entropy() -> io::Result<[u8; 32]> {
    let mut entropy = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut entropy)?;
    Ok(entropy)
}

fn done(reply: Reply) -> Result<(), GuestError> {
    match reply {
        Reply::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn unexpected(reply: Reply) -> GuestError {
    match reply {
        Reply::Failed(cause) | Reply::Refused(cause) => GuestError::Refused(one_line(&cause)),
        _ => GuestError::Confused,
    }
}

/// A guest's words, fit for a log: one line, printable, bounded.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect()
}

async fn exchange(stream: &mut TcpStream, request: &Request) -> Result<Reply, FrameError> {
    send(stream, request).await?;
    receive(stream)
        .await?
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

/// The output of an application or a command, as it comes.
#[derive(Debug)]
pub struct OutputStream {
    stream: TcpStream,
}

impl OutputStream {
    /// The next piece; `None` when the guest is gone.
    pub async fn next(&mut self) -> Result<Option<Output>, GuestError> {
        Ok(receive(&mut self.stream).await?)
    }
}

/// The output of a command.
#[derive(Debug)]
pub struct OutputStreamHalf {
    read: OwnedReadHalf,
}

impl OutputStreamHalf {
    /// The next piece; `None` when the guest is gone.
    pub async fn next(&mut self) -> Result<Option<Output>, GuestError> {
        Ok(receive(&mut self.read).await?)
    }

    /// Collects standard output up to `most` bytes (more is an error) and the exit status; standard error is dropped.
    pub async fn collect(&mut self, most: usize) -> Result<(Vec<u8>, ExitStatus), GuestError> {
        let mut collected = Vec::new();
        loop {
            match self.next().await?.ok_or(GuestError::Confused)? {
                Output::Stdout(bytes) if collected.len() + bytes.len() <= most => collected.extend(bytes),
                Output::Stdout(_) => return Err(GuestError::Confused),
                Output::Stderr(_) => {}
                Output::Exited(status) => return Ok((collected, status)),
            }
        }
    }
}

/// Drives a running command. Dropping it (with its output) ends the command.
#[derive(Debug)]
pub struct ExecSink {
    write: OwnedWriteHalf,
}

impl ExecSink {
    /// Sends one input.
    pub async fn send(&mut self, input: &ExecInput) -> Result<(), GuestError> {
        Ok(hearth_agent_protocol::send(&mut self.write, input).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it was said again, each time, with these answers.
    async fn told(answers: &[Result<u64, ()>]) -> (bool, Vec<bool>) {
        let (mut said, mut answers) = (Vec::new(), answers.iter());
        let outcome = until_timely(|again| {
            said.push(again);
            let answer = answers.next().expect("said too often");
            std::future::ready(
                answer
                    .map(Duration::from_millis)
                    .map_err(|()| GuestError::Confused),
            )
        })
        .await;
        (outcome.is_ok(), said)
    }

    #[tokio::test]
    async fn a_guest_that_was_told_late_is_told_again_a_few_times() {
        assert_eq!(told(&[Ok(20)]).await, (true, vec![false]));
        assert_eq!(told(&[Ok(1100), Ok(20)]).await, (true, vec![false, true]));
        assert_eq!(told(&[Ok(1100); 4]).await, (true, vec![false, true, true, true]));
        assert_eq!(told(&[Ok(1100), Err(())]).await, (true, vec![false, true]));
        assert_eq!(told(&[Err(())]).await, (false, vec![false]));
    }
}
