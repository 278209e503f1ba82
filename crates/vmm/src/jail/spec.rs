use std::{ffi::OsString, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::driver::Disk;

/// A file of the host that the jail holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bind {
    /// On the host.
    pub from: PathBuf,
    /// In the jail.
    pub to: PathBuf,
    /// Whether the VMM may write it, where the file's own permissions let it.
    pub writable: bool,
}

impl Bind {
    /// A file at another place, to be read only.
    pub fn read_only(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Bind {
        Bind {
            from: from.into(),
            to: to.into(),
            writable: false,
        }
    }
}

/// A disk's place in the jail.
pub(crate) fn disk_place(index: usize) -> PathBuf {
    PathBuf::from(format!("/disks/{index}"))
}

/// Binds the disks that have a file; returns the places of the others.
pub(crate) fn bind_disks(disks: &[Disk], binds: &mut Vec<Bind>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for (index, disk) in disks.iter().enumerate() {
        match &disk.path {
            Some(path) => binds.push(Bind {
                from: path.clone(),
                to: disk_place(index),
                writable: !disk.read_only,
            }),
            None => places.push(disk_place(index)),
        }
    }
    places
}

/// A character device of the VMM's own in the jail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Device {
    /// In the jail.
    pub path: PathBuf,
    /// Major and minor number.
    pub number: (u64, u64),
}

/// The network namespace of a VMM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum NetworkOf {
    /// A new one without any interface.
    Nobody,
    /// The guest's, for a VMM that opens the tap by its name.
    Guest(PathBuf),
}

/// One jail. Passed from the daemon to the launcher.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JailSpec {
    /// User of the VMM, nobody else's.
    pub user: u32,
    /// Group of the VMM, nobody else's.
    pub group: u32,
    /// The group that may read images.
    pub images_group: u32,
    /// The VMM's own directory on the host.
    pub directory: PathBuf,
    /// Network namespace.
    pub network: NetworkOf,
    /// Directories of the control groups to join.
    pub cgroups: Vec<PathBuf>,
    /// Files in the jail.
    pub binds: Vec<Bind>,
    /// Empty files in the jail, where [`attach`](super::attach) can show more.
    pub places: Vec<PathBuf>,
    /// Devices in the jail.
    pub devices: Vec<Device>,
    /// Longest file it may write, in bytes.
    pub file_bytes: u64,
    /// Most processes and threads.
    pub tasks: u64,
    /// The VMM's program, in the jail.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment.
    pub environment: Vec<(String, String)>,
}
