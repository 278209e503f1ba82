//! What leaves files as they are.
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use hearth_agent_protocol::{FileChunk, FileInfo, FileKind, Reply, write_frame};

use super::chunks::Sender;
use super::{Outcome, failure};

/// Files that name no size (as those of /proc) are read whole up to this.
const MAX_UNSIZED_BYTES: u64 = 4 << 20;

/// What the path stands for; a link is followed.
pub(super) fn describe(path: &Path) -> Outcome<FileInfo> {
    let metadata = fs::metadata(path).map_err(|error| failure::from(&error))?;
    Ok(info(path, &metadata))
}

pub(super) fn info(path: &Path, metadata: &Metadata) -> FileInfo {
    let kind = metadata.file_type();
    FileInfo {
        name: path
            .file_name()
            .map_or_else(|| "/".into(), |name| name.to_string_lossy().into_owned()),
        kind: match () {
            () if kind.is_file() => FileKind::File,
            () if kind.is_dir() => FileKind::Directory,
            () if kind.is_symlink() => FileKind::Link,
            () => FileKind::Other,
        },
        bytes: metadata.len(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified_ns: metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec()),
        target: kind
            .is_symlink()
            .then(|| fs::read_link(path).ok())
            .flatten()
            .map(|target| target.to_string_lossy().into_owned()),
    }
}

pub(super) fn list(path: &Path, host: &mut TcpStream) -> Outcome<()> {
    let described = describe(path)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| failure::from(&error))? {
        names.push(entry.map_err(|error| failure::from(&error))?.file_name());
    }
    names.sort();
    let mut frames = vec![];
    for name in names {
        let path = path.join(name);
        // What has gone meanwhile is not listed.
        if let Ok(metadata) = fs::symlink_metadata(&path) {
            frames.push(FileChunk::Entry(info(&path, &metadata)));
        }
    }
    frames.push(FileChunk::End);
    if write_frame(host, &Reply::File(described)).is_ok() {
        // A host that has gone needs no list.
        let _ = frames.iter().try_for_each(|frame| write_frame(host, frame));
    }
    Ok(())
}

pub(super) fn read(path: &Path, host: &mut TcpStream) -> Outcome<()> {
    // Without waiting, should it be a pipe.
    let mut file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| failure::from(&error))?;
    let metadata = file.metadata().map_err(|error| failure::from(&error))?;
    if metadata.is_dir() {
        return Err(failure::of(libc::EISDIR, "it is a directory"));
    }
    if !metadata.is_file() {
        return Err(failure::of(libc::EINVAL, "it is not a regular file"));
    }
    let mut described = info(path, &metadata);
    let mut unsized_content = Vec::new();
    if described.bytes == 0 {
        (&mut file)
            .take(MAX_UNSIZED_BYTES)
            .read_to_end(&mut unsized_content)
            .map_err(|error| failure::from(&error))?;
        described.bytes = unsized_content.len() as u64;
    }
    let bytes = described.bytes;
    if write_frame(host, &Reply::File(described)).is_err() {
        return Ok(());
    }
    let mut sender = Sender::new(host);
    let mut content = unsized_content.as_slice().chain(file).take(bytes);
    let copied = io::copy(&mut content, &mut sender).and_then(|count| {
        sender.flush()?;
        (count == bytes)
            .then_some(())
            .ok_or_else(|| io::Error::other("the file became shorter while it was read"))
    });
    end(host, copied);
    Ok(())
}

pub(super) fn pack(path: &Path, host: &mut TcpStream) -> Outcome<()> {
    let described = describe(path)?;
    if described.kind == FileKind::Other {
        return Err(failure::of(libc::EINVAL, "it is neither a file nor a directory"));
    }
    if write_frame(host, &Reply::File(described)).is_err() {
        return Ok(());
    }
    let packed = hearth_tree::pack(path, Sender::new(host));
    end(host, packed);
    Ok(())
}

fn end(host: &mut TcpStream, outcome: io::Result<()>) {
    let last = match outcome {
        Ok(()) => FileChunk::End,
        Err(error) => FileChunk::Failed(failure::from(&error)),
    };
    // A host that has gone needs no end.
    let _ = write_frame(host, &last);
}
