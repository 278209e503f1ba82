//! Starts, restores, finds again and sweeps guests on this node.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hearth_agent_protocol::GUEST_MAC;
use hearth_network::{Egress, Network, Slot};
use hearth_storage::{disk, durable};
use hearth_vmm::{
    Disk, Driver, Kernel, Link, Machine, Memory, ProcessRecord, Vm, in_time,
    jail::{Cgroups, Limits},
    process::Process,
};

use crate::{
    Agent, Guest, GuestError, GuestRecord, IoPerVcpu, Shape, Snapshot, burst,
    guest::Suspend,
    integrity::Verified,
    snapshot::{device_state_path, memory_path, root_path, scratch_path},
};

/// Longest cold boot: about 3 s under translation on a quiet machine, minutes on one that has no time for it.
const LONGEST_BOOT: Duration = Duration::from_secs(300);

/// Longest wait for the device state of a guest that becomes an image.
const LONGEST_SAVE: Duration = Duration::from_secs(300);

/// Longest wait for a VMM that is given its disks and a snapshot: a quarter of a second on a quiet machine.
const RESTORED: Duration = Duration::from_secs(60);
/// How slowly a disk may be read or written on top of that: a delta, a guest's memory.
const DISK_BYTES_A_SECOND: u64 = 4 << 20;

/// What every cold boot starts from.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// Kernel image.
    pub kernel: PathBuf,
    /// The same kernel, uncompressed.
    pub kernel_elf: PathBuf,
    /// Initial file system with the agent.
    pub initramfs: PathBuf,
    /// `uname -r` of the kernel.
    pub kernel_release: String,
}

/// How guests are run on this node.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Directory of the guests' own directories. Short: control sockets lie in it.
    pub run_directory: PathBuf,
    /// Below the first of the unprivileged users and groups; a guest's is one more than this plus the number of its
    /// network slot.
    pub first_user_id: u32,
    /// Group of all VMM processes: may read images, kernels and root disks.
    pub group_id: u32,
    /// Whether VMMs open a clone's memory file for writing although they never write it (QEMU before 9.0).
    pub writable_memory_files: bool,
    /// What cold boots start from.
    pub base: BaseImage,
    /// Name of the control group above those of all VMMs.
    pub cgroup: String,
    /// What guests' devices may move.
    pub io_per_vcpu: IoPerVcpu,
}

/// A guest to boot from scratch in order to snapshot it.
#[derive(Debug)]
pub struct Boot<'a> {
    /// Directory that becomes the snapshot's: holds the root and scratch disk; memory and device state are added.
    pub directory: &'a Path,
    /// The virtual hardware.
    pub shape: &'a Shape,
    /// Files of the disks after root and scratch; a missing one is empty.
    pub more_disks: &'a [PathBuf],
    /// What the guest may reach.
    pub egress: &'a Egress,
}

/// What a restored guest gets besides its snapshot.
#[derive(Debug, Clone, Default)]
pub struct Restore {
    /// Files of the disks after root, scratch first; `None` leaves a disk empty.
    pub disks: Vec<Option<PathBuf>>,
    /// Directory of a suspended guest's device state and delta; `None` launches from the image's own state.
    pub suspended: Option<PathBuf>,
    /// What the guest may reach: in force before it runs.
    pub egress: Egress,
}

/// A started process that waits for a guest.
pub struct Idle {
    guest: Guest,
    snapshot: Snapshot,
    /// A clone of the snapshot's scratch disk, made ahead.
    scratch: Option<PathBuf>,
}

/// A slot's tap, as a VMM sees it.
#[derive(Debug)]
struct SlotLink(Slot);

impl Link for SlotLink {
    fn open(&self) -> io::Result<OwnedFd> {
        self.0.open_tap()
    }

    fn namespace(&self) -> PathBuf {
        self.0.namespace_path()
    }

    fn name(&self) -> &'static str {
        self.0.tap_name()
    }

    fn settle(&self) -> io::Result<()> {
        self.0.settle_tap()
    }
}

/// The guests of this node. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    driver: Arc<dyn Driver>,
    network: Network,
    cgroups: Cgroups,
    config: HostConfig,
    verified: Verified,
}

impl Host {
    /// Sets up the run directory.
    pub fn new(driver: Arc<dyn Driver>, network: Network, config: HostConfig) -> io::Result<Host> {
        fs::create_dir_all(&config.run_directory)?;
        disk::give(&config.run_directory, None, None, 0o711)?;
        let cgroups = Cgroups::open(&config.cgroup)?;
        Ok(Host {
            inner: Arc::new(Inner {
                driver,
                network,
                cgroups,
                config,
                verified: Verified::default(),
            }),
        })
    }

    /// The driver.
    pub fn driver(&self) -> &dyn Driver {
        &*self.inner.driver
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.inner.network
    }

    /// Opens a snapshot that this node can load.
    pub fn open_snapshot(&self, directory: &Path) -> Result<Snapshot, GuestError> {
        Snapshot::open(directory, self.inner.driver.platform())
    }

    /// Opens a snapshot for launches: its guest must also run the kernel that this node boots.
    pub fn open_to_launch(&self, directory: &Path) -> Result<Snapshot, GuestError> {
        let snapshot = self.open_snapshot(directory)?;
        let expected = &self.inner.config.base.kernel_release;
        if snapshot.kernel_release() != expected {
            return Err(GuestError::Kernel {
                found: snapshot.kernel_release().to_owned(),
                expected: expected.clone(),
            });
        }
        Ok(snapshot)
    }

    /// Whether the kernel has ended this guest's process because memory ran out.
    pub(crate) fn out_of_memory(&self, guest: &str) -> bool {
        self.inner.cgroups.out_of_memory(guest)
    }

    /// Boots a guest and waits for its agent.
    pub async fn boot(&self, boot: &Boot<'_>) -> Result<Guest, GuestError> {
        let memory = memory_path(boot.directory);
        disk::create(&memory, boot.shape.memory_bytes).map_err(GuestError::io("making guest memory"))?;
        let kernel = Kernel {
            image: self.inner.config.base.kernel.clone(),
            elf: self.inner.config.base.kernel_elf.clone(),
            initramfs: self.inner.config.base.initramfs.clone(),
        };
        let mut disks = vec![root_disk(boot.directory)];
        let files = std::iter::once(scratch_path(boot.directory)).chain(boot.more_disks.iter().cloned());
        disks.extend(disks_after_root(boot.shape, files));
        let memory = Memory {
            path: memory,
            bytes: boot.shape.memory_bytes,
            shared: true,
        };
        let guest = self
            .start(memory, boot.shape.vcpus, disks, Some(kernel), boot.egress)
            .await?;
        match guest.while_it_lives(guest.agent.await_boot(LONGEST_BOOT)).await {
            Ok(_kernel) => Ok(guest),
            Err(error) => {
                // What one that ended has said is in the log already.
                if !matches!(error, GuestError::Ended) {
                    let words = guest.last_words().await;
                    tracing::warn!(%error, console = %words, "a guest did not boot");
                }
                guest.destroy().await;
                Err(error)
            }
        }
    }

    /// Turns a booted guest, frozen by its agent, into a snapshot in the directory it was booted from. The guest ends.
    pub async fn snapshot(&self, guest: Guest, boot: &Boot<'_>) -> Result<Snapshot, GuestError> {
        let saved = async {
            guest.pause().await?;
            let path = device_state_path(boot.directory);
            let saved = guest.vm.save_device_state(&path);
            // Firecracker's comes with all of its memory.
            let longest = LONGEST_SAVE + Duration::from_secs(boot.shape.memory_bytes / DISK_BYTES_A_SECOND);
            Ok::<_, GuestError>(in_time(longest, saved).await?)
        };
        let saved = saved.await;
        guest.destroy().await;
        saved?;
        let (directory, shape) = (boot.directory.to_owned(), boot.shape.clone());
        let (platform, group) = (self.inner.driver.platform().clone(), self.inner.config.group_id);
        let release = self.inner.config.base.kernel_release.clone();
        let memory_mode = if self.inner.config.writable_memory_files {
            0o660
        } else {
            0o640
        };
        tokio::task::spawn_blocking(move || {
            let memory = fs::File::options()
                .read(true)
                .write(true)
                .open(memory_path(&directory))?;
            hearth_vmm::memory::punch_zero_pages(&memory)?;
            memory.sync_all()?;
            let scratch = scratch_path(&directory);
            fs::File::open(&scratch)?.sync_all()?;
            disk::give(&scratch, Some(0), Some(0), 0o600)?;
            disk::give(&memory_path(&directory), Some(0), Some(group), memory_mode)?;
            Snapshot::seal(&directory, &platform, &shape, &release)
        })
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(GuestError::io("completing the snapshot"))
    }

    /// Starts a process for a guest of this snapshot, without the guest. The first of this daemon's for a snapshot
    /// compares its files with what was sealed.
    pub async fn prepare(&self, snapshot: &Snapshot) -> Result<Idle, GuestError> {
        self.inner.verified.check(snapshot).await?;
        let shape = snapshot.shape();
        let mut disks = vec![root_disk(snapshot.directory())];
        disks.extend(disks_after_root(shape, std::iter::empty()));
        let memory = Memory {
            path: snapshot.memory(),
            bytes: shape.memory_bytes,
            shared: false,
        };
        let guest = self
            .start(memory, shape.vcpus, disks, None, &Egress::internet())
            .await?;
        Ok(Idle {
            guest,
            snapshot: snapshot.clone(),
            scratch: None,
        })
    }

    async fn start(
        &self,
        memory: Memory,
        vcpus: u32,
        disks: Vec<Disk>,
        boot: Option<Kernel>,
        egress: &Egress,
    ) -> Result<Guest, GuestError> {
        let slot = self.inner.network.acquire().await?;
        let name = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
        let directory = self.directory_of(&name);
        let limits = limits(vcpus, &memory);
        let started = async {
            slot.apply(egress).await?;
            slot.limit(self.inner.config.io_per_vcpu.network(vcpus)).await?;
            self.start_in(&directory, &slot, memory, limits, disks, boot)
                .await
        };
        match started.await {
            Ok(vm) => {
                let driver = self.inner.driver.platform().driver.clone();
                Ok(self.guest(name, driver, Some(limits), vm, slot))
            }
            Err(error) => {
                self.clean(&name, slot).await;
                Err(error)
            }
        }
    }

    async fn start_in(
        &self,
        directory: &Path,
        slot: &Slot,
        memory: Memory,
        limits: Limits,
        disks: Vec<Disk>,
        boot: Option<Kernel>,
    ) -> Result<Arc<dyn Vm>, GuestError> {
        let (user_id, group_id) = (self.user_of(slot), self.inner.config.group_id);
        let files = || -> io::Result<()> {
            fs::create_dir(directory)?;
            disk::give(directory, Some(user_id), Some(user_id), 0o700)?;
            if memory.shared {
                disk::give(&memory.path, Some(user_id), Some(user_id), 0o600)?;
            }
            for disk in &disks {
                if let Some(path) = &disk.path {
                    self.give_disk(path, disk.read_only, user_id)?;
                }
            }
            Ok(())
        };
        files().map_err(GuestError::io("preparing a guest's files"))?;
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let cgroups = self
            .inner
            .cgroups
            .create(&name, limits)
            .map_err(GuestError::io("limiting a VMM"))?;
        let machine = Machine {
            directory: directory.to_owned(),
            user_id,
            group_id,
            limits,
            cgroups,
            vcpus: limits.cpus,
            memory,
            disks,
            disk_limits: self.inner.config.io_per_vcpu.disk(limits.cpus),
            link: Arc::new(SlotLink(slot.clone())),
            mac: GUEST_MAC,
            boot,
        };
        let vm = self.inner.driver.start(machine).await?;
        if let Err(error) = close(directory, user_id) {
            vm.kill().await;
            return Err(error);
        }
        Ok(vm)
    }

    /// Finds a guest again that a former daemon ran; `None` when its process is gone. Its leftovers are then removed. A
    /// process that does not answer is ended, a [`GuestError::Vmm`].
    pub async fn adopt(&self, record: &GuestRecord, egress: Egress) -> Result<Option<Guest>, GuestError> {
        let directory = self.directory_of(&record.name);
        let driver = match record.driver.as_str() {
            "" => self.inner.driver.platform().driver.as_str(),
            driver => driver,
        };
        let adopted = in_time(
            FOUND_AGAIN,
            hearth_vmm::adopt(driver, &directory, &record.process),
        )
        .await;
        if adopted.is_err()
            && let Ok(Some(process)) = Process::watch(record.process.clone())
        {
            process.kill().await;
        }
        let Some(vm) = adopted? else {
            return Ok(None);
        };
        let slot = self.inner.network.adopt(&record.slot, egress).await?;
        // An older hearth left it open.
        close(&directory, self.user_of(&slot))?;
        let (name, driver) = (record.name.clone(), driver.to_owned());
        Ok(Some(self.guest(name, driver, record.limits, vm, slot)))
    }

    /// The guest of a process that runs.
    fn guest(
        &self,
        name: String,
        driver: String,
        limits: Option<Limits>,
        vm: Arc<dyn Vm>,
        slot: Slot,
    ) -> Guest {
        if let Some(limits) = limits {
            burst::watch(self.inner.cgroups.clone(), name.clone(), limits, vm.clone());
        }
        Guest {
            host: self.clone(),
            name,
            driver,
            limits,
            vm,
            agent: Agent::new(slot.clone()),
            slot,
        }
    }

    /// Ends every VMM process of this node's run directory and removes every directory and network slot, but those of
    /// `keep`. Call it once at start, after [`Host::adopt`].
    pub async fn sweep(&self, keep: &[GuestRecord]) -> Result<(), GuestError> {
        let kept: HashSet<&str> = keep.iter().map(|record| record.name.as_str()).collect();
        for process in self.processes_not_in(&kept) {
            tracing::info!(
                pid = process.record().pid,
                "ending a VMM process that belongs to nobody"
            );
            process.kill().await;
        }
        for name in self
            .inner
            .cgroups
            .names()
            .iter()
            .filter(|name| !kept.contains(name.as_str()))
        {
            let removed = self.inner.cgroups.remove(name).await;
            removed.map_err(GuestError::io("sweeping the control groups"))?;
        }
        let entries = fs::read_dir(&self.inner.config.run_directory)
            .map_err(GuestError::io("reading the run directory"))?;
        for entry in entries
            .flatten()
            .filter(|entry| !kept.contains(entry.file_name().to_string_lossy().as_ref()))
        {
            // A broken process may have left there what cannot be removed. Others must not wait for that.
            let removed = tokio::task::spawn_blocking(move || durable::remove_directory(&entry.path())).await;
            if let Err(error) = removed.map_err(io::Error::other).flatten() {
                tracing::error!(%error, "files of a guest that belongs to nobody stay behind");
            }
        }
        let slots = keep.iter().map(|record| record.slot.clone()).collect();
        self.inner.network.sweep(&slots).await?;
        Ok(())
    }

    /// Processes of our control groups, and those of our users whose working directory is one of our guests' (where there
    /// are no control groups).
    fn processes_not_in(&self, kept: &HashSet<&str>) -> Vec<Process> {
        let groups = self.inner.cgroups.names();
        let groups = groups.iter().filter(|name| !kept.contains(name.as_str()));
        let mut pids: BTreeSet<i32> = groups.flat_map(|name| self.inner.cgroups.members(name)).collect();
        let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let entries = fs::read_dir(&self.inner.config.run_directory)
            .into_iter()
            .flatten()
            .flatten();
        let swept: HashSet<_> = entries
            .filter(|entry| !kept.contains(entry.file_name().to_string_lossy().as_ref()))
            .filter_map(|entry| identity(&entry.path()))
            .collect();
        let first_user = self.inner.config.first_user_id;
        for process in procfs::process::all_processes().into_iter().flatten().flatten() {
            let is_ours = process.uid().is_ok_and(|uid| uid > first_user);
            let cwd = || identity(Path::new(&format!("/proc/{}/cwd", process.pid)));
            if is_ours && cwd().is_some_and(|cwd| swept.contains(&cwd)) {
                pids.insert(process.pid);
            }
        }
        let watch = |pid| Process::watch(ProcessRecord::of(pid).ok()?).ok().flatten();
        pids.into_iter().filter_map(watch).collect()
    }

    /// Removes a guest's directory, control groups and network slot; what fails is logged and left to the next sweep.
    pub(crate) async fn clean(&self, name: &str, slot: Slot) {
        let directory = self.directory_of(name);
        let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(&directory)).await;
        if let Err(error) = removed.map_err(io::Error::other).flatten()
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, name, "a guest's directory stays behind");
        }
        if let Err(error) = self.inner.cgroups.remove(name).await {
            tracing::warn!(%error, name, "a control group stays behind");
        }
        if let Err(error) = slot.release().await {
            tracing::warn!(%error, "a network slot stays behind");
        }
    }

    /// Ends the node's use of what is shared by its guests, as far as none is left.
    pub fn close(&self) {
        self.inner.cgroups.close();
    }

    /// A disk is its guest's alone, or readable for every VMM.
    fn give_disk(&self, path: &Path, read_only: bool, user: u32) -> io::Result<()> {
        match read_only {
            true => disk::give(path, Some(0), Some(self.inner.config.group_id), 0o640),
            false => disk::give(path, Some(user), Some(user), 0o600),
        }
    }

    /// Directory of a guest's own files.
    fn directory_of(&self, name: &str) -> PathBuf {
        self.inner.config.run_directory.join(name)
    }

    fn user_of(&self, slot: &Slot) -> u32 {
        self.inner.config.first_user_id + 1 + u32::from(slot.index())
    }
}

/// A VMM whose sockets stand makes no more files in its directory: one that is broken out of would fill this node's disk.
fn close(directory: &Path, user: u32) -> Result<(), GuestError> {
    disk::give(directory, Some(0), Some(user), 0o750).map_err(GuestError::io("closing a guest's directory"))
}

impl Idle {
    /// What to write down before [`Idle::restore`].
    pub fn record(&self) -> GuestRecord {
        self.guest.record()
    }

    /// Its network slot.
    pub fn slot(&self) -> &Slot {
        &self.guest.slot
    }

    /// The process, to end it when a restore is broken off.
    pub fn guest(&self) -> Guest {
        self.guest.clone()
    }

    /// The snapshot it was started for.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Clones the snapshot's scratch disk for a launch to come.
    pub(crate) async fn clone_scratch_ahead(&mut self) -> io::Result<()> {
        let template = self.snapshot.scratch();
        if disk::allocated_bytes(&template)? > CLONED_AHEAD_AT_MOST {
            return Ok(());
        }
        let clone = scratch_path(&self.guest.host.directory_of(&self.guest.name));
        let made = clone.clone();
        tokio::task::spawn_blocking(move || {
            disk::clone(&template, &made).inspect_err(|_| {
                let _it_says_so_itself = fs::remove_file(&made);
            })
        })
        .await??;
        self.scratch = Some(clone);
        Ok(())
    }

    /// Puts a clone of the snapshot's scratch disk at `path`: that made ahead, or one made now.
    pub(crate) async fn put_scratch(&mut self, path: &Path) -> io::Result<()> {
        let (template, path) = (self.snapshot.scratch(), path.to_owned());
        if let Some(ahead) = &self.scratch
            && fs::rename(ahead, &path).is_ok()
        {
            self.scratch = None;
            return Ok(());
        }
        tokio::task::spawn_blocking(move || disk::clone(&template, &path)).await?
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&self) -> bool {
        !self.guest.vm.process().is_alive()
    }

    /// Gives the process its disks and state and lets the guest run. The application stays frozen until its agent is
    /// told the time ([`Agent::thaw`]). On an error the process is gone and nothing has changed on the disks.
    pub async fn restore(self, parts: &Restore) -> Result<Guest, GuestError> {
        match self.try_restore(parts).await {
            Ok(()) => Ok(self.guest),
            Err(error) => {
                self.guest.destroy().await;
                Err(error)
            }
        }
    }

    async fn try_restore(&self, parts: &Restore) -> Result<(), GuestError> {
        // A resume has its disk, and a launch whose file system is another one made a clone there.
        if let Some(ahead) = &self.scratch {
            fs::remove_file(ahead).map_err(GuestError::io("removing the clone made ahead"))?;
        }
        self.guest.slot.apply(&parts.egress).await?;
        let host = &self.guest.host;
        let user = host.user_of(&self.guest.slot);
        let (state, delta) = match &parts.suspended {
            Some(directory) => {
                let (suspended, snapshot) = (directory.clone(), self.snapshot.clone());
                tokio::task::spawn_blocking(move || Suspend::verify(&suspended, &snapshot))
                    .await
                    .map_err(|error| GuestError::io("comparing a suspend")(io::Error::other(error)))??;
                (
                    device_state_path(directory),
                    Some(crate::guest::delta_path(directory)),
                )
            }
            None => (self.snapshot.device_state(), None),
        };
        let delta_file = delta.as_deref().map(fs::metadata).transpose();
        let delta_file = delta_file.map_err(GuestError::io("looking at a delta"))?;
        // Nothing is lost with a guest that has not run; a VMM that hangs would keep it from ever running.
        let delta_bytes = delta_file.map_or(0, |file| file.len());
        let limit = RESTORED + Duration::from_secs(delta_bytes / DISK_BYTES_A_SECOND);
        let (vm, shapes) = (&self.guest.vm, &self.snapshot.shape().disks);
        let restored = async {
            for (index, (path, shape)) in parts.disks.iter().zip(shapes).enumerate() {
                let Some(path) = path else { continue };
                host.give_disk(path, shape.read_only, user)
                    .map_err(GuestError::io("giving the guest its disk"))?;
                vm.attach_disk(index + 1, path).await?;
            }
            Ok(vm.restore(&state, delta.as_deref()).await?)
        };
        in_time(limit, restored).await
    }

    /// Ends the process.
    pub async fn discard(self) {
        self.guest.destroy().await;
    }
}

/// A scratch disk that takes more is cloned when it is needed: each waiting process would hold as much of the node's disk.
const CLONED_AHEAD_AT_MOST: u64 = 256 << 20;

/// Memory of a VMM beside its guest's: the program, the translation cache, page tables, buffers.
const OVERHEAD_BYTES: u64 = 384 << 20;
/// Threads of a VMM beside its virtual CPUs: QEMU's pool for disk requests has 64.
const OVERHEAD_TASKS: u64 = 100;
/// Guest memory of a size whose baseline is one CPU.
const MEMORY_OF_A_CPU: u64 = 8 << 30;

/// Longest wait for a VMM of a former daemon: one that says nothing is of no use.
pub(crate) const FOUND_AGAIN: Duration = Duration::from_secs(20);

/// At most the peak of its size; when CPU is scarce, in proportion to the size's baseline.
fn limits(vcpus: u32, memory: &Memory) -> Limits {
    Limits {
        cpus: vcpus,
        weight: (memory.bytes * 100 / MEMORY_OF_A_CPU).max(1),
        memory_bytes: memory.bytes + memory.bytes / 64 + OVERHEAD_BYTES,
        tasks: u64::from(vcpus) + OVERHEAD_TASKS,
    }
}

fn root_disk(directory: &Path) -> Disk {
    let path = root_path(directory);
    // The guest sees whole sectors of the file; its true length is what counts.
    let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
    Disk {
        path: Some(path),
        bytes,
        read_only: true,
        flushes: false,
    }
}

/// A crash of the machine ends the guest, and its scratch disk with it unless that was synced for a snapshot or a suspend:
/// what the guest flushes there need not reach the machine's disk.
fn disks_after_root(shape: &Shape, mut files: impl Iterator<Item = PathBuf>) -> impl Iterator<Item = Disk> {
    shape.disks.iter().enumerate().map(move |(index, disk)| Disk {
        path: files.next(),
        bytes: disk.bytes,
        read_only: disk.read_only,
        flushes: index > 0,
    })
}
