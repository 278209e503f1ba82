//! One command in the builder guest: its output to the log, its exit code to an error.

use hearth_agent_protocol::{Exec, Output};
use hearth_guest::Agent;
use hearth_logs::LogWriter;
use serde::Deserialize;

use crate::{BuildError, ContainerConfig};

/// Most bytes of a result that are read from the guest.
const MAX_RESULT_BYTES: usize = 512 << 10;
/// Most bytes of output that one build may log.
const MAX_LOG_BYTES: usize = 64 << 20;
/// Where the job scripts leave their result.
const RESULT: &str = "/run/hearth/result.json";

/// A command and its environment.
pub(crate) struct Job {
    pub argv: Vec<String>,
    pub env: Vec<String>,
}

/// How it ended.
pub(crate) enum Outcome {
    Done,
    Failed(BuildError),
}

impl Job {
    /// Runs the command to its end.
    pub(crate) async fn run(
        self,
        agent: &Agent,
        mut log: Option<&mut LogWriter>,
    ) -> Result<Outcome, BuildError> {
        let exec = Exec {
            argv: self.argv,
            env: self.env,
            working_directory: "/".into(),
            user: String::new(),
            terminal: None,
        };
        let (_sink, mut output) = agent.exec(exec).await?;
        let mut logged = 0;
        let mut last_line = LastLine::default();
        let status = loop {
            let Some(piece) = output.next().await? else {
                return Err(BuildError::Internal(
                    "the builder ended in the middle of a job".into(),
                ));
            };
            match piece {
                Output::Stdout(bytes) | Output::Stderr(bytes) if bytes.is_empty() => {}
                Output::Stdout(bytes) => note(&mut log, &mut logged, &bytes),
                Output::Stderr(bytes) => {
                    last_line.push(&bytes);
                    note(&mut log, &mut logged, &bytes);
                }
                Output::Exited(status) => break status,
            }
        };
        Ok(outcome(status.code(), last_line.finish()))
    }
}

fn note(log: &mut Option<&mut LogWriter>, logged: &mut usize, bytes: &[u8]) {
    *logged += bytes.len();
    if let Some(log) = log
        && *logged <= MAX_LOG_BYTES
    {
        log.write(bytes);
    }
}

/// The job scripts' exit codes (`images/builder`).
fn outcome(code: i32, cause: String) -> Outcome {
    Outcome::Failed(match code {
        0 => return Outcome::Done,
        10 => BuildError::ArchiveInvalid(cause),
        11 => BuildError::DockerfileNotFound(cause),
        12 => BuildError::Failed(cause),
        13 => BuildError::DiskFull(cause),
        code => BuildError::Internal(format!("the builder's job ended with code {code}: {cause}")),
    })
}

/// Remembers the last line of a stream, bounded.
#[derive(Default)]
struct LastLine {
    last: Vec<u8>,
    current: Vec<u8>,
}

impl LastLine {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                if !self.current.is_empty() {
                    self.last = std::mem::take(&mut self.current);
                }
            } else if self.current.len() < 1000 {
                self.current.push(byte);
            }
        }
    }

    fn finish(self) -> String {
        let line = if self.current.is_empty() {
            self.last
        } else {
            self.current
        };
        String::from_utf8_lossy(&line)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }
}

/// What a build leaves behind.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BuildResult {
    pub config: ContainerConfig,
    pub image_bytes: u64,
}

/// Reads the result of a build that ended well.
pub(crate) async fn result(agent: &Agent) -> Result<BuildResult, BuildError> {
    let exec = Exec {
        argv: vec!["/bin/cat".into(), RESULT.into()],
        env: Vec::new(),
        working_directory: "/".into(),
        user: String::new(),
        terminal: None,
    };
    let (_sink, mut output) = agent.exec(exec).await?;
    let (text, _) = output.collect(MAX_RESULT_BYTES).await?;
    serde_json::from_slice(&text)
        .map_err(|error| BuildError::Internal(format!("the builder's result: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_the_last_line_whatever_the_pieces_were() {
        let mut line = LastLine::default();
        for piece in ["first\nsec", "ond\n", "the \u{7}cause\n", "\n"] {
            line.push(piece.as_bytes());
        }
        assert_eq!(line.finish(), "the  cause");
    }

    #[test]
    fn a_line_without_end_stays_bounded() {
        let mut line = LastLine::default();
        line.push(&[b'x'; 1 << 20]);
        assert_eq!(line.finish().len(), 1000);
    }

    #[test]
    fn each_exit_code_is_its_own_failure() {
        let text = |code| match outcome(code, "why".into()) {
            Outcome::Failed(error) => error.to_string(),
            Outcome::Done => "done".into(),
        };
        assert_eq!(text(0), "done");
        assert_eq!(text(10), "ARCHIVE_INVALID: why");
        assert_eq!(text(11), "ARCHIVE_DOCKERFILE_NOT_FOUND: why");
        assert_eq!(text(12), "CONTAINER_BUILD_FAILED: why");
        assert_eq!(text(13), "DISK_STORAGE_FULL: why");
        assert!(text(137).starts_with("INTERNAL_PLATFORM_ERROR"));
    }
}
