//! Writing to a stream.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{Inner, Logs, LogsError, MAX_MESSAGE_BYTES, blocking, group::Group, stream::Stream};

/// Writes lines to one stream. It never waits for the disk: lines are written out within 200 ms, or by
/// [`LogWriter::flush`], and lines over the stream's rate are dropped and counted in the log itself.
#[derive(Debug)]
pub struct LogWriter {
    logs: Logs,
    /// Account, group, stream.
    names: [String; 3],
    target: Mutex<(Arc<Group>, Arc<Stream>)>,
    /// Bytes after the last end of line.
    partial: Vec<u8>,
}

impl LogWriter {
    pub(crate) fn new(logs: Logs, names: [String; 3], group: Arc<Group>, stream: Arc<Stream>) -> Self {
        Self {
            logs,
            names,
            target: Mutex::new((group, stream)),
            partial: Vec::new(),
        }
    }

    /// Takes raw output in: an event for each line; the last one waits for its end.
    pub fn write(&mut self, bytes: &[u8]) {
        let mut partial = std::mem::take(&mut self.partial);
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (piece, next) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            partial.extend_from_slice(piece);
            rest = next;
            if end.is_some() || partial.len() >= MAX_MESSAGE_BYTES {
                if !self.raw_line(&partial) {
                    rest = self.lose_lines(rest);
                }
                partial.clear();
            }
        }
        self.partial = partial;
    }

    /// Drops the lines that came together with one that was over the rate, without a look at each: output that is all ends of
    /// lines would take much time. Returns what comes after the last of them.
    fn lose_lines<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let end = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let (lost, rest) = bytes.split_at(end);
        let lines = lost.iter().filter(|byte| **byte == b'\n').count();
        if let (Some((_, stream)), 1..) = (self.target(), lines) {
            stream.pending().lose(lines as u64, (lost.len() - lines) as u64);
        }
        rest
    }

    /// Writes one event, now.
    pub fn line(&self, text: &str) {
        self.line_at(crate::now_ms(), text);
    }

    /// Writes one event of a given time (Unix milliseconds).
    pub fn line_at(&self, timestamp_ms: i64, text: &str) {
        self.push(timestamp_ms, text);
    }

    fn push(&self, timestamp_ms: i64, text: &str) -> bool {
        self.target()
            .is_some_and(|(group, stream)| push(&self.logs.inner, &group, &stream, timestamp_ms, text))
    }

    /// Writes everything so far through to the disk, an unended last line included.
    pub async fn flush(&mut self) -> Result<(), LogsError> {
        self.end_line();
        let Some((group, stream)) = self.target() else {
            return Ok(());
        };
        let logs = self.logs.clone();
        blocking(move || logs.inner.flush(&group, &stream, true)).await
    }

    fn end_line(&mut self) {
        if !self.partial.is_empty() {
            let partial = std::mem::take(&mut self.partial);
            self.raw_line(&partial);
        }
    }

    /// `false` if it was over the rate.
    fn raw_line(&self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text: Cow<'_, str> = String::from_utf8_lossy(line);
        self.push(crate::now_ms(), &text)
    }

    /// The stream; a new one where someone deleted it meanwhile.
    fn target(&self) -> Option<(Arc<Group>, Arc<Stream>)> {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if target.1.is_deleted() {
            match self.logs.inner.ensure_stream(&self.names) {
                Ok(found) => *target = found,
                Err(error) => {
                    tracing::warn!(stream = %self.names[2], %error, "a deleted log stream could not be made again");
                    return None;
                }
            }
        }
        Some(target.clone())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.end_line();
    }
}

/// Queues an event, in pieces where it is too long. `false` if it was over the rate.
pub(crate) fn push(
    logs: &Inner,
    group: &Arc<Group>,
    stream: &Arc<Stream>,
    timestamp_ms: i64,
    text: &str,
) -> bool {
    let mut rest = text;
    loop {
        let (piece, next) = rest.split_at(rest.floor_char_boundary(MAX_MESSAGE_BYTES));
        // The guard must be gone before the stream is queued: flushing takes both the other way round.
        let pushed = stream.pending().push(timestamp_ms, piece, &logs.limits);
        if pushed.is_first {
            logs.mark_dirty(group, stream);
        }
        if next.is_empty() {
            return pushed.is_kept;
        }
        rest = next;
    }
}
