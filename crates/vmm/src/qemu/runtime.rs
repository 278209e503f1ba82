use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    jail::Bind,
    program::{libraries, locate},
};

/// Where QEMU finds its firmware in the jail.
pub(super) const FIRMWARE: &str = "/firmware";
/// Where QEMU finds its modules in the jail.
pub(super) const MODULES: &str = "/modules";
/// What a q35 machine with direct kernel boot loads, as far as a version has it.
const FIRMWARE_FILES: [&str; 4] = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "pvh.bin"];
/// Translation is a module in Debian's build.
const MODULE_FILES: [&str; 1] = ["accel-tcg-x86_64.so"];
/// Where distributions keep QEMU's modules.
const MODULE_DIRECTORIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/qemu",
    "/usr/lib64/qemu",
    "/usr/lib/qemu",
];
/// QEMU reserves no swap for guest memory; it looks here whether the kernel lets it.
const OVERCOMMIT: &str = "/proc/sys/vm/overcommit_memory";
const LINKER_CACHE: &str = "/etc/ld.so.cache";

/// The files that the program itself needs in its jail.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) files: Vec<Bind>,
}

impl Runtime {
    /// Finds the program by its name or path, and what it loads.
    pub(super) fn find(program: &Path) -> io::Result<(PathBuf, Runtime)> {
        let program = locate(program)?;
        let mut files = vec![
            Bind::read_only(&program, &program),
            Bind::read_only(OVERCOMMIT, OVERCOMMIT),
        ];
        if Path::new(LINKER_CACHE).exists() {
            files.push(Bind::read_only(LINKER_CACHE, LINKER_CACHE));
        }
        let mut libraries = libraries(&program)?;
        for name in MODULE_FILES {
            let found = MODULE_DIRECTORIES
                .iter()
                .map(|directory| Path::new(directory).join(name));
            if let Some(module) = found.into_iter().find(|path| path.exists()) {
                libraries.extend(crate::program::libraries(&module)?);
                files.push(Bind::read_only(module, Path::new(MODULES).join(name)));
            }
        }
        files.extend(libraries.iter().map(|library| Bind::read_only(library, library)));
        let directories = Command::new(&program).args(["-L", "help"]).output()?.stdout;
        let directories = String::from_utf8_lossy(&directories).into_owned();
        for name in FIRMWARE_FILES {
            let found = directories
                .lines()
                .map(|directory| Path::new(directory).join(name));
            if let Some(file) = found.into_iter().find(|path| path.exists()) {
                files.push(Bind::read_only(file, Path::new(FIRMWARE).join(name)));
            }
        }
        Ok((program, Runtime { files }))
    }
}
