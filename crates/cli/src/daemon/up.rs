//! `hearth up`: start the daemon.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::daemon::process::{self, Daemon};
use crate::error::{Error, Result};
use crate::http::Http;
use crate::output::{Out, spinner};
use crate::service::Service;
use crate::settings::ClientFile;

/// How often the daemon is asked whether it is up.
const POLL: Duration = Duration::from_millis(100);

/// Starts the daemon.
#[derive(Args)]
pub(crate) struct Up {
    /// The daemon's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Wait until the daemon says that it is ready for work, not only until it answers
    #[arg(long)]
    wait: bool,
}

impl Up {
    /// Runs the command.
    pub(crate) async fn run(self, data: &Path, out: Out) -> Result<()> {
        let mut running = Daemon::find(data);
        let mut started = match running {
            Some(_) => None,
            None => Some(Started::new(data, self.config.as_deref())?),
        };
        let bar = spinner("starting hearthd");
        let answer = loop {
            if let Some(answer) = self.answers(data).await {
                break answer;
            }
            match &mut started {
                Some(started) => started
                    .check()?
                    .into_iter()
                    .for_each(|line| bar.set_message(line)),
                // One that was found on its way out: a new one takes its place.
                None if running.is_some_and(|daemon| !daemon.lives()) => {
                    running = None;
                    started = Some(Started::new(data, self.config.as_deref())?);
                }
                None => {}
            }
            tokio::time::sleep(POLL).await;
        };
        bar.finish_and_clear();
        let pid = running.map_or_else(
            || started.map(|started| started.child.id()),
            |d| u32::try_from(d.pid).ok(),
        );
        let already = running.is_some();
        let value = json!({ "endpointUrl": answer.endpoint, "pid": pid, "alreadyRunning": already, "health": answer.body });
        out.print(value, || {
            let state = if already {
                "is already running"
            } else {
                "is running"
            };
            format!(
                "hearthd {state} at {}\nnext: eval \"$(hearth env)\"",
                answer.endpoint
            )
        })
    }

    /// The daemon's answer, if there is one that ends the waiting.
    async fn answers(&self, data: &Path) -> Option<Answer> {
        // Written by the daemon on its way up: until it is there and whole there is nobody to ask.
        let file = ClientFile::read(data).ok()?;
        let http = Http::new(Some(&file.ca), None).ok()?;
        let endpoint = file.endpoint_url.trim_end_matches('/').to_owned();
        let (status, body) = Service::health(&http, &endpoint).await.ok()?;
        if self.wait && !status.is_success() {
            return None;
        }
        Some(Answer {
            endpoint,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        })
    }
}

struct Answer {
    endpoint: String,
    body: Value,
}

/// A daemon on its way up, and the part of the log it has written.
struct Started {
    child: Child,
    log: File,
    path: PathBuf,
    last: String,
}

impl Started {
    fn new(data: &Path, config: Option<&Path>) -> Result<Self> {
        let executable = process::executable()?;
        fs::create_dir_all(data).map_err(Error::file(data))?;
        let path = log_path(data);
        let write = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::file(&path))?;
        let mut log = File::open(&path).map_err(Error::file(&path))?;
        log.seek(SeekFrom::End(0)).map_err(Error::file(&path))?;
        // `setsid` replaces itself by the daemon, which then has no terminal and outlives this shell.
        let mut command = Command::new("setsid");
        command
            .arg(&executable)
            .env("HEARTH_DATA", fs::canonicalize(data).map_err(Error::file(data))?);
        if let Some(config) = config {
            command
                .arg("--config")
                .arg(fs::canonicalize(config).map_err(Error::file(config))?);
        }
        command.current_dir("/").stdin(Stdio::null());
        command
            .stdout(write.try_clone().map_err(Error::file(&path))?)
            .stderr(write);
        let child = command.spawn().map_err(Error::file("setsid"))?;
        Ok(Self {
            child,
            log,
            path,
            last: String::new(),
        })
    }

    /// The last line the daemon wrote since the last call, if any; an error when it has ended.
    fn check(&mut self) -> Result<Option<String>> {
        let ended = self.child.try_wait().map_err(Error::file("hearthd"))?;
        let mut text = Vec::new();
        self.log.read_to_end(&mut text).map_err(Error::file(&self.path))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().map(plain).rfind(|line| !line.is_empty());
        if let Some(line) = &line {
            self.last.clone_from(line);
        }
        match ended {
            None => Ok(line),
            Some(status) => {
                let said = if self.last.is_empty() {
                    status.to_string()
                } else {
                    self.last.clone()
                };
                let cure = format!("See {}, and `hearth doctor`", self.path.display());
                Err(Error::failed(format!("hearthd did not start: {said}"), cure))
            }
        }
    }
}

fn log_path(data: &Path) -> PathBuf {
    data.join("hearthd.log")
}

/// A log line without colours and other control characters.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                let _ = chars.find(char::is_ascii_alphabetic);
            }
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_lose_their_colours() {
        assert_eq!(
            plain("\u{1b}[2m12:00\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m ready\r"),
            "12:00  INFO ready"
        );
    }
}
