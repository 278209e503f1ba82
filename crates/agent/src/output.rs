//! The application's output: a bounded ring that never makes the application wait.
//!
//! A position counts the bytes of both streams together, in the order in which they arrived here, from the
//! application's start. The ring holds the newest [`CAPACITY_BYTES`] (fewer when the streams alternate in tiny pieces:
//! at most [`MAX_PIECES`] of them); who asks for older bytes is given the oldest there are.
use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Condvar, Mutex, PoisonError};

use hearth_agent_protocol::{ExitStatus, Output};

use crate::held;

/// Bytes kept.
pub const CAPACITY_BYTES: usize = 256 * 1024;
/// Runs of one stream kept.
pub const MAX_PIECES: usize = 4096;
/// Most bytes in one [`Output`] frame.
pub const MAX_FRAME_PAYLOAD_BYTES: usize = 32 * 1024;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The frame that carries these bytes of this stream.
    pub fn frame(self, bytes: Vec<u8>) -> Output {
        match self {
            Stream::Stdout => Output::Stdout(bytes),
            Stream::Stderr => Output::Stderr(bytes),
        }
    }
}

/// The ring; writers append, any number of readers follow.
#[derive(Default)]
pub struct OutputLog {
    ring: Mutex<Ring>,
    changed: Condvar,
}

#[derive(Default)]
struct Ring {
    /// Position of the oldest byte held.
    first: u64,
    bytes: VecDeque<u8>,
    /// Runs of one stream; their lengths add up to that of `bytes`.
    pieces: VecDeque<(Stream, usize)>,
    ended: Option<ExitStatus>,
}

impl OutputLog {
    /// Adds what a stream brought.
    pub fn append(&self, stream: Stream, data: &[u8]) {
        held(&self.ring).append(stream, data);
        self.changed.notify_all();
    }

    /// Says that the application is gone and all its output has been appended.
    pub fn finish(&self, status: ExitStatus) {
        held(&self.ring).ended = Some(status);
        self.changed.notify_all();
    }

    /// Appends everything until the end of the stream.
    pub fn collect(&self, stream: Stream, mut from: impl Read) {
        let mut buffer = [0; 16 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => self.append(stream, &buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// The next frame from `position`, which it advances. Waits for one; `None` once `stop` holds
    /// (see [`OutputLog::wake`]). After [`Output::Exited`] nothing follows.
    pub fn next(&self, position: &mut u64, stop: impl Fn() -> bool) -> Option<Output> {
        let mut ring = held(&self.ring);
        loop {
            if stop() {
                return None;
            }
            if let Some(frame) = ring.read(position) {
                return Some(frame);
            }
            ring = self.changed.wait(ring).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes every waiting reader look at its stop condition.
    pub fn wake(&self) {
        let _ring = held(&self.ring);
        self.changed.notify_all();
    }
}

impl Ring {
    fn append(&mut self, stream: Stream, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.bytes.extend(data);
        match self.pieces.back_mut() {
            Some((last, length)) if *last == stream => *length += data.len(),
            _ => self.pieces.push_back((stream, data.len())),
        }
        if self.pieces.len() > MAX_PIECES {
            let oldest = self.pieces.front().map_or(0, |piece| piece.1);
            self.forget(oldest);
        }
        self.forget(self.bytes.len().saturating_sub(CAPACITY_BYTES));
    }

    fn forget(&mut self, mut count: usize) {
        self.first += count as u64;
        self.bytes.drain(..count);
        while count > 0 {
            match self.pieces.front_mut() {
                Some((_, length)) if *length > count => {
                    *length -= count;
                    return;
                }
                Some((_, length)) => {
                    count -= *length;
                    self.pieces.pop_front();
                }
                None => return,
            }
        }
    }

    fn read(&self, position: &mut u64) -> Option<Output> {
        let end = self.first + self.bytes.len() as u64;
        *position = (*position).clamp(self.first, end);
        if *position == end {
            return self.ended.map(Output::Exited);
        }
        let start = (*position - self.first) as usize;
        let mut piece_end = 0;
        let stream = self.pieces.iter().find_map(|(stream, length)| {
            piece_end += length;
            (piece_end > start).then_some(*stream)
        })?;
        let count = (piece_end - start).min(MAX_FRAME_PAYLOAD_BYTES);
        *position += count as u64;
        Some(stream.frame(self.bytes.range(start..start + count).copied().collect()))
    }
}

#[cfg(test)]
mod tests;
