//! One QEMU process.

use std::{
    io::{self, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::Mutex,
};

use async_trait::async_trait;
use qapi::qmp;

use super::{
    Qemu, command,
    monitor::{AddFileNode, Monitor, ReopenRawNode, Throttle},
};
use crate::{
    driver::{Disk, DiskLimits, Execution, Machine, STARTED, Vm, VmmError, in_time},
    jail::{self, launch},
    log::Log,
    memory::{DeltaReader, DeltaSummary, GuestSpace},
    process::{Process, ProcessRecord, take_over},
    saving::Saving,
};

/// What the process writes its device state to, in its own directory.
const STATE_FILE: &str = "device-state";

pub(crate) struct QemuVm {
    directory: PathBuf,
    process: Process,
    monitor: Monitor,
    log: Log,
    saving: Saving,
    /// The base of guest memory and our end of the socket for device state, until the guest was restored.
    fresh: Mutex<Option<(PathBuf, UnixStream)>>,
    disks: Vec<Disk>,
}

impl QemuVm {
    pub(super) async fn start(qemu: &Qemu, machine: Machine) -> Result<QemuVm, VmmError> {
        let (ours, theirs) = UnixStream::pair().map_err(VmmError::io("making a socket pair"))?;
        let tap = machine
            .link
            .open()
            .map_err(VmmError::io("opening the guest's tap"))?;
        let spec = command::jail(qemu, &machine);
        let log = Log::new().map_err(VmmError::io("making the VMM's log"))?;
        let process = launch(spec, vec![tap, OwnedFd::from(theirs)], &log).await?;
        let ended = || VmmError::Ended(log.tail());
        let socket = machine.directory.join(command::CONTROL_SOCKET);
        let connected = async {
            let monitor = Monitor::connect(&socket, &process).await?;
            limit_disks(&monitor, machine.disks.len(), machine.disk_limits).await?;
            Ok(monitor)
        };
        let monitor = tokio::select! {
            monitor = in_time(STARTED, connected) => monitor,
            () = process.ended() => Err(ended()),
        };
        let monitor = match monitor {
            Ok(monitor) => monitor,
            Err(error) => {
                process.kill().await;
                return Err(error);
            }
        };
        let fresh = machine.boot.is_none().then_some((machine.memory.path, ours));
        Ok(QemuVm {
            directory: machine.directory,
            process,
            monitor,
            log,
            saving: Saving::default(),
            fresh: Mutex::new(fresh),
            disks: machine.disks,
        })
    }

    pub(crate) async fn adopt(directory: &Path, process: Process) -> Result<QemuVm, VmmError> {
        let monitor = Monitor::adopt(&directory.join(command::CONTROL_SOCKET), &process).await?;
        let log = Log::of(process.record().pid).map_err(VmmError::io("opening the VMM's log"))?;
        Ok(QemuVm {
            directory: directory.to_owned(),
            process,
            monitor,
            log,
            saving: Saving::default(),
            fresh: Mutex::new(None),
            disks: Vec::new(),
        })
    }
}

async fn limit_disks(monitor: &Monitor, disks: usize, limits: DiskLimits) -> Result<(), VmmError> {
    if limits == DiskLimits::default() {
        return Ok(());
    }
    for index in 0..disks {
        let backend = command::disk_backend(index);
        monitor.execute(Throttle::new(backend, limits)).await?;
    }
    Ok(())
}

#[async_trait]
impl Vm for QemuVm {
    fn process(&self) -> &ProcessRecord {
        self.process.record()
    }

    async fn attach_disk(&self, index: usize, path: &Path) -> Result<(), VmmError> {
        let disk = self.disks.get(index).ok_or_else(|| VmmError::Refused {
            command: "attach a disk",
            cause: format!("there is no disk {index}, or another daemon started this process"),
        })?;
        let (file, place) = (format!("attached{index}"), jail::disk_place(index));
        jail::attach(&self.process, path, &place, !disk.read_only)
            .map_err(VmmError::io("attaching a disk"))?;
        self.monitor
            .execute(AddFileNode::new(file.clone(), &place, disk))
            .await?;
        self.monitor
            .execute(ReopenRawNode::new(format!("disk{index}"), file, disk.read_only))
            .await?;
        Ok(())
    }

    async fn restore(&self, device_state: &Path, delta: Option<&Path>) -> Result<(), VmmError> {
        let fresh = self.fresh.lock().expect("no holder panics").take();
        let (base, socket) = fresh.ok_or_else(|| VmmError::Ended("the guest has run already".into()))?;
        let pid = self.process.record().pid;
        let (state, delta) = (device_state.to_owned(), delta.map(Path::to_owned));
        let prepared = tokio::task::spawn_blocking(move || {
            if let Some(delta) = delta {
                DeltaReader::open(&delta)?.write_into(&GuestSpace::find(pid, &base)?)?;
            }
            std::fs::read(state)
        });
        let uri = Some(format!("fd:{}", command::STATE_FD));
        let state = prepared
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(VmmError::io("restoring guest memory"))?;
        let mark = self.monitor.resume_mark();
        self.monitor
            .execute(qmp::migrate_incoming {
                channels: None,
                exit_on_error: None,
                uri,
            })
            .await?;
        let fed = tokio::task::spawn_blocking(move || {
            let mut socket = socket;
            socket.write_all(&state)
        });
        tokio::select! {
            resumed = async {
                fed.await.map_err(io::Error::other).flatten().map_err(VmmError::io("sending device state"))?;
                Ok::<bool, VmmError>(self.monitor.resumed_since(mark).await)
            } => match resumed {
                Ok(true) => Ok(()),
                Ok(false) => Err(VmmError::Ended(self.log.tail())),
                Err(error) => Err(error),
            },
            () = self.process.ended() => Err(VmmError::Ended(self.log.tail())),
        }
    }

    async fn pause(&self) -> Result<(), VmmError> {
        self.monitor.execute(qmp::stop {}).await.map(drop)
    }

    async fn resume(&self) -> Result<(), VmmError> {
        self.monitor.execute(qmp::cont {}).await.map(drop)
    }

    async fn execution(&self) -> Result<Execution, VmmError> {
        let status = self.monitor.execute(qmp::query_status {}).await?;
        Ok(if status.running {
            Execution::Running
        } else {
            Execution::Paused
        })
    }

    async fn save_device_state(&self, to: &Path) -> Result<(), VmmError> {
        let own = self.directory.join(STATE_FILE);
        let turn = self.saving.turn_with(&own, self.process.record().pid).await?;
        self.monitor
            .execute(qmp::xen_save_devices_state {
                live: Some(false),
                filename: STATE_FILE.into(),
            })
            .await?;
        let to = to.to_owned();
        turn.work("saving device state", move |_| take_over(&own, &to))
            .await
    }

    async fn save_delta(&self, base: &Path, to: &Path) -> Result<DeltaSummary, VmmError> {
        self.saving.delta(self.process.record().pid, base, to).await
    }

    async fn last_words(&self) -> String {
        self.log.tail()
    }

    async fn ended(&self) {
        self.process.ended().await;
    }

    async fn kill(&self) {
        self.process.kill().await;
    }
}
