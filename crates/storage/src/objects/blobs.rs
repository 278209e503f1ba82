//! Blobs: immutable files of random names, synced before anyone may name them.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use md5::{Digest, Md5};
use object_store::{
    GetOptions, GetRange, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload,
    local::LocalFileSystem, path::Path as BlobPath,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::{ObjectsError, index::Segment};

/// Why the sender of a body failed.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes gathered before they are written, and read at a time.
const CHUNK_BYTES: usize = 256 << 10;

#[derive(Clone, Debug)]
pub(super) struct Blobs {
    root: PathBuf,
    store: Arc<dyn ObjectStore>,
    readers: Arc<Mutex<Readers>>,
}

/// Who still reads what: a blob in use outlives its object until the last reader is done.
#[derive(Debug, Default)]
struct Readers {
    count: HashMap<String, usize>,
    doomed: HashSet<String>,
}

impl Blobs {
    pub(super) fn open(dir: &Path) -> Result<Self, ObjectsError> {
        let root = dir.join("blobs");
        std::fs::create_dir_all(&root)?;
        std::fs::File::open(dir)?.sync_all()?;
        let store = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        Ok(Self {
            root,
            store: Arc::new(store),
            readers: Arc::default(),
        })
    }

    /// Writes a body of at most so many bytes to a new blob in bounded memory; on disk when this returns.
    pub(super) async fn stage<S, E>(&self, body: S, most: u64) -> Result<Staged, ObjectsError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<BodyError>,
    {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut upload = self.store.put_multipart(&path(&id)).await?;
        let (mut md5, mut size) = (Md5::new(), 0u64);
        let (mut waiting, mut waiting_bytes) = (Vec::new(), 0);
        let mut body = std::pin::pin!(body);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| ObjectsError::Body(e.into()))?;
            size += chunk.len() as u64;
            if size > most {
                return Err(ObjectsError::EntityTooLarge);
            }
            md5.update(&chunk);
            waiting_bytes += chunk.len();
            waiting.push(chunk);
            if waiting_bytes >= CHUNK_BYTES {
                waiting_bytes = 0;
                upload
                    .put_part(std::mem::take(&mut waiting).into_iter().collect::<PutPayload>())
                    .await?;
            }
        }
        if waiting_bytes > 0 {
            upload
                .put_part(waiting.into_iter().collect::<PutPayload>())
                .await?;
        }
        upload.complete().await?;
        Ok(Staged {
            blobs: self.clone(),
            blob: Some(id),
            size,
            md5: md5.finalize().into(),
        })
    }

    /// A second name for the same bytes (a hard link on the local disk).
    pub(super) async fn copy(&self, from: &str) -> Result<String, ObjectsError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        self.store.copy(&path(from), &path(&id)).await?;
        Ok(id)
    }

    /// Keeps blobs from being deleted until the guard is dropped.
    pub(super) fn pin(&self, segments: Vec<Segment>) -> Pinned {
        let mut readers = self.readers();
        for (blob, _) in &segments {
            *readers.count.entry(blob.clone()).or_default() += 1;
        }
        drop(readers);
        Pinned {
            blobs: self.clone(),
            segments,
        }
    }

    /// Deletes blobs no row names any more, now or when their last reader is done.
    /// What fails here is swept at the next start.
    pub(super) async fn discard(&self, segments: impl IntoIterator<Item = String>) {
        let mut free = Vec::new();
        {
            let mut readers = self.readers();
            for blob in segments {
                if readers.count.contains_key(&blob) {
                    readers.doomed.insert(blob);
                } else {
                    free.push(blob);
                }
            }
        }
        for blob in free {
            if let Err(error) = self.store.delete(&path(&blob)).await {
                tracing::warn!(%blob, %error, "a blob could not be deleted");
            }
        }
    }

    fn discard_later(&self, segments: Vec<String>) {
        let blobs = self.clone();
        if !segments.is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { blobs.discard(segments).await });
        }
    }

    /// Removes every file that is not a named blob: staged files and orphans of a crash.
    pub(super) async fn sweep(&self, named: HashSet<String>) -> Result<(), ObjectsError> {
        let root = self.root.clone();
        let swept = tokio::task::spawn_blocking(move || -> std::io::Result<usize> {
            let mut swept = 0;
            for shard in std::fs::read_dir(&root)? {
                for file in std::fs::read_dir(shard?.path())? {
                    let file = file?;
                    if !file.file_name().to_str().is_some_and(|name| named.contains(name)) {
                        std::fs::remove_file(file.path())?;
                        swept += 1;
                    }
                }
            }
            Ok(swept)
        });
        let swept = swept.await.map_err(std::io::Error::other)??;
        if swept > 0 {
            tracing::info!(swept, "removed files that belong to no object");
        }
        Ok(())
    }

    async fn read(
        &self,
        blob: &str,
        start: u64,
        length: u64,
    ) -> std::io::Result<BoxStream<'static, std::io::Result<Bytes>>> {
        let range = Some(GetRange::Bounded(start..start + length));
        let found = self
            .store
            .get_opts(
                &path(blob),
                GetOptions {
                    range,
                    ..Default::default()
                },
            )
            .await?;
        Ok(match found.payload {
            // The crate's own stream reads 8 KiB at a time.
            GetResultPayload::File(file, _) => {
                let mut file = tokio::fs::File::from_std(file);
                file.seek(std::io::SeekFrom::Start(start)).await?;
                ReaderStream::with_capacity(file.take(length), CHUNK_BYTES).boxed()
            }
            GetResultPayload::Stream(stream) => stream.map_err(std::io::Error::from).boxed(),
        })
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path(blob: &str) -> BlobPath {
    BlobPath::from_iter([&blob[..2], blob])
}

/// A body on disk that belongs to nothing yet; dropped, it goes away.
#[derive(Debug)]
pub struct Staged {
    blobs: Blobs,
    blob: Option<String>,
    size: u64,
    md5: [u8; 16],
}

impl Staged {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes' MD5.
    pub fn md5(&self) -> [u8; 16] {
        self.md5
    }

    /// The MD5 in hex: a plain object's ETag.
    pub fn etag(&self) -> String {
        hex(&self.md5)
    }

    pub(super) fn blob(&self) -> &str {
        self.blob.as_deref().unwrap_or_default()
    }

    /// A row names the blob now.
    pub(super) fn keep(mut self) {
        self.blob = None;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.blobs.discard_later(self.blob.take().into_iter().collect());
    }
}

/// The blobs of an object someone reads.
#[derive(Debug)]
pub(super) struct Pinned {
    blobs: Blobs,
    pub(super) segments: Vec<Segment>,
}

impl Pinned {
    /// The bytes `start..end` over all blobs. The guard lives as long as the stream.
    pub(super) fn stream(
        self,
        start: u64,
        end: u64,
    ) -> impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static {
        let mut wanted = Vec::new();
        let mut at = 0;
        for (blob, size) in &self.segments {
            let (from, to) = (start.clamp(at, at + size), end.clamp(at, at + size));
            if from < to {
                wanted.push((blob.clone(), from - at, to - from));
            }
            at += size;
        }
        let guard = Arc::new(self);
        let stream = futures::stream::iter(wanted)
            .then(move |(blob, from, length)| {
                let guard = Arc::clone(&guard);
                async move { guard.blobs.read(&blob, from, length).await }
            })
            .try_flatten();
        SyncStream(Mutex::new(Box::pin(stream)))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut free = Vec::new();
        {
            let mut readers = self.blobs.readers();
            for (blob, _) in &self.segments {
                let Some(count) = readers.count.get_mut(blob) else {
                    continue;
                };
                *count -= 1;
                if *count == 0 {
                    readers.count.remove(blob);
                    if readers.doomed.remove(blob) {
                        free.push(blob.clone());
                    }
                }
            }
        }
        self.blobs.discard_later(free);
    }
}

/// Lets a stream of futures that are only `Send` be shared; polling has `&mut` and never locks.
struct SyncStream(Mutex<BoxStream<'static, std::io::Result<Bytes>>>);

impl Stream for SyncStream {
    type Item = std::io::Result<Bytes>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let stream = self.get_mut().0.get_mut().unwrap_or_else(PoisonError::into_inner);
        stream.poll_next_unpin(cx)
    }
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
