//! What a host that runs strangers' guests should have set: docs/security.md.

use std::{net::SocketAddr, os::unix::fs::MetadataExt, path::Path};

use super::Finding;
use crate::config::Config;

/// Kernel settings, each with the least value that hides what guests' escapes would look for, and whether more is as good.
const SETTINGS: [(&str, u32, bool); 4] = [
    ("kernel/kptr_restrict", 1, true),
    ("kernel/dmesg_restrict", 1, true),
    ("kernel/unprivileged_bpf_disabled", 1, true),
    ("fs/suid_dumpable", 0, false),
];

/// All checks of the hardening list. None of them keeps the daemon from running.
pub(super) fn all(config: &Config) -> Vec<Finding> {
    let root = Path::new("/");
    vec![
        smt(root),
        ksm(root),
        swap(root),
        settings(root),
        data(root, &config.data),
        admin(config.settings.admin_listen),
    ]
}

fn read(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(root.join(path))
        .ok()
        .map(|text| text.trim().to_owned())
}

fn smt(root: &Path) -> Finding {
    match read(root, "sys/devices/system/cpu/smt/active").as_deref() {
        Some("1") => Finding::note(
            "smt",
            "two threads share a core: a guest may measure what its neighbour does",
            "echo off > /sys/devices/system/cpu/smt/control, where tenants do not trust each other",
        ),
        _ => Finding::good("smt", "no core is shared by two threads"),
    }
}

fn ksm(root: &Path) -> Finding {
    match read(root, "sys/kernel/mm/ksm/run").as_deref() {
        Some("1") => Finding::note(
            "ksm",
            "the kernel merges equal pages: a guest may learn what another's memory holds",
            "echo 2 > /sys/kernel/mm/ksm/run, which takes what is merged apart, too",
        ),
        _ => Finding::good("ksm", "pages of guests are not merged"),
    }
}

fn swap(root: &Path) -> Finding {
    let areas = read(root, "proc/swaps").map_or(0, |text| text.lines().count().saturating_sub(1));
    match areas {
        0 => Finding::good("swap", "there is none"),
        _ => Finding::note(
            "swap",
            "memory of guests may be written to the swap area in clear",
            "swapoff --all, or encrypt it",
        ),
    }
}

fn settings(root: &Path) -> Finding {
    let is_weak = |(name, wanted, more_is_good): &(&str, u32, bool)| {
        let value = read(root, &format!("proc/sys/{name}")).and_then(|text| text.parse::<u32>().ok());
        value.is_some_and(|value| value < *wanted || (value > *wanted && !more_is_good))
    };
    let weak: Vec<String> = SETTINGS
        .into_iter()
        .filter(is_weak)
        .map(|(name, wanted, _)| format!("{}={wanted}", name.replace('/', ".")))
        .collect();
    let mitigations_off =
        read(root, "proc/cmdline").is_some_and(|text| text.split(' ').any(|word| word == "mitigations=off"));
    match (mitigations_off, weak.is_empty()) {
        (true, _) => Finding::note(
            "hardening",
            "the kernel was started with mitigations=off",
            "start it without, where tenants do not trust each other",
        ),
        (false, false) => Finding::note(
            "hardening",
            "kernel settings are weaker than they could be",
            format!("sysctl -w {}", weak.join(" ")),
        ),
        (false, true) => Finding::good("hardening", "kernel settings are as docs/security.md wants them"),
    }
}

fn data(root: &Path, data: &Path) -> Finding {
    let of = |path: &Path| path.metadata().map(|found| found.dev());
    let existing = data.ancestors().find(|path| path.exists()).unwrap_or(root);
    match (of(existing), of(root)) {
        (Ok(own), Ok(system)) if own == system => Finding::note(
            "data",
            format!(
                "{} lies on the system's own file system: what guests write can fill that",
                data.display()
            ),
            "mount a file system of its own there",
        ),
        _ => Finding::good("data", format!("{} has a file system of its own", data.display())),
    }
}

fn admin(address: SocketAddr) -> Finding {
    match address.ip().is_loopback() {
        true => Finding::good("admin", "its own address is this machine's alone"),
        false => Finding::note(
            "admin",
            format!("metrics and health are open to whoever reaches {address}"),
            "keep admin_listen on loopback",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::doctor::Verdict;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("temp dir");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn what_weakens_a_host_is_named_with_its_cure() {
        let root = machine(&[
            ("sys/devices/system/cpu/smt/active", "1\n"),
            ("sys/kernel/mm/ksm/run", "1\n"),
            ("proc/swaps", "Filename\tType\n/swapfile\tfile\n"),
            ("proc/sys/kernel/kptr_restrict", "0\n"),
            ("proc/sys/kernel/dmesg_restrict", "1\n"),
            ("proc/sys/fs/suid_dumpable", "2\n"),
        ]);
        let findings = [
            smt(root.path()),
            ksm(root.path()),
            swap(root.path()),
            settings(root.path()),
            data(root.path(), &root.path().join("data")),
            admin(([0, 0, 0, 0], 9780).into()),
        ];
        assert!(
            findings
                .iter()
                .all(|finding| finding.verdict == Verdict::Note && !finding.cure.is_empty())
        );
        assert_eq!(
            findings[3].cure,
            "sysctl -w kernel.kptr_restrict=1 fs.suid_dumpable=0"
        );
    }

    #[test]
    fn a_hardened_host_has_nothing_to_be_told() {
        let root = machine(&[
            ("sys/devices/system/cpu/smt/active", "0\n"),
            ("sys/kernel/mm/ksm/run", "0\n"),
            ("proc/swaps", "Filename\tType\n"),
            ("proc/sys/kernel/kptr_restrict", "2\n"),
            ("proc/sys/fs/suid_dumpable", "0\n"),
            ("proc/cmdline", "root=/dev/vda\n"),
        ]);
        let findings = [
            smt(root.path()),
            ksm(root.path()),
            swap(root.path()),
            settings(root.path()),
            data(root.path(), Path::new("/proc/self")),
            admin(([127, 0, 0, 1], 9780).into()),
        ];
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Good));
    }

    #[test]
    fn mitigations_that_are_off_are_noticed() {
        let root = machine(&[("proc/cmdline", "quiet mitigations=off\n")]);
        assert!(settings(root.path()).cause.contains("mitigations=off"));
    }
}
