//! `hearth cp`: files and trees between this machine and a MicroVM.

mod transfer;

use std::path::{Path, PathBuf};

use clap::Args;

use self::transfer::Remote;
use crate::error::{Error, Result};
use crate::output::spinner;
use crate::service::Service;

/// Copies.
#[derive(Args)]
pub(crate) struct Cp {
    /// Keep owners as well; otherwise files become root's there and yours here
    #[arg(short = 'a', long)]
    archive: bool,
    /// A path of this machine, or ID:/PATH in a MicroVM
    source: String,
    /// Where it goes: into it if that is a directory or ends in /, else this name
    target: String,
}

/// One side of a copy.
#[derive(Debug, PartialEq)]
enum Place {
    Here(PathBuf),
    There { id: String, path: String },
}

impl Place {
    /// `ID:/PATH` with nothing but letters, digits and `-` in the id, else a path of this machine.
    fn parse(text: &str) -> Self {
        match text.split_once(":/") {
            Some((id, path))
                if !id.is_empty()
                    && id
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') =>
            {
                Self::There {
                    id: id.to_owned(),
                    path: format!("/{path}"),
                }
            }
            _ => Self::Here(text.into()),
        }
    }
}

impl Cp {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service) -> Result<()> {
        let bar = spinner(format!("copying {}", self.source));
        let done = match (Place::parse(&self.source), Place::parse(&self.target)) {
            (Place::Here(source), Place::There { id, path }) => {
                let remote = Remote::of(service, &id).await?;
                up(&remote, &source, &path, self.archive).await
            }
            (Place::There { id, path }, Place::Here(target)) => {
                let remote = Remote::of(service, &id).await?;
                down(&remote, &path, &target, self.archive).await
            }
            _ => Err(Error::usage(
                "one of the two must be in a MicroVM, and only one",
                "Write it as ID:/PATH",
            )),
        };
        bar.finish_and_clear();
        done
    }
}

async fn up(remote: &Remote, source: &Path, target: &str, owners: bool) -> Result<()> {
    let metadata = std::fs::metadata(source).map_err(Error::file(source))?;
    let into = target.ends_with('/')
        || remote
            .describe(target)
            .await?
            .is_some_and(|file| file.is_directory());
    let target = if into {
        // `.` and `..` have no name of their own.
        let source = std::fs::canonicalize(source).map_err(Error::file(source))?;
        let name = source.file_name().map(|name| name.to_string_lossy().into_owned());
        format!("{}/{}", target.trim_end_matches('/'), name.unwrap_or_default())
    } else {
        target.to_owned()
    };
    if metadata.is_dir() {
        remote.put_tree(source, &target, owners).await
    } else {
        remote.put_file(source, &metadata, &target, owners).await
    }
}

async fn down(remote: &Remote, source: &str, target: &Path, owners: bool) -> Result<()> {
    let file = remote
        .describe(source)
        .await?
        .ok_or_else(|| Error::failed(format!("{source} does not exist in the MicroVM"), ""))?;
    let into = target.is_dir() || target.as_os_str().to_string_lossy().ends_with('/');
    let target = match (into, source.trim_end_matches('/').rsplit('/').next()) {
        (true, Some(name)) if !name.is_empty() => target.join(name),
        _ => target.to_owned(),
    };
    if file.is_directory() {
        remote.get_tree(source, &target, owners).await
    } else {
        remote.get_file(source, &file, &target, owners).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_microvm_has_an_id_and_an_absolute_path() {
        let there = |id: &str, path: &str| Place::There {
            id: id.into(),
            path: path.into(),
        };
        assert_eq!(Place::parse("microvm-1:/a/b"), there("microvm-1", "/a/b"));
        assert_eq!(Place::parse("1a:/"), there("1a", "/"));
        for here in ["a", "./x:/y", "/x:/y", "a:b", ":/x"] {
            assert_eq!(Place::parse(here), Place::Here(here.into()), "{here}");
        }
    }
}
