//! The endpoint's files, and streams between it and the local disk.

use std::fs::{self, Metadata};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::{TryStreamExt, unfold};
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use crate::endpoint::{Endpoint, refused, shell_token};
use crate::error::{Error, Result};
use crate::service::Service;
use crate::vm::id;

const FILES: &str = "/hearth/v1/files";
/// Bytes of one piece of a stream.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces on their way between the network and the disk.
const PIECES: usize = 4;

type Content = UnsyncBoxBody<Bytes, io::Error>;
type Piece = io::Result<Bytes>;

/// The files of one MicroVM.
pub(super) struct Remote {
    endpoint: Endpoint,
    token: String,
}

/// What a path names there.
#[derive(Deserialize)]
pub(super) struct Described {
    kind: String,
    mode: String,
    uid: u32,
    gid: u32,
}

impl Described {
    pub(super) fn is_directory(&self) -> bool {
        self.kind == "directory"
    }
}

impl Remote {
    pub(super) async fn of(service: &Service, typed: &str) -> Result<Self> {
        let id = id::resolve(service, typed).await?;
        Ok(Self {
            token: shell_token(service, &id).await?,
            endpoint: Endpoint::of(service, &id).await?,
        })
    }

    /// `None` when there is nothing.
    pub(super) async fn describe(&self, path: &str) -> Result<Option<Described>> {
        let response = self
            .ask(Method::GET, path, &[("format", "stat")], empty(), None)
            .await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let body = succeeded(response).await?.into_body().collect().await;
        let body = body
            .map_err(|error| Error::Transport(error.to_string()))?
            .to_bytes();
        let described = serde_json::from_slice(&body);
        described
            .map(Some)
            .map_err(|error| Error::failed(format!("the endpoint's answer makes no sense: {error}"), ""))
    }

    pub(super) async fn put_file(
        &self,
        source: &Path,
        metadata: &Metadata,
        target: &str,
        owners: bool,
    ) -> Result<()> {
        if !metadata.is_file() {
            return Err(Error::failed(
                format!("{} is no regular file", source.display()),
                "",
            ));
        }
        let file = tokio::fs::File::open(source).await.map_err(Error::file(source))?;
        let content = ReaderStream::with_capacity(file, PIECE_BYTES).map_ok(Frame::data);
        let mode = format!("{:o}", metadata.mode() & 0o7777);
        let (uid, gid) = (metadata.uid().to_string(), metadata.gid().to_string());
        let mut options = vec![("mode", mode.as_str())];
        if owners {
            options.extend([("uid", uid.as_str()), ("gid", gid.as_str())]);
        }
        let content = StreamBody::new(content).boxed_unsync();
        let response = self
            .ask(Method::PUT, target, &options, content, Some(metadata.len()))
            .await?;
        succeeded(response).await.map(drop)
    }

    pub(super) async fn put_tree(&self, source: &Path, target: &str, owners: bool) -> Result<()> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let source = source.to_owned();
        let packing = tokio::task::spawn_blocking(move || {
            let failures = sender.clone();
            let packed = hearth_tree::pack(&source, BufWriter::with_capacity(PIECE_BYTES, Pieces(sender)));
            if let Err(error) = &packed {
                // The archive must not look whole.
                let _sent = failures.blocking_send(Err(io::Error::other(error.to_string())));
            }
            packed.map_err(Error::file(source))
        });
        let pieces = unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        });
        let content = StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync();
        let mut options = vec![("format", "tar")];
        if owners {
            options.push(("owners", "true"));
        }
        let answered = self.ask(Method::PUT, target, &options, content, None).await;
        // What went wrong here explains what went wrong there, unless that went wrong first.
        let packed = packing
            .await
            .map_err(|error| Error::failed(error.to_string(), ""))?;
        match (packed, answered) {
            (_, Ok(response)) if !response.status().is_success() => succeeded(response).await.map(drop),
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(_)) => Ok(()),
        }
    }

    pub(super) async fn get_file(
        &self,
        source: &str,
        described: &Described,
        target: &Path,
        owners: bool,
    ) -> Result<()> {
        let response = self
            .ask(Method::GET, source, &[("format", "raw")], empty(), None)
            .await?;
        let mut body = succeeded(response).await?.into_body();
        // Beside its place first: what is broken off replaces nothing.
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(Error::file(directory))?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Error::Transport(error.to_string()))?;
            if let Some(bytes) = frame.data_ref() {
                file.write_all(bytes).map_err(Error::file(target))?;
            }
        }
        if owners {
            chown(file.path(), Some(described.uid), Some(described.gid)).map_err(Error::file(target))?;
        }
        // Without the owner's rights a set-uid bit would be another's.
        let mask = if owners { 0o7777 } else { 0o777 };
        let mode = u32::from_str_radix(&described.mode, 8).unwrap_or(0o644) & mask;
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).map_err(Error::file(target))?;
        file.persist(target)
            .map_err(|error| Error::file(target)(error.error))?;
        Ok(())
    }

    pub(super) async fn get_tree(&self, source: &str, target: &Path, owners: bool) -> Result<()> {
        let response = self
            .ask(Method::GET, source, &[("format", "tar")], empty(), None)
            .await?;
        let mut body = succeeded(response).await?.into_body();
        let (sender, receiver) = mpsc::channel::<Piece>(PIECES);
        let place: PathBuf = target.to_owned();
        let unpacking = tokio::task::spawn_blocking(move || {
            let mut pieces = BufReader::with_capacity(PIECE_BYTES, Received::new(receiver));
            hearth_tree::unpack(&place, &mut pieces, owners)?;
            // To the end, which says whether all has come.
            io::copy(&mut pieces, &mut io::sink()).map(drop)
        });
        while let Some(frame) = body.frame().await {
            let piece = match frame {
                Ok(frame) => frame.into_data().map_err(|_| io::ErrorKind::InvalidData.into()),
                Err(error) => Err(io::Error::other(format!("the archive is not whole: {error}"))),
            };
            let broken = piece.is_err();
            if sender.send(piece).await.is_err() || broken {
                break;
            }
        }
        drop(sender);
        let unpacked = unpacking
            .await
            .map_err(|error| Error::failed(error.to_string(), ""))?;
        unpacked.map_err(Error::file(target))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        options: &[(&str, &str)],
        content: Content,
        length: Option<u64>,
    ) -> Result<Response<Incoming>> {
        let options = std::iter::once(("path", path)).chain(options.iter().copied());
        let query: Vec<String> = options
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        let mut request = self
            .endpoint
            .request(&format!("{FILES}?{}", query.join("&")), &self.token)
            .method(method);
        if let Some(length) = length {
            request = request.header(http::header::CONTENT_LENGTH, length);
        }
        let request = request
            .body(content)
            .map_err(|error| Error::failed(error.to_string(), ""))?;
        self.endpoint.send(request).await
    }
}

fn empty() -> Content {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Percent-encoded for a query.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| match byte {
            byte if plain(byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

async fn succeeded(response: Response<Incoming>) -> Result<Response<Incoming>> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    #[derive(Deserialize)]
    struct Problem {
        message: String,
    }
    let body = response.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(Error::failed(problem.message, "")),
        Err(_) => Err(refused(status)),
    }
}

/// Sends what is written to it.
struct Pieces(mpsc::Sender<Piece>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what was received.
struct Received {
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
}

impl Received {
    fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self {
            pieces,
            piece: Bytes::new(),
        }
    }
}

impl Read for Received {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.piece.len());
        into[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_a_query() {
        assert_eq!(encode("/a b/ü&=%+.txt"), "/a%20b/%C3%BC%26%3D%25%2B.txt");
    }
}
