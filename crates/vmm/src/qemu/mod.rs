//! QEMU: works on any machine, with KVM where it is usable and by translation (TCG) where not.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `command` | the command line: devices, memory, sandbox |
//! | `monitor` | QMP, typed by the `qapi` crate |
//! | `runtime` | the files that the program itself needs in its jail |
//! | `vm` | one process: restore, pause, save |

mod command;
mod monitor;
mod runtime;
mod vm;

use std::{io, path::Path, path::PathBuf, process::Command, sync::Arc};

use async_trait::async_trait;

use self::runtime::Runtime;
pub(crate) use self::vm::QemuVm;
use crate::{
    cpu,
    driver::{Acceleration, Driver, Machine, Platform, Vm, VmmError},
};

/// Oldest QEMU whose memory backend maps a file privately that it may only read (`rom=off,readonly=on`).
const READ_ONLY_MEMORY_SINCE: (u32, u32) = (9, 0);
/// The machine type of every guest: the newest that QEMU 7.2 (Debian 12) and 10 (Debian 13) both have.
const MACHINE: &str = "pc-q35-7.2";
/// The CPU model of a guest: x86-64-v3 as far as the accelerator has it. With `erms` a guest moves and clears memory by `rep movsb`
/// and `rep stosb`, which a processor does by lines and translated code byte by byte.
const fn cpu_model(acceleration: Acceleration) -> &'static str {
    match acceleration {
        Acceleration::Kvm => "Haswell-v4",
        Acceleration::Tcg => "Haswell-v4,-erms",
    }
}

/// The QEMU driver.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    platform: Platform,
    version: (u32, u32),
    runtime: Arc<Runtime>,
}

impl Qemu {
    /// Its name in a platform.
    pub const NAME: &str = "qemu";

    /// Asks the program for its version and fixes the platform.
    pub fn find(program: &Path, acceleration: Acceleration) -> Result<Qemu, VmmError> {
        let start = VmmError::start(program);
        let output = Command::new(program).arg("--version").output().map_err(&start)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version =
            parse_version(&text).ok_or_else(|| start(io::Error::other("it does not tell its version")))?;
        let mut cpu = cpu_model(acceleration).to_owned();
        if acceleration == Acceleration::Kvm {
            // What the processor does not have, the guest does not get.
            let host = cpu::fingerprint().map_err(VmmError::io("reading this machine's processor"))?;
            cpu = format!("{cpu} on {host}");
        }
        let platform = Platform {
            driver: Qemu::NAME.into(),
            version: format!("{}.{}", version.0, version.1),
            acceleration,
            machine: MACHINE.into(),
            cpu,
        };
        let (program, runtime) = Runtime::find(program).map_err(start)?;
        Ok(Qemu {
            program,
            platform,
            version,
            runtime: Arc::new(runtime),
        })
    }

    /// Whether a clone's memory file may be read-only to the VMM's user; older versions insist on opening it for writing.
    pub fn maps_read_only_memory(&self) -> bool {
        self.version >= READ_ONLY_MEMORY_SINCE
    }
}

#[async_trait]
impl Driver for Qemu {
    fn platform(&self) -> &Platform {
        &self.platform
    }

    async fn start(&self, machine: Machine) -> Result<Arc<dyn Vm>, VmmError> {
        let vm = QemuVm::start(self, machine).await?;
        Ok(Arc::new(vm))
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .split_once("version ")?
        .1
        .split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_version_lines_are_read() {
        let bookworm = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)";
        assert_eq!(parse_version(bookworm), Some((7, 2)));
        assert_eq!(
            parse_version("QEMU emulator version 10.0.8 (Debian 1:10.0.8)"),
            Some((10, 0))
        );
        assert_eq!(parse_version("no such thing"), None);
    }
}
