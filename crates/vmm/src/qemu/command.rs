//! The command line of one QEMU process.

use std::ffi::OsString;

use super::{Qemu, cpu_model, runtime};
use crate::{
    driver::{Acceleration, Disk, Kernel, Machine},
    jail::{Bind, Device, JailSpec, NetworkOf, bind_disks, disk_place},
};

/// Descriptor of the tap device in the child.
const TAP_FD: i32 = 3;
/// Descriptor of the socket that device state arrives on in the child.
pub(super) const STATE_FD: i32 = 4;
/// Name of a disk's device, with its number behind it.
const DEVICE: &str = "drive";
/// Name of the control socket in the process's directory.
pub(super) const CONTROL_SOCKET: &str = "qmp.sock";
/// Upper bound of TCG's translation cache in MiB; QEMU's own default grows with guest memory.
const TRANSLATION_CACHE_MIB: u32 = 128;

/// Where guest memory may begin in the process: at a large page, so that a memory file in large pages is mapped by them.
const MEMORY_ALIGNMENT: &str = "2M";

/// Guest memory in the jail.
const MEMORY: &str = "/memory";
const KERNEL: &str = "/kernel";
const INITRAMFS: &str = "/initramfs";
/// Of what a paused guest's device state is written to.
const LARGEST_OWN_FILE: u64 = 64 << 20;

/// The jail with everything that the machine needs, and no more.
pub(super) fn jail(qemu: &Qemu, machine: &Machine) -> JailSpec {
    let mut binds = qemu.runtime.files.clone();
    let memory = &machine.memory;
    binds.push(Bind {
        from: memory.path.clone(),
        to: MEMORY.into(),
        writable: memory.shared || !qemu.maps_read_only_memory(),
    });
    if let Some(kernel) = &machine.boot {
        binds.push(Bind::read_only(&kernel.image, KERNEL));
        binds.push(Bind::read_only(&kernel.initramfs, INITRAMFS));
    }
    let places = bind_disks(&machine.disks, &mut binds);
    let device = |path: &str, number| Device {
        path: path.into(),
        number,
    };
    let mut devices = vec![device("/dev/urandom", (1, 9))];
    if qemu.platform.acceleration == Acceleration::Kvm {
        devices.push(device("/dev/kvm", (10, 232)));
    }
    let writable = machine.disks.iter().filter(|disk| !disk.read_only);
    JailSpec {
        user: machine.user_id,
        group: machine.user_id,
        images_group: machine.group_id,
        directory: machine.directory.clone(),
        network: NetworkOf::Nobody,
        cgroups: machine.cgroups.clone(),
        binds,
        places,
        devices,
        file_bytes: writable
            .map(|disk| disk.bytes)
            .max()
            .unwrap_or(0)
            .max(LARGEST_OWN_FILE),
        tasks: machine.limits.tasks,
        program: qemu.program.clone(),
        arguments: arguments(qemu, machine),
        environment: vec![("QEMU_MODULE_DIR".into(), runtime::MODULES.into())],
    }
}

fn arguments(qemu: &Qemu, machine: &Machine) -> Vec<OsString> {
    let mut arguments = Arguments(Vec::new());
    arguments.pair("-name", "hearth");
    arguments.pair("-L", runtime::FIRMWARE);
    arguments
        .flag("-no-user-config")
        .flag("-nodefaults")
        .flag("-no-reboot");
    arguments.pair("-display", "none");
    arguments.pair("-machine", format!(
        "{},memory-backend=memory,usb=off,vmport=off,smm=off,sata=off,smbus=off,i8042=off,dump-guest-core=off,mem-merge=off",
        qemu.platform.machine
    ));
    arguments.pair("-cpu", cpu_model(qemu.platform.acceleration));
    match qemu.platform.acceleration {
        Acceleration::Kvm => arguments.pair("-accel", "kvm"),
        Acceleration::Tcg => arguments.pair("-accel", format!("tcg,tb-size={TRANSLATION_CACHE_MIB}")),
    };
    arguments.pair("-smp", machine.vcpus.to_string());
    arguments.pair("-m", format!("{}B", machine.memory.bytes));
    arguments.pair("-object", memory_backend(qemu, machine));
    arguments.pair(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    arguments.pair("-rtc", "base=utc,clock=vm");
    arguments.pair("-qmp", format!("unix:{CONTROL_SOCKET},server=on,wait=off"));
    // Device state carries no configuration section: it is made by `xen-save-devices-state`.
    arguments.pair("-global", "migration.send-configuration=off");
    arguments.pair(
        "-chardev",
        match machine.boot {
            Some(_) => "stdio,id=console,signal=off",
            // Nobody asks what a clone's console says.
            None => "null,id=console",
        },
    );
    arguments.pair("-serial", "chardev:console");
    arguments.pair("-object", "rng-random,id=entropy,filename=/dev/urandom");
    arguments.pair("-device", "virtio-rng-pci,rng=entropy,bus=pcie.0,addr=2");
    arguments.pair("-netdev", format!("tap,id=net0,fd={TAP_FD}"));
    let mac: Vec<String> = machine.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    arguments.pair(
        "-device",
        format!(
            "virtio-net-pci,netdev=net0,mac={},romfile=,bus=pcie.0,addr=3",
            mac.join(":")
        ),
    );
    for (index, disk) in machine.disks.iter().enumerate() {
        arguments.pair("-blockdev", protocol_node(index, disk));
        arguments.pair(
            "-blockdev",
            format!(
                "driver=raw,node-name=disk{index},file=file{index},read-only={},discard=unmap",
                on_off(disk.read_only)
            ),
        );
        arguments.pair(
            "-device",
            format!(
                // What the host's disk refuses the guest is told, with every VMM: QEMU would have it stand still instead.
                "virtio-blk-pci,id={DEVICE}{index},drive=disk{index},num-queues=1,werror=report,bus=pcie.0,addr={:x}",
                4 + index
            ),
        );
    }
    match &machine.boot {
        Some(_) => {
            arguments.pair("-kernel", KERNEL);
            arguments.pair("-initrd", INITRAMFS);
            arguments.pair("-append", kernel_command_line(qemu.platform.acceleration));
        }
        None => {
            arguments.pair("-incoming", "defer");
        }
    }
    arguments.0
}

/// What a disk's device asks for blocks, by its path.
pub(super) fn disk_backend(index: usize) -> String {
    format!("{DEVICE}{index}/virtio-backend")
}

fn memory_backend(qemu: &Qemu, machine: &Machine) -> String {
    let memory = &machine.memory;
    let mut backend = format!(
        "memory-backend-file,id=memory,prealloc=off,reserve=off,align={MEMORY_ALIGNMENT},mem-path={MEMORY},size={}B,share={}",
        memory.bytes,
        on_off(memory.shared)
    );
    if !memory.shared && qemu.maps_read_only_memory() {
        backend.push_str(",readonly=on,rom=off");
    }
    backend
}

fn protocol_node(index: usize, disk: &Disk) -> String {
    match &disk.path {
        Some(_) => format!(
            "driver=file,node-name=file{index},locking=off,read-only={},cache.no-flush={},discard=unmap,filename={}",
            on_off(disk.read_only),
            on_off(!disk.flushes),
            disk_place(index).display()
        ),
        None => format!(
            "driver=null-co,node-name=file{index},size={},read-zeroes=on",
            disk.bytes
        ),
    }
}

/// The guest kernel's command line.
fn kernel_command_line(acceleration: Acceleration) -> String {
    let common = Kernel::COMMAND_LINE;
    match acceleration {
        Acceleration::Kvm => common.into(),
        // The host's speculation is not the guest's under translation; a real-time TSC is not there to calibrate.
        Acceleration::Tcg => format!("{common} mitigations=off tsc=unstable no_timer_check"),
    }
}

fn on_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> &mut Arguments {
        self.0.push(flag.into());
        self
    }

    fn pair(&mut self, name: &str, value: impl Into<OsString>) -> &mut Arguments {
        self.0.push(name.into());
        self.0.push(value.into());
        self
    }
}
