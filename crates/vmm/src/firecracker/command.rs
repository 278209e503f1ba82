//! The jail, the command line and the configuration of one Firecracker process.

use serde_json::{Value, json};

use super::Firecracker;
use crate::{
    driver::{Disk, Kernel, Machine, VmmError},
    jail::{Bind, Device, JailSpec, NetworkOf, bind_disks, disk_place},
};

/// Name of the API's socket in the process's directory.
pub(super) const API_SOCKET: &str = "api.sock";
/// Name of Firecracker's own log in the process's directory.
pub(super) const OWN_LOG: &str = "firecracker.log";

/// The program in the jail.
pub(super) const PROGRAM: &str = "/firecracker";
/// Guest memory in the jail.
pub(super) const MEMORY: &str = "/memory";
/// A path that nothing can be made at: the jail's root cannot be written to.
pub(super) const NOWHERE: &str = "/nowhere/memory";
const KERNEL: &str = "/kernel";
const INITRAMFS: &str = "/initramfs";
/// The largest file it writes beside disks and memory: its state, its log.
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
        arguments: [
            "--id",
            "hearth",
            "--api-sock",
            API_SOCKET,
            "--log-path",
            OWN_LOG,
            "--level",
            "Warn",
        ]
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
            .map(|(index, disk)| drive(index, disk)),
    );
    Ok(requests)
}

fn drive(index: usize, disk: &Disk) -> (&'static str, String, Value) {
    let body = json!({
        "drive_id": format!("disk{index}"),
        "path_on_host": disk_place(index),
        "is_root_device": false,
        "is_read_only": disk.read_only,
        // The guest's flushes reach the host's disk.
        "cache_type": "Writeback",
    });
    ("PUT /drives", format!("/drives/disk{index}"), body)
}
