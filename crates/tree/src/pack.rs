use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use crate::ROOT;

/// O_NONBLOCK, so that a pipe that took a file's place is not waited for.
const WITHOUT_WAITING: i32 = 0o4000;

/// Writes an archive of what `path` names, which is followed if it is a link. Whatever changes or vanishes meanwhile is
/// archived as it was found, or not at all: the archive is sound in any case.
pub fn pack(path: &Path, to: impl Write) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let metadata = fs::metadata(&path)?;
    let mut archive = Builder::new(to);
    if metadata.is_dir() {
        append_directory(&mut archive, Path::new(ROOT), &metadata)?;
        walk(&mut archive, &path, Path::new(""))?;
    } else {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        append(&mut archive, &path, Path::new(name), &metadata)?;
    }
    archive.into_inner()?.flush()
}

fn walk<W: Write>(archive: &mut Builder<W>, root: &Path, inside: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(inside))? {
        names.push(entry?.file_name());
    }
    names.sort();
    for name in names {
        let name = inside.join(name);
        let path = root.join(&name);
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        append(archive, &path, &name, &metadata)?;
        if metadata.is_dir() {
            walk(archive, root, &name)?;
        }
    }
    Ok(())
}

fn append<W: Write>(
    archive: &mut Builder<W>,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
) -> io::Result<()> {
    if metadata.is_dir() {
        return append_directory(archive, name, metadata);
    }
    if metadata.is_symlink() {
        let mut header = Header::new_gnu();
        header.set_metadata(metadata);
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        return archive.append_link(&mut header, name, fs::read_link(path)?);
    }
    if !metadata.is_file() {
        return Ok(());
    }
    let file = match File::options()
        .read(true)
        .custom_flags(WITHOUT_WAITING)
        .open(path)
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(());
    }
    let mut header = Header::new_gnu();
    header.set_metadata(&metadata);
    // Exactly as long as the header says, should the file grow or shrink.
    let content = file.chain(io::repeat(0)).take(metadata.len());
    archive.append_data(&mut header, name, content)
}

fn append_directory<W: Write>(archive: &mut Builder<W>, name: &Path, metadata: &Metadata) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_size(0);
    archive.append_data(&mut header, name, io::empty())
}
