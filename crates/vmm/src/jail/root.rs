use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, chown},
    },
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::{chdir, pivot_root},
};

use super::{JailSpec, OWN};

const NOTHING: Option<&str> = None;

/// Makes the jail's file system and moves into it; the host's is gone afterwards. Needs a mount namespace of its own.
pub(super) fn enter(spec: &JailSpec) -> io::Result<()> {
    mount(
        NOTHING,
        "/",
        NOTHING,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        NOTHING,
    )?;
    // The root is mounted over the VMM's own directory, which is then reached by its descriptor.
    let own = File::open(&spec.directory)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(
        Some("jail"),
        &spec.directory,
        Some("tmpfs"),
        flags,
        Some("mode=0755,size=64k"),
    )?;
    let root = Root(&spec.directory);

    let target = root.directory(Path::new(OWN))?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", own.as_raw_fd()));
    bind(&source, &target, flags | MsFlags::MS_NODEV)?;
    for file in &spec.binds {
        let target = root.file(&file.to)?;
        let access = if file.writable {
            MsFlags::empty()
        } else {
            MsFlags::MS_RDONLY
        };
        bind(
            &file.from,
            &target,
            access | MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        )
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.from.display())))?;
    }
    for place in &spec.places {
        root.file(place)?;
    }
    for device in &spec.devices {
        let path = root.beside(&device.path)?;
        let number = makedev(device.number.0, device.number.1);
        mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, number)?;
        chown(&path, Some(spec.user), Some(spec.group))?;
    }

    chdir(&spec.directory)?;
    // The old root comes to lie over the new one, from where it is taken away.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags;
    mount(NOTHING, "/", NOTHING, flags, NOTHING)?;
    Ok(chdir(OWN)?)
}

fn bind(from: &Path, to: &Path, flags: MsFlags) -> io::Result<()> {
    mount(Some(from), to, NOTHING, MsFlags::MS_BIND, NOTHING)?;
    Ok(mount(
        NOTHING,
        to,
        NOTHING,
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags,
        NOTHING,
    )?)
}

/// The new root, while it is built.
struct Root<'a>(&'a Path);

impl Root<'_> {
    /// The path in the new root of a path in the jail; the directories above it are made.
    fn beside(&self, path: &Path) -> io::Result<PathBuf> {
        let inside = path.strip_prefix("/").map_err(io::Error::other)?;
        let target = self.0.join(inside);
        if let Some(parent) = target.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        Ok(target)
    }

    fn directory(&self, path: &Path) -> io::Result<PathBuf> {
        let target = self.beside(path)?;
        fs::DirBuilder::new().mode(0o755).create(&target)?;
        Ok(target)
    }

    fn file(&self, path: &Path) -> io::Result<PathBuf> {
        let target = self.beside(path)?;
        File::create_new(&target)?;
        Ok(target)
    }
}
