use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Component, Path};

use tar::{Archive, EntryType, Header};

/// Unpacks an archive into `directory`, which is made if there is none. No entry gets out of it, by name or by link.
/// Modes and times are the archive's; owners too if `owners` says so, otherwise they are the caller's.
pub fn unpack(directory: &Path, from: impl Read, owners: bool) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let directory = fs::canonicalize(directory)?;
    let mut archive = Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_preserve_ownerships(owners);
    // Directories come last: what is written into them changes their time, and may need them to be writable.
    let (mut directories, mut root) = (Vec::new(), None);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let names_root = entry
            .path()?
            .components()
            .all(|part| matches!(part, Component::CurDir));
        match entry.header().entry_type() {
            EntryType::Directory if names_root => root = Some(entry.header().clone()),
            EntryType::Directory => directories.push(entry),
            EntryType::Regular
            | EntryType::Continuous
            | EntryType::GNUSparse
            | EntryType::Symlink
            | EntryType::Link => {
                entry.unpack_in(&directory)?;
            }
            _ => {}
        }
    }
    directories.sort_by(|one, other| other.path_bytes().cmp(&one.path_bytes()));
    for mut entry in directories {
        entry.unpack_in(&directory)?;
    }
    root.map_or(Ok(()), |header| dress(&directory, &header, owners))
}

fn dress(directory: &Path, header: &Header, owners: bool) -> io::Result<()> {
    if owners {
        let id = |id: u64| u32::try_from(id).map_err(|_| io::ErrorKind::InvalidData);
        chown(directory, Some(id(header.uid()?)?), Some(id(header.gid()?)?))?;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(header.mode()? & 0o7777))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use tar::Builder;

    use super::*;
    use crate::pack;

    fn packed(path: &Path) -> Vec<u8> {
        let mut archive = Vec::new();
        pack(path, &mut archive).expect("packs");
        archive
    }

    #[test]
    fn a_tree_arrives_as_it_was() {
        let (from, to) = (
            tempfile::tempdir().expect("dir"),
            tempfile::tempdir().expect("dir"),
        );
        let source = from.path().join("tree");
        let long = "n".repeat(200);
        fs::create_dir_all(source.join("read-only")).expect("creates");
        let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        fs::write(source.join("read-only").join(&long), &content).expect("writes");
        fs::write(source.join("tool"), "#!/bin/sh").expect("writes");
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        mode(&source.join("tool"), 0o4751).expect("sets");
        mode(&source.join("read-only"), 0o555).expect("sets");
        mode(&source, 0o711).expect("sets");
        symlink("/nowhere/at/all", source.join("link")).expect("links");
        std::os::unix::net::UnixListener::bind(source.join("socket")).expect("binds");

        let target = to.path().join("new/place");
        unpack(&target, packed(&source).as_slice(), false).expect("unpacks");
        assert_eq!(
            fs::read(target.join("read-only").join(&long)).expect("reads"),
            content
        );
        let mode_of = |path: &Path| fs::metadata(path).expect("exists").mode() & 0o7777;
        assert_eq!(mode_of(&target.join("tool")), 0o4751);
        assert_eq!(mode_of(&target.join("read-only")), 0o555);
        assert_eq!(mode_of(&target), 0o711);
        assert_eq!(
            fs::read_link(target.join("link")).expect("a link"),
            Path::new("/nowhere/at/all")
        );
        assert!(!target.join("socket").exists());
        // Once more over what is there.
        unpack(&target, packed(&source).as_slice(), false).expect("unpacks again");
    }

    #[test]
    fn a_single_file_keeps_its_name() {
        let directory = tempfile::tempdir().expect("dir");
        fs::write(directory.path().join("one"), "1").expect("writes");
        symlink("one", directory.path().join("alias")).expect("links");
        let archive = packed(&directory.path().join("alias"));
        let to = directory.path().join("to");
        unpack(&to, archive.as_slice(), false).expect("unpacks");
        assert_eq!(fs::read(to.join("one")).expect("reads"), b"1");
    }

    #[test]
    fn nothing_gets_out_of_the_directory() {
        let root = tempfile::tempdir().expect("dir");
        let (inside, outside) = (root.path().join("inside"), root.path().join("outside"));
        fs::create_dir(&outside).expect("creates");
        let archive = |entries: &[(&str, EntryType, &str)]| {
            let mut builder = Builder::new(Vec::new());
            for (name, kind, link) in entries {
                let mut header = Header::new_gnu();
                let field = &mut header.as_gnu_mut().expect("gnu").name;
                field[..name.len()].copy_from_slice(name.as_bytes());
                header.set_entry_type(*kind);
                header.set_mode(0o644);
                header.set_size(if *kind == EntryType::Regular { 4 } else { 0 });
                if !link.is_empty() {
                    header.set_link_name_literal(link).expect("fits");
                }
                header.set_cksum();
                let content: &[u8] = if *kind == EntryType::Regular { b"evil" } else { b"" };
                builder.append(&header, content).expect("appends");
            }
            builder.into_inner().expect("finishes")
        };
        let target = outside.to_str().expect("text");
        for hostile in [
            archive(&[("../outside/a", EntryType::Regular, "")]),
            archive(&[("x/../../outside/a", EntryType::Regular, "")]),
            archive(&[
                ("way", EntryType::Symlink, target),
                ("way/a", EntryType::Regular, ""),
            ]),
            archive(&[
                ("way", EntryType::Symlink, "../outside"),
                ("way/a", EntryType::Regular, ""),
            ]),
            archive(&[("a", EntryType::Symlink, target), ("a", EntryType::Directory, "")]),
        ] {
            // Refused or passed over: both leave the world outside as it was.
            let _ = unpack(&inside, hostile.as_slice(), false);
            assert_eq!(fs::read_dir(&outside).expect("lists").count(), 0);
            fs::remove_dir_all(&inside).expect("removes");
        }
        let absolute = archive(&[("/etc/evil", EntryType::Regular, "")]);
        unpack(&inside, absolute.as_slice(), false).expect("unpacks below the directory");
        assert_eq!(fs::read(inside.join("etc/evil")).expect("reads"), b"evil");
    }
}
