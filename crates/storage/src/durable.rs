//! Files and directories that are there whole or not at all, whatever happens in between.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Makes a rename or removal in `directory` last.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Replaces `path` by a file with this content, readable by its owner only.
pub fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    write_file_with_mode(path, content, 0o600)
}

/// Replaces `path` by a file with this content and mode.
pub fn write_file_with_mode(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = path
        .parent()
        .ok_or_else(|| io::Error::other("a file needs a directory"))?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Moves a finished directory (its files already synced) to its place.
pub fn publish_directory(from: &Path, to: &Path) -> io::Result<()> {
    sync_directory(from)?;
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), sync_directory)
}

/// Removes a directory tree so that a half-done removal is never mistaken for a whole tree: it is renamed first.
/// Nothing there is fine.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    let mut doomed = path.as_os_str().to_owned();
    doomed.push(".removed");
    let doomed = Path::new(&doomed);
    remove_if_there(doomed)?;
    match fs::rename(path, doomed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    path.parent().map_or(Ok(()), sync_directory)?;
    remove_if_there(doomed)
}

/// Removes the temporary directories that a daemon left in `parent` when it was killed.
pub fn remove_temporary(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(".tmp") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file; nothing there is fine.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_temporary_behind() {
        let directory = tempfile::tempdir().expect("temp dir");
        let path = directory.path().join("state");
        write_file(&path, b"old").expect("written");
        write_file(&path, b"new").expect("replaced");
        assert_eq!(fs::read(&path).expect("there"), b"new");
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_removed_directory_is_gone_and_removing_it_again_is_fine() {
        let directory = tempfile::tempdir().expect("temp dir");
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("deep")).expect("made");
        remove_directory(&tree).expect("removed");
        remove_directory(&tree).expect("still fine");
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 0);
    }
}
