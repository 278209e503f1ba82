//! The application's output: a bounded ring that never makes the application wait.
//!
//! What came before an image's snapshot is a part of its own: its readers come to its end, later ones begin after it.
//!
//! A position counts the bytes of both streams together, in the order in which they arrived here, from the
//! part's start. The ring holds the newest [`CAPACITY_BYTES`] (fewer when the streams alternate in tiny pieces:
//! at most [`MAX_PIECES`] of them); who asks for older bytes is given the oldest there are.
use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

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

/// Writers append, any number of readers follow.
#[derive(Default)]
pub struct OutputLog {
    part: Mutex<Arc<Part>>,
}

/// What clones of an image have in common, or what one of them has put out.
#[derive(Default)]
pub struct Part {
    ring: Mutex<Ring>,
    changed: Condvar,
}

/// Where one who follows a part has come to.
pub struct Reader {
    part: Arc<Part>,
    position: u64,
}

#[derive(Default)]
struct Ring {
    /// Position of the oldest byte held.
    first: u64,
    bytes: VecDeque<u8>,
    /// Runs of one stream; their lengths add up to that of `bytes`.
    pieces: VecDeque<(Stream, usize)>,
    ended: Option<ExitStatus>,
    /// Another part has begun.
    is_over: bool,
}

impl OutputLog {
    /// Adds what a stream brought.
    pub fn append(&self, stream: Stream, data: &[u8]) {
        held(&self.part).change(|ring| ring.append(stream, data));
    }

    /// Says that the application is gone and all its output has been appended.
    pub fn finish(&self, status: ExitStatus) {
        held(&self.part).change(|ring| ring.ended = Some(status));
    }

    /// Begins a new part. The old one is kept as long as it is read.
    pub fn begin_part(&self) {
        let mut part = held(&self.part);
        let new = Arc::new(Part::default());
        part.change(|ring| {
            held(&new.ring).ended = ring.ended;
            ring.is_over = true;
        });
        *part = new;
    }

    /// Follows the part that is written now, from a position on.
    pub fn read_from(&self, position: u64) -> Reader {
        Reader {
            part: held(&self.part).clone(),
            position,
        }
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
}

impl Part {
    fn change(&self, change: impl FnOnce(&mut Ring)) {
        change(&mut held(&self.ring));
        self.changed.notify_all();
    }

    /// Makes every waiting reader look at its stop condition.
    pub fn wake(&self) {
        self.change(|_| {});
    }
}

impl Reader {
    /// What it reads.
    pub fn part(&self) -> Arc<Part> {
        self.part.clone()
    }

    /// The next frame. Waits for one; `None` at the part's end, and once `stop` holds (see [`Part::wake`]).
    /// After [`Output::Exited`] nothing follows.
    pub fn next(&mut self, stop: impl Fn() -> bool) -> Option<Output> {
        let mut ring = held(&self.part.ring);
        loop {
            if stop() {
                return None;
            }
            if let Some(frame) = ring.read(&mut self.position) {
                return Some(frame);
            }
            if ring.is_over {
                return None;
            }
            ring = self
                .part
                .changed
                .wait(ring)
                .unwrap_or_else(PoisonError::into_inner);
        }
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
