use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// Largest frame either side accepts.
pub const MAX_FRAME_BYTES: usize = 1 << 20;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed or ended inside a frame.
    #[error("connection to the other side failed: {0}")]
    Io(#[from] io::Error),
    /// The announced length is over [`MAX_FRAME_BYTES`].
    #[error("frame of {0} bytes exceeds the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    /// The bytes are not a message of the expected type.
    #[error("frame is not a valid message: {0}")]
    Malformed(#[from] postcard::Error),
    /// The message leaves bytes over.
    #[error("frame carries {0} bytes after its message")]
    TrailingBytes(usize),
}

/// Encodes one message with its length prefix.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(message, vec![0; 4])?;
    let length = frame.len() - 4;
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge(length));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Decodes the body of one frame; every byte must belong to the message.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let (message, rest) = postcard::take_from_bytes(body)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(FrameError::TrailingBytes(rest.len()))
    }
}

/// Reads one frame; `None` when the other side closed between frames.
pub fn read_frame<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut prefix = [0; 4];
    let mut have = 0;
    while have < prefix.len() {
        match from.read(&mut prefix[have..])? {
            0 if have == 0 => return Ok(None),
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            n => have += n,
        }
    }
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge(length));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// Writes one frame in a single write.
pub fn write_frame<T: Serialize>(to: &mut impl Write, message: &T) -> Result<(), FrameError> {
    to.write_all(&encode(message)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExitStatus, Output, Reply, Request};

    #[test]
    fn a_message_survives_the_wire() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &Request::Forward { port: 8080 }).expect("encodes");
        let back: Option<Request> = read_frame(&mut wire.as_slice()).expect("decodes");
        assert_eq!(back, Some(Request::Forward { port: 8080 }));
    }

    #[test]
    fn a_closed_connection_is_the_end_and_a_cut_frame_an_error() {
        assert_eq!(read_frame::<Reply>(&mut [].as_slice()).expect("end"), None);
        let frame = encode(&Output::Exited(ExitStatus::Code(3))).expect("encodes");
        for cut in 1..frame.len() {
            assert!(read_frame::<Output>(&mut &frame[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_before_it_is_allocated() {
        let wire = u32::MAX.to_le_bytes();
        assert!(matches!(
            read_frame::<Reply>(&mut wire.as_slice()),
            Err(FrameError::TooLarge(_))
        ));
    }

    #[test]
    fn bytes_after_a_message_are_refused() {
        let mut frame = encode(&Reply::Done).expect("encodes");
        frame.push(0);
        frame[0] += 1;
        assert!(matches!(
            read_frame::<Reply>(&mut frame.as_slice()),
            Err(FrameError::TrailingBytes(1))
        ));
    }
}
