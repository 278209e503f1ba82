//! A snapshot's directory: manifest, memory, device state, root disk, scratch disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hearth_agent_protocol::PROTOCOL_VERSION;
use hearth_storage::durable;
use hearth_vmm::Platform;
use serde::{Deserialize, Serialize};

use crate::{
    GuestError,
    integrity::{FileSum, seal, unseal},
};

/// Version of the manifest and of the directory's layout. Those before are still read: version 1 knew neither id nor
/// checksums, version 2 none of the manifest itself.
const FORMAT_VERSION: u64 = 3;
/// The first version whose manifest has a checksum of itself.
const SEALED_SINCE: u64 = 3;
const MANIFEST: &str = "manifest.json";

/// The virtual hardware of a guest; the same at its snapshot and at every restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shape {
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Number of virtual CPUs.
    pub vcpus: u32,
    /// The disks after root: scratch first.
    pub disks: Vec<DiskShape>,
}

/// A disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskShape {
    /// Size in bytes.
    pub bytes: u64,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

impl DiskShape {
    /// A disk the guest may write.
    pub fn writable(bytes: u64) -> DiskShape {
        DiskShape {
            bytes,
            read_only: false,
        }
    }

    /// A disk the guest may only read.
    pub fn read_only(bytes: u64) -> DiskShape {
        DiskShape {
            bytes,
            read_only: true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    format: u64,
    protocol: u32,
    platform: Platform,
    shape: Shape,
    kernel_release: String,
    /// Told apart by it from another snapshot at the same place; empty in version 1.
    #[serde(default)]
    id: String,
    #[serde(default)]
    sums: Option<Sums>,
}

/// What the files were when the snapshot was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Sums {
    pub(crate) memory: FileSum,
    pub(crate) device_state: FileSum,
}

/// A complete snapshot on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    directory: PathBuf,
    platform: Platform,
    shape: Shape,
    kernel_release: String,
    id: String,
    sums: Option<Sums>,
}

impl Snapshot {
    /// Opens a snapshot and refuses, by name, what this node cannot load.
    pub fn open(directory: &Path, platform: &Platform) -> Result<Snapshot, GuestError> {
        let bad = |cause: String| GuestError::Snapshot {
            path: directory.to_owned(),
            cause,
        };
        let text = fs::read(directory.join(MANIFEST)).map_err(|error| bad(error.to_string()))?;
        let manifest: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        match manifest["format"].as_u64() {
            Some(1..=FORMAT_VERSION) => {}
            Some(found) => {
                return Err(GuestError::Format {
                    found,
                    newest: FORMAT_VERSION,
                });
            }
            None => return Err(bad("its manifest has no format".into())),
        }
        let manifest: Manifest =
            unseal(manifest, SEALED_SINCE).map_err(|error| bad(format!("its manifest: {error}")))?;
        if manifest.protocol != PROTOCOL_VERSION {
            return Err(GuestError::Protocol {
                found: manifest.protocol,
                expected: PROTOCOL_VERSION,
            });
        }
        if manifest.platform != *platform {
            let (found, expected) = (Box::new(manifest.platform), Box::new(platform.clone()));
            return Err(hearth_vmm::VmmError::Platform { found, expected }.into());
        }
        Ok(Snapshot::of(directory, manifest))
    }

    /// Writes the manifest into a directory whose other files are complete and synced; what it describes is now whole.
    pub(crate) fn seal(
        directory: &Path,
        platform: &Platform,
        shape: &Shape,
        kernel_release: &str,
    ) -> io::Result<Snapshot> {
        let manifest = Manifest {
            format: FORMAT_VERSION,
            protocol: PROTOCOL_VERSION,
            platform: platform.clone(),
            shape: shape.clone(),
            kernel_release: kernel_release.to_owned(),
            id: uuid::Uuid::new_v4().to_string(),
            sums: Some(Sums {
                memory: FileSum::of(&memory_path(directory))?,
                device_state: FileSum::of(&device_state_path(directory))?,
            }),
        };
        durable::write_file(&directory.join(MANIFEST), &seal(&manifest)?)?;
        Ok(Snapshot::of(directory, manifest))
    }

    fn of(directory: &Path, manifest: Manifest) -> Snapshot {
        Snapshot {
            directory: directory.to_owned(),
            platform: manifest.platform,
            shape: manifest.shape,
            kernel_release: manifest.kernel_release,
            id: manifest.id,
            sums: manifest.sums,
        }
    }

    /// The same snapshot after its directory was moved.
    pub fn moved_to(self, directory: &Path) -> Snapshot {
        Snapshot {
            directory: directory.to_owned(),
            ..self
        }
    }

    /// Tells it apart from an earlier or later snapshot at the same place; empty for one of an old format.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether memory and device state are what they were when it was sealed. Reads them whole: call it where a thread
    /// may block.
    pub(crate) fn verify(&self) -> Result<(), GuestError> {
        let Some(sums) = self.sums else { return Ok(()) };
        for (path, sum) in [
            (self.memory(), sums.memory),
            (self.device_state(), sums.device_state),
        ] {
            sum.verify(&path).map_err(|error| GuestError::Snapshot {
                path: self.directory.clone(),
                cause: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// What made it and runs its clones.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Release of the kernel that its guest runs.
    pub fn kernel_release(&self) -> &str {
        &self.kernel_release
    }

    /// The virtual hardware.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Guest memory: mapped by every clone, copied by none.
    pub fn memory(&self) -> PathBuf {
        memory_path(&self.directory)
    }

    /// Device state.
    pub fn device_state(&self) -> PathBuf {
        device_state_path(&self.directory)
    }

    /// The read-only root disk.
    pub fn root(&self) -> PathBuf {
        root_path(&self.directory)
    }

    /// The scratch disk as it was; clones copy its data extents.
    pub fn scratch(&self) -> PathBuf {
        scratch_path(&self.directory)
    }
}

/// Guest memory in a snapshot's directory.
pub fn memory_path(directory: &Path) -> PathBuf {
    directory.join("memory")
}

/// Device state in a snapshot's directory.
pub fn device_state_path(directory: &Path) -> PathBuf {
    directory.join("device-state")
}

/// Root disk in a snapshot's directory.
pub fn root_path(directory: &Path) -> PathBuf {
    directory.join("root.erofs")
}

/// Scratch disk in a snapshot's directory.
pub fn scratch_path(directory: &Path) -> PathBuf {
    directory.join("scratch.img")
}

#[cfg(test)]
mod tests {
    use hearth_vmm::Acceleration;

    use super::*;

    fn platform(version: &str) -> Platform {
        Platform {
            driver: "qemu".into(),
            version: version.into(),
            acceleration: Acceleration::Tcg,
            machine: "pc".into(),
            cpu: "x".into(),
        }
    }

    /// A snapshot of a guest with 2 GiB.
    fn sealed(directory: &Path) -> Snapshot {
        let shape = Shape {
            memory_bytes: 2 << 30,
            vcpus: 1,
            disks: vec![DiskShape::writable(8 << 30)],
        };
        for path in [memory_path(directory), device_state_path(directory)] {
            fs::write(path, [7; 100]).expect("written");
        }
        Snapshot::seal(directory, &platform("7.2"), &shape, "6.12").expect("sealed")
    }

    #[test]
    fn a_snapshot_of_another_vmm_version_is_refused_by_name() {
        let directory = tempfile::tempdir().expect("temp dir");
        let made = sealed(directory.path());
        assert_eq!(
            Snapshot::open(directory.path(), &platform("7.2")).expect("opens"),
            made
        );
        let error = Snapshot::open(directory.path(), &platform("10.0")).expect_err("refused");
        let text = error.to_string();
        assert!(
            error.is_foreign() && text.contains("7.2") && text.contains("10.0"),
            "{text}"
        );
        let another = |edit: fn(&mut Platform)| {
            let mut platform = platform("7.2");
            edit(&mut platform);
            let error = Snapshot::open(directory.path(), &platform).expect_err("refused");
            assert!(error.is_foreign(), "{error}");
        };
        another(|platform| platform.driver = "firecracker".into());
        another(|platform| platform.acceleration = Acceleration::Kvm);
        another(|platform| platform.machine = "microvm".into());
        another(|platform| platform.cpu = "y".into());
    }

    #[test]
    fn a_manifest_of_another_format_is_refused_not_misread() {
        let directory = tempfile::tempdir().expect("temp dir");
        fs::write(
            directory.path().join(MANIFEST),
            r#"{"format": 4, "unknown": true}"#,
        )
        .expect("written");
        let error = Snapshot::open(directory.path(), &platform("7.2")).expect_err("refused");
        assert!(error.to_string().contains("format 4"), "{error}");
        assert!(error.is_foreign(), "it is made again");
    }

    #[test]
    fn a_manifest_with_one_byte_altered_or_cut_off_is_refused() {
        let directory = tempfile::tempdir().expect("temp dir");
        sealed(directory.path());
        let manifest = directory.path().join(MANIFEST);
        let good = fs::read(&manifest).expect("there");
        let open = || Snapshot::open(directory.path(), &platform("7.2"));
        for at in (0..good.len()).filter(|at| !good[*at].is_ascii_whitespace()) {
            let mut altered = good.clone();
            altered[at] = match altered[at] {
                b'1' => b'2',
                b'"' => b'x',
                _ => b'1',
            };
            fs::write(&manifest, &altered).expect("written");
            open().expect_err("altered");
            fs::write(&manifest, &good[..at]).expect("written");
            open().expect_err("cut");
        }
        let text = String::from_utf8(good.clone()).expect("UTF-8");
        for (from, to, cause) in [
            ("2147483648", "1147483648", "altered"),
            ("\"vcpus\": 1", "\"vcpus\": 9", "altered"),
            ("\"checksum\"", "\"id\"", "missing"),
        ] {
            fs::write(&manifest, text.replace(from, to)).expect("written");
            let error = open().expect_err("altered").to_string();
            assert!(error.contains(cause), "{error}");
        }
        fs::write(&manifest, &good).expect("written");
        open().expect("as it was");
    }

    #[test]
    fn altered_or_cut_files_are_named() {
        let directory = tempfile::tempdir().expect("temp dir");
        let shape = Shape {
            memory_bytes: 1 << 30,
            vcpus: 1,
            disks: Vec::new(),
        };
        let (memory, state) = (memory_path(directory.path()), device_state_path(directory.path()));
        fs::write(&memory, vec![7; 10_000]).expect("written");
        fs::write(&state, [7; 100]).expect("written");
        let made = Snapshot::seal(directory.path(), &platform("7.2"), &shape, "6.12").expect("sealed");
        made.verify().expect("as it was");
        for (path, name) in [(&memory, "memory"), (&state, "device-state")] {
            let good = fs::read(path).expect("there");
            let mut altered = good.clone();
            altered[50] ^= 1;
            fs::write(path, &altered).expect("written");
            let error = made.verify().expect_err("altered").to_string();
            assert!(error.contains(name) && error.contains("checksum"), "{error}");
            fs::write(path, &good[..50]).expect("written");
            let error = made.verify().expect_err("cut").to_string();
            assert!(error.contains(name) && error.contains("50 bytes"), "{error}");
            fs::write(path, good).expect("written");
        }
        made.verify().expect("as it was");
    }

    #[test]
    fn a_manifest_of_the_first_format_is_read() {
        let directory = tempfile::tempdir().expect("temp dir");
        let platform = platform("7.2");
        let manifest = serde_json::json!({
            "format": 1, "protocol": PROTOCOL_VERSION, "platform": platform, "kernelRelease": "6.12",
            "shape": { "memoryBytes": 1 << 30, "vcpus": 1, "disks": [] },
        });
        fs::write(directory.path().join(MANIFEST), manifest.to_string()).expect("written");
        let old = Snapshot::open(directory.path(), &platform).expect("opens");
        assert_eq!(old.id(), "");
        old.verify().expect("nothing to compare with");
    }
}
