//! What changes files.
use std::fs::{self, File, Permissions};
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use hearth_agent_protocol::{FileInfo, FileOwnership};

use super::chunks::Receiver;
use super::{Outcome, failure, look};

const NEW_FILE_MODE: u32 = 0o644;

/// Replaces a file by what the host sends. It is written beside its place first: the place holds the old or the new.
pub(super) fn write(path: &Path, host: &mut TcpStream, ownership: FileOwnership) -> Outcome<FileInfo> {
    let mut write = || -> io::Result<PathBuf> {
        let place = place(path)?;
        let old = match fs::metadata(&place) {
            Ok(old) if old.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(old) if !old.is_file() => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is not a regular file",
                ));
            }
            old => old.ok(),
        };
        let beside = beside(&place)?;
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        let mut content = Receiver::new(host);
        let written = io::copy(&mut content, &mut file).and_then(|_| {
            let uid = ownership.uid.or(old.as_ref().map(|old| old.uid()));
            let gid = ownership.gid.or(old.as_ref().map(|old| old.gid()));
            fchown(&file, Some(uid.unwrap_or(0)), Some(gid.unwrap_or(0)))?;
            let mode = ownership.mode.or(old.as_ref().map(|old| old.mode()));
            file.set_permissions(Permissions::from_mode(mode.unwrap_or(NEW_FILE_MODE) & 0o7777))?;
            fs::rename(&beside, &place)
        });
        if let Err(error) = written {
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        Ok(place)
    };
    let place = write().map_err(|error| failure::from(&error))?;
    look::describe(&place)
}

/// Where the path leads: links are followed, and directories made that are not there.
fn place(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    fs::create_dir_all(parent)?;
    Ok(fs::canonicalize(parent)?.join(name))
}

fn beside(place: &Path) -> io::Result<PathBuf> {
    let parent = place.parent().ok_or(io::ErrorKind::IsADirectory)?;
    Ok(parent.join(format!(".hearth-{}", std::process::id())))
}

/// Unpacks an archive that the host sends.
pub(super) fn unpack(path: &Path, host: &mut TcpStream, owners: bool) -> Outcome<()> {
    let mut archive = Receiver::new(host);
    hearth_tree::unpack(path, &mut archive, owners)
        .and_then(|()| archive.finish())
        .map_err(|error| match failure::from(&error) {
            // What the system has no number for is the archive's own fault.
            failure if failure.errno == 0 => failure::of(libc::EINVAL, &failure.cause),
            failure => failure,
        })
}

/// Removes a file, a link itself, or a directory.
pub(super) fn remove(path: &Path, recursive: bool) -> Outcome<()> {
    let remove = || match fs::symlink_metadata(path)? {
        metadata if !metadata.is_dir() => fs::remove_file(path),
        _ if recursive => fs::remove_dir_all(path),
        _ => fs::remove_dir(path),
    };
    remove().map_err(|error| failure::from(&error))
}
