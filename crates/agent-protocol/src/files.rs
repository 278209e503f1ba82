use serde::{Deserialize, Serialize};

/// Something to do with one path of the application's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRequest {
    /// Absolute, as the application sees it; links are followed, but never out of the container.
    pub path: String,
    /// What to do.
    pub action: FileAction,
}

/// What to do, and what is said on the connection meanwhile. Every action may be answered by
/// [`crate::Reply::FileRefused`] instead, and every stream of [`FileChunk`]s may end in [`FileChunk::Failed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileAction {
    /// [`crate::Reply::File`].
    Describe,
    /// A directory: [`crate::Reply::File`], [`FileChunk::Entry`] for each name in it, [`FileChunk::End`].
    List,
    /// A regular file: [`crate::Reply::File`], exactly as many bytes of [`FileChunk::Data`] as that says,
    /// [`FileChunk::End`].
    Read,
    /// Anything: [`crate::Reply::File`], [`FileChunk::Data`] with a tar archive of it, [`FileChunk::End`].
    Pack,
    /// The host sends [`FileChunk::Data`] and [`FileChunk::End`]. The file is replaced at once and as a whole, then
    /// [`crate::Reply::File`]. A connection that ends early changes nothing.
    Write(FileOwnership),
    /// The host sends a tar archive as for [`FileAction::Write`]; it is unpacked into the directory at the path, which
    /// is made if there is none. Then [`crate::Reply::Done`].
    Unpack {
        /// Whether owners are taken from the archive; everything is root's otherwise.
        owners: bool,
    },
    /// [`crate::Reply::Done`].
    Remove {
        /// Also a directory that is not empty.
        recursive: bool,
    },
}

/// What a written file shall be; where nothing is said, a file keeps what it had, and a new one is root's, mode 0644.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct FileOwnership {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Last part of its path.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Size.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change, nanoseconds since the epoch.
    pub modified_ns: i64,
    /// Where a symbolic link points.
    pub target: Option<String>,
}

/// Kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// Regular.
    File,
    /// Directory.
    Directory,
    /// Symbolic link (in a listing; a path itself is followed).
    Link,
    /// Device, pipe or socket.
    Other,
}

/// A piece of a stream, either way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileChunk {
    /// Content.
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A name in a directory.
    Entry(FileInfo),
    /// All has been said.
    End,
    /// The rest cannot be had.
    Failed(FileFailure),
}

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFailure {
    /// The system's error number (Linux); 0 when it is none of the system's.
    pub errno: i32,
    /// One line.
    pub cause: String,
}
