//! Contents as frames.
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use hearth_agent_protocol::{FileChunk, read_frame, write_frame};

/// Bytes of content in one frame: few frames for a large file, and little memory for any.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// Sends what is written to it.
pub(super) struct Sender<'a> {
    host: &'a mut TcpStream,
    buffer: Vec<u8>,
}

impl<'a> Sender<'a> {
    pub(super) fn new(host: &'a mut TcpStream) -> Sender<'a> {
        Sender {
            host,
            buffer: Vec::with_capacity(CHUNK_BYTES),
        }
    }
}

impl Write for Sender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        write_frame(self.host, &FileChunk::Data(bytes)).map_err(io::Error::other)
    }
}

/// Reads what the host sends, up to its end; a connection that ends before is an error.
pub(super) struct Receiver<'a> {
    host: &'a mut TcpStream,
    bytes: Vec<u8>,
    position: usize,
    ended: bool,
}

impl<'a> Receiver<'a> {
    pub(super) fn new(host: &'a mut TcpStream) -> Receiver<'a> {
        Receiver {
            host,
            bytes: Vec::new(),
            position: 0,
            ended: false,
        }
    }

    /// Passes over what is left, so that the whole is known to have come.
    pub(super) fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink()).map(drop)
    }
}

impl Read for Receiver<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.position == self.bytes.len() && !self.ended {
            match read_frame(self.host).map_err(io::Error::other)? {
                Some(FileChunk::Data(bytes)) => (self.bytes, self.position) = (bytes, 0),
                Some(FileChunk::End) => self.ended = true,
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = into.len().min(self.bytes.len() - self.position);
        into[..count].copy_from_slice(&self.bytes[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

/// Reads until the host is done: a connection closed over unread bytes is reset, and the answer lost with it.
pub(super) fn drain(host: &mut TcpStream) {
    let _ = host.shutdown(Shutdown::Write);
    let _ = io::copy(host, &mut io::sink());
}
