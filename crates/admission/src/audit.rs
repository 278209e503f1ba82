//! The audit log: one JSON object a line, appended only; a full file makes way for a new one and the oldest is removed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hearth_wire::{Call, Timestamp};
use serde::Serialize;

/// Where the audit log lies and how much of it is kept.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// The directory; the current file in it is `audit.log`, older ones `audit.log.1`, `audit.log.2`, ….
    pub directory: PathBuf,
    /// How large a file grows.
    pub file_bytes: u64,
    /// How many older files are kept.
    pub older_files: u32,
}

/// The audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    config: AuditConfig,
    file: File,
    bytes: u64,
}

/// A line. No member can hold a secret: bodies are not part of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    time: Timestamp,
    request_id: &'a str,
    account: &'a str,
    principal: Option<String>,
    access_key_id: &'a str,
    source: String,
    user_agent: Option<&'a str>,
    region: &'a str,
    service: &'a str,
    operation: &'a str,
    resource: Option<String>,
    status: u16,
    error: Option<&'a str>,
}

impl Audit {
    /// Opens the log for appending.
    pub fn open(config: AuditConfig) -> io::Result<Audit> {
        fs::create_dir_all(&config.directory)?;
        let file = append(&current(&config))?;
        let bytes = file.metadata()?.len();
        let mut inner = Inner { config, file, bytes };
        // A line that a crash cut off must not swallow the next.
        if !inner.ends_with_newline()? {
            inner.put(b"\n")?;
        }
        Ok(Audit {
            inner: Arc::new(Mutex::new(inner)),
        })
    }

    /// Writes down a call that has ended. When that fails the daemon's log says so.
    pub(crate) async fn write(
        &self,
        call: &Call,
        principal: Option<String>,
        resource: Option<String>,
        status: u16,
        error: Option<&str>,
    ) {
        let line = Line {
            time: Timestamp::now(),
            request_id: &call.caller.request_id,
            account: &call.caller.account_id,
            principal,
            access_key_id: &call.caller.access_key_id,
            source: call.source.to_canonical().to_string(),
            user_agent: call.user_agent.as_deref(),
            region: &call.caller.region,
            service: call.service(),
            operation: call.name(),
            resource,
            status,
            error,
        };
        let written = serde_json::to_vec(&line).map_err(io::Error::other);
        let inner = self.inner.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut line = written?;
            line.push(b'\n');
            inner.lock().unwrap_or_else(PoisonError::into_inner).append(&line)
        });
        if let Err(error) = written.await.map_err(io::Error::other).flatten() {
            tracing::error!(%error, "a call could not be written to the audit log");
        }
    }
}

impl Inner {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.config.file_bytes {
            self.rotate()?;
        }
        self.put(line)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let path = |number: u32| match number {
            0 => current(&self.config),
            number => self.config.directory.join(format!("audit.log.{number}")),
        };
        for number in (0..self.config.older_files).rev() {
            match fs::rename(path(number), path(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.config.older_files == 0 {
            fs::remove_file(path(0))?;
        }
        self.file = append(&path(0))?;
        self.bytes = 0;
        Ok(())
    }

    fn ends_with_newline(&self) -> io::Result<bool> {
        use std::os::unix::fs::FileExt;
        let mut last = [b'\n'];
        if self.bytes > 0 {
            File::open(current(&self.config))?.read_exact_at(&mut last, self.bytes - 1)?;
        }
        Ok(last == [b'\n'])
    }
}

fn current(config: &AuditConfig) -> PathBuf {
    config.directory.join("audit.log")
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use hearth_wire::{Caller, Operation, Request};
    use serde_json::{Value, json};

    use super::*;

    fn config(directory: &Path, file_bytes: u64) -> AuditConfig {
        AuditConfig {
            directory: directory.to_owned(),
            file_bytes,
            older_files: 2,
        }
    }

    fn call(number: usize) -> Call {
        Call {
            caller: Caller {
                account_id: "111122223333".into(),
                region: "us-east-1".into(),
                partition: "aws".into(),
                access_key_id: "AKIA".into(),
                request_id: number.to_string(),
            },
            session_token: Some("hunter2".into()),
            source: [127, 0, 0, 1].into(),
            user_agent: Some("agent\n".into()),
            request: Request::Operation(Operation::RunMicrovm, json!({"runHookPayload": "hunter2"})),
        }
    }

    fn numbers(directory: &Path, file: &str) -> Vec<usize> {
        let text = fs::read_to_string(directory.join(file)).expect(file);
        let number = |line| {
            let line: Value = serde_json::from_str(line).expect(line);
            line["requestId"]
                .as_str()
                .and_then(|id| id.parse().ok())
                .expect("a number")
        };
        text.lines().map(number).collect()
    }

    #[tokio::test]
    async fn a_full_file_makes_way_and_the_oldest_goes() {
        let directory = tempfile::tempdir().expect("temp dir");
        let audit = Audit::open(config(directory.path(), 700)).expect("opens");
        for number in 0..12 {
            audit.write(&call(number), None, None, 200, None).await;
        }
        let kept = ["audit.log.2", "audit.log.1", "audit.log"].map(|file| numbers(directory.path(), file));
        let kept: Vec<usize> = kept.concat();
        assert!(kept.len() < 12, "the oldest are gone: {kept:?}");
        assert_eq!(kept, (12 - kept.len()..12).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 3);
    }

    #[tokio::test]
    async fn what_a_crash_cut_off_spoils_one_line_only() {
        let directory = tempfile::tempdir().expect("temp dir");
        fs::write(
            directory.path().join("audit.log"),
            b"{\"requestId\":\"0\"}\n{\"requ",
        )
        .expect("written");
        let audit = Audit::open(config(directory.path(), 1 << 20)).expect("opens");
        audit.write(&call(1), None, None, 200, None).await;
        let text = fs::read_to_string(directory.path().join("audit.log")).expect("read");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[1]), (3, "{\"requ"));
        assert!(serde_json::from_str::<Value>(lines[2]).is_ok());
    }

    #[tokio::test]
    async fn no_secret_is_written() {
        let directory = tempfile::tempdir().expect("temp dir");
        let audit = Audit::open(config(directory.path(), 1 << 20)).expect("opens");
        audit
            .write(
                &call(1),
                Some("arn".into()),
                Some("*".into()),
                403,
                Some("AccessDeniedException"),
            )
            .await;
        let text = fs::read_to_string(directory.path().join("audit.log")).expect("read");
        assert!(
            !text.contains("hunter2") && text.contains("AccessDeniedException"),
            "{text}"
        );
    }
}
