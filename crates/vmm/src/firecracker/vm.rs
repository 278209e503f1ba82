//! One Firecracker process.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use serde_json::json;

use super::{Firecracker, api::Api, command, opening::Opening};
use crate::{
    driver::{Disk, DiskLimits, Execution, Link, Machine, Memory, STARTED, Vm, VmmError, in_time},
    jail::{self, disk_place, launch},
    log::Log,
    memory::{DeltaReader, DeltaSummary, GuestSpace, save_image},
    process::{Process, ProcessRecord, take_over},
    saving::Saving,
};

/// What the process loads its device state from, and what it writes it to, in its own directory.
const LOADED_STATE: &str = "loaded-state";
const SAVED_STATE: &str = "saved-state";
/// What it says when it has written its state and comes to memory: see [`FirecrackerVm::save_device_state`].
const MEMORY_NOT_OPENED: &str = "open on the memory backing file";

pub(crate) struct FirecrackerVm {
    directory: PathBuf,
    api: Arc<Api>,
    /// After a cold boot: where its memory is to be written to.
    booted: Option<Memory>,
    saving: Saving,
    fresh: Mutex<Option<Fresh>>,
}

/// What a process that waits for [`Vm::restore`] still needs.
struct Fresh {
    base: PathBuf,
    link: Arc<dyn Link>,
    user: u32,
    disks: usize,
    disk_limits: DiskLimits,
    ask_clocks_on: bool,
    /// Disks without a file yet.
    missing: Vec<(usize, Disk)>,
}

impl FirecrackerVm {
    pub(super) async fn start(
        firecracker: &Firecracker,
        machine: Machine,
    ) -> Result<FirecrackerVm, VmmError> {
        let configuration = command::configuration(&machine)?;
        let words = Log::new().map_err(VmmError::io("making the VMM's log"))?;
        let process = launch(command::jail(firecracker, &machine), Vec::new(), &words).await?;
        let missing = machine.disks.iter().cloned().enumerate();
        let booted = machine.boot.is_some().then(|| machine.memory.clone());
        let fresh = Fresh {
            base: machine.memory.path,
            link: machine.link,
            user: machine.user_id,
            disks: machine.disks.len(),
            disk_limits: machine.disk_limits,
            ask_clocks_on: firecracker.ask_clocks_on,
            missing: missing.filter(|(_, disk)| disk.path.is_none()).collect(),
        };
        let vm = FirecrackerVm {
            api: api(&machine.directory, process.clone(), words),
            directory: machine.directory,
            booted,
            saving: Saving::default(),
            fresh: Mutex::new(None),
        };
        let started = async {
            match machine.boot {
                Some(_) => vm.boot(configuration, &fresh).await,
                None => vm.api.wait().await,
            }
        };
        if let Err(error) = in_time(STARTED, started).await {
            process.kill().await;
            return Err(error);
        }
        if vm.booted.is_none() {
            *vm.fresh.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        }
        Ok(vm)
    }

    pub(crate) fn adopt(directory: &Path, process: Process) -> Result<FirecrackerVm, VmmError> {
        let words = Log::of(process.record().pid).map_err(VmmError::io("opening the VMM's log"))?;
        Ok(FirecrackerVm {
            directory: directory.to_owned(),
            api: api(directory, process, words),
            booted: None,
            saving: Saving::default(),
            fresh: Mutex::new(None),
        })
    }

    async fn boot(
        &self,
        configuration: Vec<(&'static str, String, serde_json::Value)>,
        fresh: &Fresh,
    ) -> Result<(), VmmError> {
        self.add_empty_disks(fresh)?;
        for (command, path, body) in configuration {
            self.api.put(command, &path, body).await?;
        }
        fresh
            .link
            .settle()
            .map_err(VmmError::io("settling the guest's link"))?;
        let start = json!({ "action_type": "InstanceStart" });
        self.api.put("PUT /actions", "/actions", start).await
    }

    /// Sets the disks' limits in the background: those that the state brought are in force until then.
    fn limit_disks(&self, disks: usize, limits: DiskLimits) {
        let api = self.api.clone();
        tokio::spawn(async move {
            for index in 0..disks {
                let (command, path, body) = command::limit_drive(index, limits);
                if let Err(error) = api.patch(command, &path, body).await {
                    tracing::warn!(%error, "a guest's disk keeps the limits of its snapshot");
                    return;
                }
            }
        });
    }

    /// Gives each disk that has no file an empty one, as long as the guest takes it for.
    fn add_empty_disks(&self, fresh: &Fresh) -> Result<(), VmmError> {
        for (index, disk) in &fresh.missing {
            let path = self.directory.join(format!("disk{index}"));
            let make = || {
                File::create_new(&path)?.set_len(disk.bytes)?;
                chown(&path, Some(fresh.user), Some(fresh.user))?;
                jail::attach(&self.api.process, &path, &disk_place(*index), !disk.read_only)
            };
            make().map_err(VmmError::io("attaching an empty disk"))?;
        }
        Ok(())
    }

    /// Loads the state at [`LOADED_STATE`]; the guest stands still afterwards. Its clocks go on by the time that has passed.
    async fn load(&self, ask_clocks_on: bool) -> Result<(), VmmError> {
        let mut body = json!({
            "snapshot_path": LOADED_STATE,
            "mem_backend": { "backend_type": "File", "backend_path": command::MEMORY },
        });
        if ask_clocks_on {
            body["clock_realtime"] = true.into();
        }
        self.api.put("PUT /snapshot/load", "/snapshot/load", body).await
    }

    /// The same with the delta written into guest memory on the way.
    async fn load_with(&self, delta: PathBuf, base: PathBuf, ask_clocks_on: bool) -> Result<(), VmmError> {
        let pid = self.process().pid;
        let first_disk = disk_place(0);
        let opening = Opening::of(pid, &first_disk).map_err(VmmError::io("watching a VMM's disk"))?;
        let mut load = std::pin::pin!(self.load(ask_clocks_on));
        let held = tokio::select! {
            held = opening.reached() => held.map_err(VmmError::io("waiting for a VMM to open its disk"))?,
            loaded = &mut load => {
                loaded?;
                return Err(VmmError::Unsupported {
                    program: "Firecracker".into(),
                    cause: "it loaded a snapshot without opening its disk".into(),
                });
            }
        };
        let write = move || DeltaReader::open(&delta)?.write_into(&GuestSpace::find(pid, &base)?);
        let written = tokio::task::spawn_blocking(write)
            .await
            .map_err(io::Error::other)
            .flatten();
        match written {
            Ok(()) => held
                .allow()
                .map_err(VmmError::io("letting a VMM open its disk"))?,
            Err(error) => {
                let _it_is_ended_anyway = held.deny();
                return Err(VmmError::io("restoring guest memory")(error));
            }
        }
        load.await
    }
}

fn api(directory: &Path, process: Process, words: Log) -> Arc<Api> {
    Arc::new(Api {
        directory: directory.to_owned(),
        process,
        words,
    })
}

#[async_trait]
impl Vm for FirecrackerVm {
    fn process(&self) -> &ProcessRecord {
        self.api.process.record()
    }

    async fn attach_disk(&self, index: usize, path: &Path) -> Result<(), VmmError> {
        let missing = |fresh: &mut Fresh| {
            let at = fresh.missing.iter().position(|(missing, _)| *missing == index)?;
            Some(fresh.missing.remove(at).1)
        };
        let disk = self
            .fresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .and_then(missing);
        let disk = disk.ok_or_else(|| VmmError::Refused {
            command: "attach a disk",
            cause: format!("disk {index} has a file, or the guest has run already"),
        })?;
        jail::attach(&self.api.process, path, &disk_place(index), !disk.read_only)
            .map_err(VmmError::io("attaching a disk"))
    }

    async fn restore(&self, device_state: &Path, delta: Option<&Path>) -> Result<(), VmmError> {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).take();
        let fresh = fresh.ok_or_else(|| VmmError::Ended("the guest has run already".into()))?;
        self.add_empty_disks(&fresh)?;
        let state = self.directory.join(LOADED_STATE);
        let copy = || {
            fs::copy(device_state, &state)?;
            fs::set_permissions(&state, fs::Permissions::from_mode(0o644))
        };
        copy().map_err(VmmError::io("handing device state to the VMM"))?;
        match delta {
            Some(delta) => {
                self.load_with(delta.to_owned(), fresh.base, fresh.ask_clocks_on)
                    .await?
            }
            None => self.load(fresh.ask_clocks_on).await?,
        }
        fresh
            .link
            .settle()
            .map_err(VmmError::io("settling the guest's link"))?;
        self.resume().await?;
        self.limit_disks(fresh.disks, fresh.disk_limits);
        Ok(())
    }

    async fn pause(&self) -> Result<(), VmmError> {
        self.api
            .patch("PATCH /vm", "/vm", json!({ "state": "Paused" }))
            .await
    }

    async fn resume(&self) -> Result<(), VmmError> {
        self.api
            .patch("PATCH /vm", "/vm", json!({ "state": "Resumed" }))
            .await
    }

    async fn execution(&self) -> Result<Execution, VmmError> {
        let instance = self.api.get("GET /", "/").await?;
        Ok(match instance["state"].as_str() {
            Some("Running") => Execution::Running,
            _ => Execution::Paused,
        })
    }

    /// Firecracker writes the state first, durably, and then all memory, unasked: it is given a path for that which it
    /// cannot open. Memory is read from outside.
    async fn save_device_state(&self, to: &Path) -> Result<(), VmmError> {
        let own = self.directory.join(SAVED_STATE);
        let turn = self.saving.turn_with(&own, self.process().pid).await?;
        let body = json!({ "snapshot_path": SAVED_STATE, "mem_file_path": command::NOWHERE });
        match self
            .api
            .put("PUT /snapshot/create", "/snapshot/create", body)
            .await
        {
            Err(VmmError::Refused { cause, .. }) if cause.contains(MEMORY_NOT_OPENED) => {}
            Err(error) => return Err(error),
            Ok(()) => {
                return Err(VmmError::Unsupported {
                    program: "Firecracker".into(),
                    cause: "it wrote memory where nothing can be written".into(),
                });
            }
        }
        let (to, booted, pid) = (to.to_owned(), self.booted.clone(), self.process().pid);
        turn.work("saving device state", move |_| {
            if let Some(memory) = booted {
                let (at, text) = command::landmark();
                let low = command::LOW_MEMORY;
                let space = GuestSpace::find_anonymous(pid, memory.bytes, &low, (at, &text))?;
                save_image(&space, &memory.path)?;
            }
            take_over(&own, &to)
        })
        .await
    }

    async fn save_delta(&self, base: &Path, to: &Path) -> Result<DeltaSummary, VmmError> {
        self.saving.delta(self.process().pid, base, to).await
    }

    async fn last_words(&self) -> String {
        self.api.words.tail()
    }

    async fn ended(&self) {
        self.api.process.ended().await;
    }

    async fn kill(&self) {
        self.api.process.kill().await;
    }
}
