//! Raw, sparse disks. The host never looks into a file system that a tenant wrote; it copies bytes.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::Path,
    process::Command,
};

use nix::{
    errno::Errno,
    sys::statvfs::statvfs,
    unistd::{Whence, lseek},
};

/// Room that a file system which counts as full may still have: the kernel keeps some blocks for itself.
const AS_GOOD_AS_NONE: u64 = 1 << 20;

/// An error when there is no room left where `path` lies.
pub fn has_room(path: &Path) -> io::Result<()> {
    let found = statvfs(path)?;
    match found.blocks_available() * found.fragment_size() < AS_GOOD_AS_NONE {
        true => Err(Errno::ENOSPC.into()),
        false => Ok(()),
    }
}

/// Makes an empty sparse disk.
pub fn create(path: &Path, bytes: u64) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_len(bytes)?;
    Ok(file)
}

/// Makes a sparse disk with an empty ext4 file system, by `mkfs.ext4`.
///
/// No journal: the disk is never mounted again without the memory that belongs to it, so there is nothing to replay.
pub fn create_ext4(path: &Path, bytes: u64) -> io::Result<()> {
    create(path, bytes)?;
    let features = "^has_journal,^resize_inode,metadata_csum,sparse_super2";
    let output = Command::new("mkfs.ext4")
        .args([
            "-q",
            "-F",
            "-m",
            "0",
            "-O",
            features,
            "-E",
            "lazy_itable_init=1,nodiscard,num_backup_sb=0",
            "-I",
            "256",
        ])
        .args(["-i", "32768"])
        .arg(path)
        .output()
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot start mkfs.ext4 (install e2fsprogs): {error}"),
            )
        })?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("mkfs.ext4 failed: {words}")));
    }
    File::open(path)?.sync_all()
}

/// Clones a disk: shares blocks where the file system can, else copies its data extents only.
pub fn clone(from: &Path, to: &Path) -> io::Result<()> {
    let from = File::open(from)?;
    let length = from.metadata()?.len();
    let file = create(to, length)?;
    let mut at = 0;
    loop {
        let start = match lseek(&from, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = lseek(&from, start, Whence::SeekHole)?;
        copy_extent(&from, &file, start, end)?;
        at = end;
    }
}

/// By the kernel where both files allow it, which they may not on different file systems.
fn copy_extent(mut from: &File, mut to: &File, start: i64, end: i64) -> io::Result<()> {
    let (start, length) = (start as u64, (end - start) as u64);
    from.seek(SeekFrom::Start(start))?;
    to.seek(SeekFrom::Start(start))?;
    match io::copy(&mut from.take(length), &mut to)? {
        copied if copied == length => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

/// Another name for a disk that nobody writes; a copy where the name lies on another file system.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => clone(from, to),
        result => result,
    }
}

/// Gives a disk another name; on another file system it is copied.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            clone(from, to)?;
            File::open(to)?.sync_all()?;
            fs::remove_file(from)
        }
        result => result,
    }
}

/// Bytes that the file takes on disk.
pub fn allocated_bytes(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.blocks() * 512)
}

/// Gives a file to the user and group a VMM runs as, with this mode.
pub fn give(path: &Path, user: Option<u32>, group: Option<u32>, mode: u32) -> io::Result<()> {
    chown(path, user, group)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_clone_has_the_content_and_stays_sparse() {
        let directory = tempfile::tempdir().expect("temp dir");
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let disk = create(&from, 8 << 30).expect("made");
        for at in [0, 5 << 20, (8 << 30) - 4096] {
            disk.write_all_at(&[7; 4096], at).expect("written");
        }
        clone(&from, &to).expect("cloned");
        let copy = File::open(&to).expect("there");
        assert_eq!(copy.metadata().expect("there").len(), 8 << 30);
        let mut page = [0; 4096];
        copy.read_exact_at(&mut page, 5 << 20).expect("read");
        assert_eq!(page, [7; 4096]);
        assert!(allocated_bytes(&to).expect("measured") <= 64 << 10);
    }

    #[test]
    fn a_clone_or_link_on_another_file_system_is_a_copy() {
        let directory = tempfile::tempdir().expect("temp dir");
        let memory = tempfile::tempdir_in("/dev/shm").expect("temp dir");
        let from = directory.path().join("from");
        let disk = create(&from, 1 << 30).expect("made");
        let content = [[7; 4096], [8; 4096]].concat();
        disk.write_all_at(&content, 5 << 20).expect("written");
        for (name, copy) in [("clone", clone as fn(&Path, &Path) -> _), ("link", link)] {
            let to = memory.path().join(name);
            copy(&from, &to).expect("copied");
            let copy = File::open(&to).expect("there");
            assert_eq!(copy.metadata().expect("there").len(), 1 << 30);
            let mut seen = vec![0; content.len()];
            copy.read_exact_at(&mut seen, 5 << 20).expect("read");
            assert!(seen == content, "{name}");
        }
    }

    #[test]
    fn an_existing_disk_is_never_overwritten() {
        let directory = tempfile::tempdir().expect("temp dir");
        let path = directory.path().join("disk");
        create(&path, 4096).expect("made");
        assert!(create(&path, 4096).is_err());
        assert!(clone(&path, &path).is_err());
    }

    #[test]
    fn an_empty_file_system_costs_little() {
        let directory = tempfile::tempdir().expect("temp dir");
        let path = directory.path().join("scratch");
        create_ext4(&path, 8 << 30).expect("made");
        assert!(allocated_bytes(&path).expect("measured") < 8 << 20);
    }
}
