use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Period of the CPU quota, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;
/// Version 2's default weight.
const DEFAULT_WEIGHT: u64 = 100;
/// Version 1's default share.
const DEFAULT_SHARES: u64 = 1024;

/// The controllers that limit a VMM; where version 1 has another name for one, that stands second.
const CONTROLLERS: [&[&str]; 4] = [&["cpu"], &["memory"], &["pids"], &["io", "blkio"]];

/// What one VMM may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// CPUs at most.
    pub cpus: u32,
    /// Share of CPU and disk when they are scarce; 100 is an ordinary process's.
    pub weight: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub tasks: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The control groups of this node's VMMs: one group of its own for each, below one parent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cgroups {
    version: Version,
    /// The parent's directory in each hierarchy: one in version 2, one a controller in version 1.
    parents: Arc<Vec<PathBuf>>,
}

impl Cgroups {
    /// Finds the hierarchies and makes the parent in them. Without any the VMMs go unlimited.
    pub fn open(parent: &str) -> io::Result<Cgroups> {
        let (version, mounts) = hierarchies()?;
        let mut parents = Vec::new();
        for mount in mounts.keys() {
            if version == Version::Two {
                enable_controllers(mount);
            }
            let directory = mount.join(parent);
            make(&directory)?;
            if version == Version::Two {
                enable_controllers(&directory);
            }
            parents.push(directory);
        }
        Ok(Cgroups {
            version,
            parents: Arc::new(parents),
        })
    }

    /// What this machine lacks, in words; empty when every limit holds.
    pub fn missing() -> Vec<&'static str> {
        let offered: BTreeSet<String> = hierarchies()
            .map(|(_, hierarchies)| hierarchies.into_values().flatten().collect())
            .unwrap_or_default();
        let lacks = |names: &[&str]| !names.iter().any(|name| offered.contains(*name));
        CONTROLLERS
            .iter()
            .filter(|names| lacks(names))
            .map(|names| names[0])
            .collect()
    }

    /// Makes the group of one VMM; what it returns is for a jail to join.
    pub fn create(&self, name: &str, limits: Limits) -> io::Result<Vec<PathBuf>> {
        let groups: Vec<PathBuf> = self.parents.iter().map(|parent| parent.join(name)).collect();
        for group in &groups {
            make(group)?;
            for (file, value) in settings(self.version, limits) {
                let file = group.join(file);
                // A controller that is not here, and limits that only some kernels know, leave no file.
                if file.exists() {
                    fs::write(&file, value).map_err(|error| {
                        io::Error::new(error.kind(), format!("{}: {error}", file.display()))
                    })?;
                }
            }
        }
        Ok(groups)
    }

    /// Has a group take only the processor time that nobody else wants, or its share by weight again. A kernel before 5.15
    /// knows shares alone: [`io::ErrorKind::NotFound`].
    pub fn stand_back(&self, name: &str, back: bool, limits: Limits) -> io::Result<()> {
        let (file, weight) = cpu_weight(self.version, limits);
        let mut group = self.parents.iter().map(|parent| parent.join(name));
        let group = group
            .find(|group| group.join("cpu.idle").exists())
            .ok_or(io::ErrorKind::NotFound)?;
        fs::write(group.join("cpu.idle"), u8::from(back).to_string())?;
        match back {
            true => Ok(()),
            // It is back at the default's.
            false => fs::write(group.join(file), weight),
        }
    }

    /// Names of all groups.
    pub fn names(&self) -> BTreeSet<String> {
        let groups = self
            .parents
            .iter()
            .filter_map(|parent| fs::read_dir(parent).ok())
            .flatten()
            .flatten();
        groups
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Pids of a group's processes.
    pub fn members(&self, name: &str) -> BTreeSet<i32> {
        let lists = self
            .parents
            .iter()
            .map(|parent| parent.join(name).join("cgroup.procs"));
        lists
            .filter_map(|list| fs::read_to_string(list).ok())
            .flat_map(|text| {
                text.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Whether the kernel has killed a process of the group because memory ran out, the group's or the machine's.
    pub fn out_of_memory(&self, name: &str) -> bool {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let events = self.parents.iter().map(|parent| parent.join(name).join(file));
        events
            .filter_map(|events| fs::read_to_string(events).ok())
            .any(|text| {
                let mut counts = text.lines().filter_map(|line| line.strip_prefix("oom_kill "));
                counts.any(|count| count != "0")
            })
    }

    /// Removes a group whose processes have ended.
    pub async fn remove(&self, name: &str) -> io::Result<()> {
        for parent in self.parents.iter() {
            let mut left = 200;
            loop {
                match fs::remove_dir(parent.join(name)) {
                    // The last process has ended, but the kernel may not have put it away yet.
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy && left > 0 => {
                        left -= 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Removes the parent when no VMM is left in it.
    pub fn close(&self) {
        for parent in self.parents.iter() {
            let _others_are_left_in_it = fs::remove_dir(parent);
        }
    }
}

fn make(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io::Error::new(
            error.kind(),
            format!("making the control group {}: {error}", group.display()),
        )),
        _ => Ok(()),
    }
}

/// Version 2 where it has the controllers, else the mounts of version 1's; with the controllers of each.
fn hierarchies() -> io::Result<(Version, BTreeMap<PathBuf, BTreeSet<String>>)> {
    let mounts = procfs::process::Process::myself()
        .and_then(|process| process.mountinfo())
        .map_err(io::Error::other)?;
    let mounted = |kind: &'static str| mounts.0.iter().filter(move |mount| mount.fs_type == kind);
    for mount in mounted("cgroup2") {
        let offered = fs::read_to_string(mount.mount_point.join("cgroup.controllers")).unwrap_or_default();
        let offered: BTreeSet<String> = offered.split_whitespace().map(str::to_owned).collect();
        if offered.contains("memory") {
            return Ok((
                Version::Two,
                BTreeMap::from([(mount.mount_point.clone(), offered)]),
            ));
        }
    }
    let one = mounted("cgroup").map(|mount| {
        let wanted = CONTROLLERS.iter().flat_map(|names| names.iter());
        let offered = wanted.filter(|name| mount.super_options.contains_key(**name));
        (
            mount.mount_point.clone(),
            offered.map(|name| (*name).to_owned()).collect(),
        )
    });
    let one = one.filter(|(_, offered): &(PathBuf, BTreeSet<String>)| !offered.is_empty());
    Ok((Version::One, one.collect()))
}

/// One by one: what a machine does not have, or may not pass on, must not keep the others away.
fn enable_controllers(group: &Path) {
    for controller in CONTROLLERS.map(|names| names[0]) {
        if let Err(error) = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")) {
            tracing::warn!(%error, controller, group = %group.display(), "VMMs go without this control group's limits");
        }
    }
}

fn settings(version: Version, limits: Limits) -> Vec<(&'static str, String)> {
    let quota = u64::from(limits.cpus) * PERIOD_US;
    let weight = limits.weight.clamp(1, 10_000);
    match version {
        Version::Two => vec![
            ("cpu.max", format!("{quota} {PERIOD_US}")),
            cpu_weight(version, limits),
            ("memory.max", limits.memory_bytes.to_string()),
            ("memory.oom.group", "1".into()),
            ("pids.max", limits.tasks.to_string()),
            ("io.weight", format!("default {weight}")),
        ],
        Version::One => vec![
            ("cpu.cfs_period_us", PERIOD_US.to_string()),
            ("cpu.cfs_quota_us", quota.to_string()),
            cpu_weight(version, limits),
            ("memory.limit_in_bytes", limits.memory_bytes.to_string()),
            ("pids.max", limits.tasks.to_string()),
            ("blkio.bfq.weight", weight.min(1000).to_string()),
        ],
    }
}

fn cpu_weight(version: Version, limits: Limits) -> (&'static str, String) {
    let weight = limits.weight.clamp(1, 10_000);
    match version {
        Version::Two => ("cpu.weight", weight.to_string()),
        Version::One => (
            "cpu.shares",
            (weight * DEFAULT_SHARES / DEFAULT_WEIGHT).max(2).to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        cpus: 2,
        weight: 50,
        memory_bytes: 1 << 30,
        tasks: 100,
    };

    fn value(version: Version, file: &str) -> String {
        let found = settings(version, LIMITS)
            .into_iter()
            .find(|(name, _)| *name == file);
        found.expect("set").1
    }

    #[test]
    fn both_versions_get_the_same_limits() {
        assert_eq!(value(Version::Two, "cpu.max"), "200000 100000");
        assert_eq!(value(Version::One, "cpu.cfs_quota_us"), "200000");
        assert_eq!(value(Version::Two, "cpu.weight"), "50");
        assert_eq!(value(Version::One, "cpu.shares"), "512");
        assert_eq!(
            value(Version::Two, "memory.max"),
            value(Version::One, "memory.limit_in_bytes")
        );
    }

    #[tokio::test]
    async fn a_group_is_made_with_its_limits_joined_and_removed() {
        let groups = Cgroups::open(&format!("hearth-unit-{}", std::process::id())).expect("control groups");
        let directories = groups.create("one", LIMITS).expect("made");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        for directory in &directories {
            fs::write(directory.join("cgroup.procs"), child.id().to_string()).expect("joined");
        }
        assert_eq!(groups.names().len(), usize::from(!directories.is_empty()));
        let read = |file: &str| {
            let found = directories.iter().find(|directory| directory.join(file).exists());
            found.map(|directory| fs::read_to_string(directory.join(file)).expect("readable"))
        };
        let (weight, _) = cpu_weight(groups.version, LIMITS);
        let before = read(weight);
        if read("cpu.idle").is_some() {
            groups.stand_back("one", true, LIMITS).expect("set");
            assert_eq!(read("cpu.idle").as_deref(), Some("1\n"));
            groups.stand_back("one", false, LIMITS).expect("set");
            assert_eq!(read("cpu.idle").as_deref(), Some("0\n"));
        }
        assert_eq!(read(weight), before);
        let members: Vec<i32> = groups.members("one").into_iter().collect();
        assert!(directories.is_empty() || members == [child.id() as i32]);
        child.kill().expect("ended");
        child.wait().expect("reaped");
        groups.remove("one").await.expect("removed");
        assert!(groups.names().is_empty());
        groups.close();
        assert!(
            directories
                .iter()
                .all(|directory| !directory.parent().expect("a parent").exists())
        );
    }
}
