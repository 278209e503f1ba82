//! Kernel modules: `/modules` of the initramfs holds `*.ko` and the lists that name them in load order.
use std::fs::{self, File};
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::console;

/// Where the modules are, once the agent has made its root.
pub const DIRECTORY: &str = "/modules";
/// What every guest needs.
pub const CORE: &str = "core.list";
/// What an application with every capability may use beyond that.
pub const EXTRA: &str = "extra.list";

/// Loads what the list names, one file name a line. What cannot be loaded is told on the console and skipped.
pub fn load(directory: &Path, list: &str) {
    let names = match fs::read_to_string(directory.join(list)) {
        Ok(names) => names,
        Err(error) => return console(format_args!("has no module list {list}: {error}")),
    };
    for name in entries(&names) {
        let loaded = File::open(directory.join(name)).and_then(|file| {
            match finit_module(&file, c"", ModuleInitFlags::empty()) {
                Err(Errno::EEXIST) => Ok(()),
                other => other.map_err(Into::into),
            }
        });
        if let Err(error) = loaded {
            console(format_args!("cannot load module {name}: {error}"));
        }
    }
}

/// Unlinks everything, which gives the memory of the initramfs back.
pub fn discard(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
}

/// Unlinks what a list names.
pub fn discard_list(directory: &Path, list: &str) {
    for name in entries(&fs::read_to_string(directory.join(list)).unwrap_or_default()) {
        let _ = fs::remove_file(directory.join(name));
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_one_module_a_line() {
        let names: Vec<_> = entries("virtio_pci.ko\n\n# disks\n ext4.ko \n").collect();
        assert_eq!(names, ["virtio_pci.ko", "ext4.ko"]);
    }

    #[test]
    fn discarding_one_list_keeps_the_other() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path();
        for name in ["a.ko", "b.ko"] {
            fs::write(path.join(name), "").expect("writes");
        }
        fs::write(path.join(CORE), "a.ko\n").expect("writes");
        fs::write(path.join(EXTRA), "b.ko\n").expect("writes");
        discard_list(path, CORE);
        assert!(!path.join("a.ko").exists() && path.join("b.ko").exists());
        discard(path);
        assert_eq!(fs::read_dir(path).expect("lists").count(), 0);
    }
}
