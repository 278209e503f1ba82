//! A directory as the zip archive of a build.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::error::{Error, Result};
use crate::image::dockerignore::Ignore;

/// These two go along whatever `.dockerignore` says: the build needs them.
const ALWAYS: [&str; 2] = ["Dockerfile", ".dockerignore"];

/// Zips what `.dockerignore` leaves of `dir` into a temporary file. The same content makes the
/// same bytes: names are sorted, times are fixed; modes are kept.
pub(super) fn pack(dir: &Path) -> Result<NamedTempFile> {
    if !dir.join("Dockerfile").is_file() {
        let cure = "Name a directory that has one at its root";
        return Err(Error::failed(
            format!("{} holds no Dockerfile", dir.display()),
            cure,
        ));
    }
    let ignore = match fs::read_to_string(dir.join(".dockerignore")) {
        Ok(text) => Ignore::parse(&text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ignore::default(),
        Err(error) => return Err(Error::file(dir.join(".dockerignore"))(error)),
    };
    let mut file = NamedTempFile::new().map_err(Error::file(std::env::temp_dir()))?;
    write(file.as_file_mut(), dir, ignore)?;
    Ok(file)
}

fn write(file: &mut File, dir: &Path, ignore: Ignore) -> Result<()> {
    let mut packer = Packer {
        zip: ZipWriter::new(file),
        ignore,
    };
    packer.add_directory(dir, "")?;
    packer
        .zip
        .finish()
        .map(drop)
        .map_err(|error| zip_error(dir, error))
}

struct Packer<W: Write + Seek> {
    zip: ZipWriter<W>,
    ignore: Ignore,
}

impl<W: Write + Seek> Packer<W> {
    /// Adds what is in `dir`, whose name in the archive is `prefix` with a slash at its end.
    fn add_directory(&mut self, dir: &Path, prefix: &str) -> Result<()> {
        let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = entries.map_err(Error::file(dir))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name().into_string().map_err(|_| {
                Error::failed(
                    format!("the name of {} is not UTF-8", path.display()),
                    "Rename it, or list it in .dockerignore",
                )
            })?;
            self.add(&path, &format!("{prefix}{name}"))?;
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, name: &str) -> Result<()> {
        let left_out = self.ignore.leaves_out(name) && !ALWAYS.contains(&name);
        let metadata = fs::symlink_metadata(path).map_err(Error::file(path))?;
        let kind = metadata.file_type();
        if left_out && !(kind.is_dir() && self.ignore.takes_back_in()) {
            return Ok(());
        }
        let options = options(&metadata);
        let failed = |error| zip_error(path, error);
        if kind.is_dir() {
            // One that is left out appears through what is taken back in below it, if anything.
            if !left_out {
                self.zip.add_directory(name, options).map_err(failed)?;
            }
            return self.add_directory(path, &format!("{name}/"));
        }
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(Error::file(path))?;
            let target = target.into_os_string().into_string();
            let target = target.map_err(|_| {
                Error::failed(format!("{} does not point to a UTF-8 name", path.display()), "")
            })?;
            self.zip.add_symlink(name, target, options).map_err(failed)?;
        } else if kind.is_file() {
            self.zip.start_file(name, options).map_err(failed)?;
            let mut file = File::open(path).map_err(Error::file(path))?;
            io::copy(&mut file, &mut self.zip).map_err(Error::file(path))?;
        }
        // Sockets, pipes and devices have no content to send.
        Ok(())
    }
}

fn options(metadata: &fs::Metadata) -> SimpleFileOptions {
    /// From here on an entry needs the archive format's 64-bit sizes; compression may also add to it.
    const LARGE_BYTES: u64 = 0xf000_0000;
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default())
        .unix_permissions(metadata.permissions().mode() & 0o7777)
        .large_file(metadata.len() >= LARGE_BYTES)
}

fn zip_error(path: &Path, error: zip::result::ZipError) -> Error {
    Error::failed(
        format!("cannot pack {}: {error}", path.display()),
        "Check the free space of the temporary directory",
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use zip::ZipArchive;

    use super::*;

    fn project(ignore: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        for (name, text) in [
            ("Dockerfile", "FROM a"),
            ("app/run", "#!"),
            ("app/x.log", "x"),
            ("docs/keep", "k"),
            ("docs/b", "b"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        fs::write(dir.path().join(".dockerignore"), ignore).expect("written");
        fs::set_permissions(dir.path().join("app/run"), fs::Permissions::from_mode(0o755)).expect("mode");
        symlink("run", dir.path().join("app/link")).expect("linked");
        fs::create_dir(dir.path().join("empty")).expect("made");
        dir
    }

    fn names(packed: &NamedTempFile) -> Vec<String> {
        let archive = ZipArchive::new(packed.reopen().expect("opened")).expect("a zip");
        let mut names: Vec<_> = archive
            .file_names()
            .map(|name| name.expect("a name").into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_modes_links_and_empty_directories_are_in_the_archive() {
        let packed = pack(project("").path()).expect("packed");
        let mut archive = ZipArchive::new(packed.reopen().expect("opened")).expect("a zip");
        let mut run = archive.by_name("app/run").expect("there");
        let mut text = String::new();
        run.read_to_string(&mut text).expect("read");
        assert_eq!(
            (text.as_str(), run.unix_mode().map(|mode| mode & 0o7777)),
            ("#!", Some(0o755))
        );
        drop(run);
        assert!(archive.by_name("app/link").expect("there").is_symlink());
        assert!(archive.by_name("empty/").expect("there").is_dir());
    }

    #[test]
    fn the_build_gets_its_dockerfile_whatever_is_ignored() {
        let packed = pack(project("*").path()).expect("packed");
        assert_eq!(names(&packed), [".dockerignore", "Dockerfile"]);
    }

    #[test]
    fn what_is_ignored_stays_out_and_what_is_taken_back_comes_in() {
        let packed = pack(project("docs\n!docs/keep\n**/*.log\nempty").path()).expect("packed");
        assert_eq!(
            names(&packed),
            [
                ".dockerignore",
                "Dockerfile",
                "app/",
                "app/link",
                "app/run",
                "docs/keep"
            ]
        );
    }

    #[test]
    fn the_same_content_makes_the_same_bytes() {
        let pack = |dir: &tempfile::TempDir| fs::read(pack(dir.path()).expect("packed")).expect("read");
        let (one, two) = (project(""), project(""));
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
        File::open(two.path().join("docs/b"))
            .and_then(|file| file.set_modified(later))
            .expect("touched");
        assert_eq!(pack(&one), pack(&two));
    }

    #[test]
    fn a_directory_without_a_dockerfile_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let error = pack(dir.path()).expect_err("refused");
        assert!(error.line().expect("a line").contains("holds no Dockerfile. "));
    }
}
