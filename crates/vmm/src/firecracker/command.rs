//! The jail, the command line and the configuration of one Firecracker process.

use serde_json::{Value, json};

use super::Firecracker;
use crate::{
    driver::{Disk, DiskLimits, Kernel, Machine, VmmError},
    jail::{Bind, Device, JailSpec, NetworkOf, bind_disks, disk_place},
};

/// Name of the API's socket in the process's directory.
pub(super) const API_SOCKET: &str = "api.sock";

/// The program in the jail.
pub(super) const PROGRAM: &str = "/firecracker";
/// Guest memory in the jail.
pub(super) const MEMORY: &str = "/memory";
/// A path that nothing can be made at: the jail's root cannot be written to.
pub(super) const NOWHERE: &str = "/nowhere/memory";
const KERNEL: &str = "/kernel";
const INITRAMFS: &str = "/initramfs";
/// The largest file it writes beside disks and memory: its state.
const LARGEST_OWN_FILE: u64 = 64 << 20;
const MIB: u64 = 1 << 20;
/// Guest memory below the devices' addresses, which lie below 4 GiB: in 1.12, and in versions with PCI.
pub(super) const LOW_MEMORY: [u64; 2] = [0xd000_0000, 0xc000_0000];
/// Where Firecracker puts the kernel's command line. Linux leaves the first MiB alone.
const COMMAND_LINE_ADDRESS: u64 = 0x2_0000;

/// The guest kernel's command line: no bus to look for, and a reboot (after a panic) by what Firecracker has for it.
const MACHINE_ARGUMENTS: &str = "reboot=k pci=off i8042.noaux i8042.nomux i8042.dumbkbd";

fn command_line() -> String {
    format!("{} {MACHINE_ARGUMENTS}", Kernel::COMMAND_LINE)
}

/// What lies where in the memory of every booted guest.
pub(super) fn landmark() -> (u64, Vec<u8>) {
    (COMMAND_LINE_ADDRESS, command_line().into_bytes())
}

/// The jail with everything that the machine needs, and no more.
pub(super) fn jail(firecracker: &Firecracker, machine: &Machine) -> JailSpec {
    let mut binds = firecracker.files.to_vec();
    let memory = &machine.memory;
    if !memory.shared {
        binds.push(Bind::read_only(&memory.path, MEMORY));
    }
    if let Some(kernel) = &machine.boot {
        binds.push(Bind::read_only(&kernel.elf, KERNEL));
        binds.push(Bind::read_only(&kernel.initramfs, INITRAMFS));
    }
    let places = bind_disks(&machine.disks, &mut binds);
    let device = |path: &str, number| Device {
        path: path.into(),
        number,
    };
    let writable = machine.disks.iter().filter(|disk| !disk.read_only);
    JailSpec {
        user: machine.user_id,
        group: machine.user_id,
        images_group: machine.group_id,
        directory: machine.directory.clone(),
        // It opens the tap by its name.
        network: NetworkOf::Guest(machine.link.namespace()),
        cgroups: machine.cgroups.clone(),
        binds,
        places,
        devices: vec![
            device("/dev/kvm", (10, 232)),
            device("/dev/net/tun", (10, 200)),
            device("/dev/urandom", (1, 9)),
        ],
        file_bytes: writable
            .map(|disk| disk.bytes)
            .max()
            .unwrap_or(0)
            .max(LARGEST_OWN_FILE),
        tasks: machine.limits.tasks,
        program: PROGRAM.into(),
        // Its log goes where the guest's console does, and is bounded with it: a guest can make it say as much as it likes.
        arguments: ["--id", "hearth", "--api-sock", API_SOCKET, "--level", "Warn"]
            .map(Into::into)
            .to_vec(),
        environment: Vec::new(),
    }
}

/// What is to be set before a cold boot: the name of the request, its path and its body, in order.
pub(super) fn configuration(machine: &Machine) -> Result<Vec<(&'static str, String, Value)>, VmmError> {
    if !machine.memory.bytes.is_multiple_of(MIB) {
        return Err(VmmError::Unsupported {
            program: "Firecracker".into(),
            cause: format!("{} bytes of memory are not whole MiB", machine.memory.bytes),
        });
    }
    let mut requests = vec![
        (
            "PUT /machine-config",
            "/machine-config".to_owned(),
            json!({
                "vcpu_count": machine.vcpus,
                "mem_size_mib": machine.memory.bytes / MIB,
            }),
        ),
        (
            "PUT /boot-source",
            "/boot-source".to_owned(),
            json!({
                "kernel_image_path": KERNEL,
                "initrd_path": INITRAMFS,
                "boot_args": command_line(),
            }),
        ),
        ("PUT /entropy", "/entropy".to_owned(), json!({})),
        (
            "PUT /network-interfaces",
            "/network-interfaces/eth0".to_owned(),
            json!({
                "iface_id": "eth0",
                "guest_mac": machine.mac.map(|byte| format!("{byte:02x}")).join(":"),
                "host_dev_name": machine.link.name(),
            }),
        ),
    ];
    requests.extend(
        machine
            .disks
            .iter()
            .enumerate()
            .map(|(index, disk)| drive(index, disk, machine.disk_limits)),
    );
    Ok(requests)
}

fn drive(index: usize, disk: &Disk, limits: DiskLimits) -> (&'static str, String, Value) {
    let body = json!({
        "drive_id": drive_id(index),
        "path_on_host": disk_place(index),
        "is_root_device": false,
        "is_read_only": disk.read_only,
        "cache_type": if disk.flushes { "Writeback" } else { "Unsafe" },
        "rate_limiter": rate_limiter(limits),
    });
    ("PUT /drives", drive_path(index), body)
}

/// Gives a disk of a guest that runs these limits: its state brought those that its snapshot was made with.
pub(super) fn limit_drive(index: usize, limits: DiskLimits) -> (&'static str, String, Value) {
    let body = json!({ "drive_id": drive_id(index), "rate_limiter": rate_limiter(limits) });
    ("PATCH /drives", drive_path(index), body)
}

fn drive_id(index: usize) -> String {
    format!("disk{index}")
}

fn drive_path(index: usize) -> String {
    format!("/drives/{}", drive_id(index))
}

/// Buckets as large as what flows into them in a second; one without a size is none.
fn rate_limiter(limits: DiskLimits) -> Value {
    let bucket = |a_second: u64| json!({ "size": a_second, "refill_time": 1000 });
    json!({ "bandwidth": bucket(limits.bytes_per_second), "ops": bucket(limits.operations_per_second) })
}

#[cfg(test)]
mod tests {
    use std::{io, os::fd::OwnedFd, path::PathBuf, sync::Arc};

    use super::*;
    use crate::{
        driver::{Link, Memory},
        jail::Limits,
    };

    #[derive(Debug)]
    struct Unplugged;

    impl Link for Unplugged {
        fn open(&self) -> io::Result<OwnedFd> {
            Err(io::ErrorKind::NotFound.into())
        }

        fn namespace(&self) -> PathBuf {
            "/namespace".into()
        }

        fn name(&self) -> &'static str {
            "tap0"
        }

        fn settle(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn machine(disk_limits: DiskLimits) -> Machine {
        let disk = |read_only| Disk {
            path: None,
            bytes: 1 << 30,
            read_only,
            flushes: read_only,
        };
        Machine {
            directory: "/own".into(),
            user_id: 1,
            group_id: 2,
            limits: Limits {
                cpus: 1,
                weight: 100,
                memory_bytes: 1 << 30,
                tasks: 100,
            },
            cgroups: Vec::new(),
            vcpus: 1,
            memory: Memory {
                path: "/memory".into(),
                bytes: 1 << 30,
                shared: true,
            },
            disks: vec![disk(true), disk(false)],
            disk_limits,
            link: Arc::new(Unplugged),
            mac: [2, 0, 0, 0, 0, 1],
            boot: None,
        }
    }

    #[test]
    fn every_disk_is_limited_with_a_burst_of_a_second_and_flushes_as_it_is_to() {
        let limits = DiskLimits {
            bytes_per_second: 5_000_000,
            operations_per_second: 300,
        };
        let limiter = json!({
            "bandwidth": { "size": 5_000_000, "refill_time": 1000 },
            "ops": { "size": 300, "refill_time": 1000 },
        });
        let requests = configuration(&machine(limits)).expect("good");
        let drives: Vec<_> = requests
            .iter()
            .filter(|(name, ..)| *name == "PUT /drives")
            .collect();
        assert_eq!(drives.len(), 2);
        for (index, (_, path, body)) in drives.into_iter().enumerate() {
            assert_eq!(*path, format!("/drives/disk{index}"));
            assert_eq!(body["rate_limiter"], limiter);
            assert_eq!(body["cache_type"], ["Writeback", "Unsafe"][index]);
        }
        let (_, path, body) = limit_drive(1, limits);
        assert_eq!(path, "/drives/disk1");
        assert_eq!(body, json!({ "drive_id": "disk1", "rate_limiter": limiter }));
    }

    #[test]
    fn no_limit_takes_away_what_a_snapshot_was_made_with() {
        let (_, _, body) = limit_drive(0, DiskLimits::default());
        assert_eq!(body["rate_limiter"]["bandwidth"]["size"], 0);
        assert_eq!(body["rate_limiter"]["ops"]["size"], 0);
    }
}
