//! The two disks every guest has, and the root they make together.
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::unistd::{Gid, Uid, chown};

/// Disk 0: the image's root file system, EROFS, read-only, shared by all clones.
const IMAGE_DISK: &str = "/dev/vda";
/// Disk 1: ext4, this guest's own.
const SCRATCH_DISK: &str = "/dev/vdb";

/// Mount point of the image.
pub const IMAGE: &str = "/image";
/// Mount point of the scratch disk.
pub const SCRATCH: &str = "/scratch";
/// Where the application's root is put together.
pub const ROOT: &str = "/container";

/// Directories where an overlay above the overlay would break nested containers: name on the scratch disk, place in
/// the container.
pub const PLAIN_DIRECTORIES: [(&str, &str); 2] = [
    ("/scratch/docker", "/var/lib/docker"),
    ("/scratch/containers", "/var/lib/containers"),
];

/// Mounts both disks and the overlay of them at [`ROOT`].
pub fn mount_root() -> anyhow::Result<()> {
    mount_disk(IMAGE_DISK, IMAGE, "erofs", MsFlags::MS_RDONLY, "")?;
    // The host made the file system without initialized inode tables; the guest must not fill the sparse disk with them.
    mount_disk(
        SCRATCH_DISK,
        SCRATCH,
        "ext4",
        MsFlags::MS_NOATIME,
        "noinit_itable",
    )?;
    overlay(Path::new(IMAGE), Path::new(SCRATCH), Path::new(ROOT))?;
    for (source, _) in PLAIN_DIRECTORIES {
        make_directory(Path::new(source), 0o711)?;
    }
    Ok(())
}

fn mount_disk(disk: &str, at: &str, kind: &str, flags: MsFlags, options: &str) -> anyhow::Result<()> {
    mount(Some(disk), at, Some(kind), flags, Some(options))
        .with_context(|| format!("cannot mount {disk} as {kind}"))
}

/// Mounts `scratch`/upper over `image` at `root`, with the owner and mode that the image's root directory has.
fn overlay(image: &Path, scratch: &Path, root: &Path) -> anyhow::Result<()> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    make_directory(&work, 0o700)?;
    make_directory(&upper, 0o755)?;
    let like = fs::metadata(image)?;
    chown(
        &upper,
        Some(Uid::from_raw(like.uid())),
        Some(Gid::from_raw(like.gid())),
    )?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(like.mode() & 0o7777))?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        image.display(),
        upper.display(),
        work.display()
    );
    mount(
        Some("overlay"),
        root,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .context("cannot overlay the scratch disk on the image")
}

fn make_directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))
}
