//! The command line of one QEMU process.

use std::{
    ffi::OsString,
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use super::Qemu;
use crate::driver::{Acceleration, Disk, Machine, VmmError};

/// Descriptor of the tap device in the child.
const TAP_FD: i32 = 3;
/// Descriptor of the socket that device state arrives on in the child.
pub(super) const STATE_FD: i32 = 4;
/// Name of the control socket in the process's directory.
pub(super) const CONTROL_SOCKET: &str = "qmp.sock";
/// Name of QEMU's own log in the process's directory.
pub(super) const LOG: &str = "vmm.log";
/// Name of the console log of a cold boot in the process's directory.
pub(super) const CONSOLE: &str = "console.log";
/// Upper bound of TCG's translation cache in MiB; QEMU's own default grows with guest memory.
const TRANSLATION_CACHE_MIB: u32 = 128;

/// Builds the command. `state` is the child's end of the socket for device state.
pub(super) fn build(qemu: &Qemu, machine: &Machine, state: &OwnedFd) -> Result<Command, VmmError> {
    let mut command = Command::new(&qemu.program);
    command
        .args(arguments(qemu, machine))
        .current_dir(&machine.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let log = File::create(machine.directory.join(LOG)).map_err(VmmError::io("creating the VMM's log"))?;
    command.stderr(log).env_clear();
    let (tap, state) = (machine.tap.as_raw_fd(), state.as_raw_fd());
    let (user, group) = (machine.user_id, machine.group_id);
    // SAFETY: between fork and exec only async-signal-safe system calls are made, on descriptors that stay open until
    // the command has been spawned.
    unsafe { command.pre_exec(move || prepare_child(tap, state, user, group)) };
    Ok(command)
}

/// In the child: a session and empty network of its own, two inherited descriptors, no privileges.
fn prepare_child(tap: i32, state: i32, user: u32, group: u32) -> std::io::Result<()> {
    use nix::{
        sched::{CloneFlags, unshare},
        unistd::{Gid, Uid, setgroups, setresgid, setresuid, setsid},
    };
    setsid()?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC)?;
    // First out of the way, then to their places: the two may sit on each other's number.
    let away = [duplicate_above(tap, 10)?, duplicate_above(state, 10)?];
    for (from, to) in away.into_iter().zip([TAP_FD, STATE_FD]) {
        // SAFETY: plain system call on descriptors of this process; the copy is not close-on-exec.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

fn duplicate_above(fd: i32, least: i32) -> std::io::Result<i32> {
    // SAFETY: plain system call; the copy is close-on-exec.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, least) } {
        copy if copy >= 0 => Ok(copy),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn arguments(qemu: &Qemu, machine: &Machine) -> Vec<OsString> {
    let mut arguments = Arguments(Vec::new());
    arguments.pair("-name", "hearth");
    arguments
        .flag("-no-user-config")
        .flag("-nodefaults")
        .flag("-no-reboot");
    arguments.pair("-display", "none");
    arguments.pair("-machine", format!(
        "{},memory-backend=memory,usb=off,vmport=off,smm=off,sata=off,smbus=off,i8042=off,dump-guest-core=off,mem-merge=off",
        qemu.platform.machine
    ));
    arguments.pair("-cpu", qemu.platform.cpu.clone());
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
            Some(_) => format!("file,id=console,path={CONSOLE}"),
            // A running guest's console is the guest's to flood: kept in bounded memory.
            None => "ringbuf,id=console,size=65536".into(),
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
                "virtio-blk-pci,drive=disk{index},num-queues=1,bus=pcie.0,addr={:x}",
                4 + index
            ),
        );
    }
    match &machine.boot {
        Some(kernel) => {
            arguments.pair("-kernel", kernel.image.as_os_str().to_owned());
            arguments.pair("-initrd", kernel.initramfs.as_os_str().to_owned());
            arguments.pair("-append", kernel_command_line(qemu.platform.acceleration));
        }
        None => {
            arguments.pair("-incoming", "defer");
        }
    }
    arguments.0
}

fn memory_backend(qemu: &Qemu, machine: &Machine) -> OsString {
    let memory = &machine.memory;
    let mut backend = OsString::from("memory-backend-file,id=memory,prealloc=off,reserve=off,mem-path=");
    backend.push(escape_commas(&memory.path));
    backend.push(format!(",size={}B,share={}", memory.bytes, on_off(memory.shared)));
    if !memory.shared && qemu.maps_read_only_memory() {
        backend.push(",readonly=on,rom=off");
    }
    backend
}

fn protocol_node(index: usize, disk: &Disk) -> OsString {
    match &disk.path {
        Some(path) => {
            let mut node = OsString::from(format!(
                "driver=file,node-name=file{index},locking=off,read-only={},discard=unmap,filename=",
                on_off(disk.read_only)
            ));
            node.push(escape_commas(path));
            node
        }
        None => format!(
            "driver=null-co,node-name=file{index},size={},read-zeroes=on",
            disk.bytes
        )
        .into(),
    }
}

/// The guest kernel's command line. Free pages are zeroed when they are freed instead of when they are taken, so that
/// snapshots and deltas hold no dead data.
fn kernel_command_line(acceleration: Acceleration) -> String {
    let common = "console=ttyS0 quiet panic=1 init_on_free=1 init_on_alloc=0 random.trust_cpu=on nomodeset net.ifnames=0";
    match acceleration {
        Acceleration::Kvm => common.into(),
        // The host's speculation is not the guest's under translation; a real-time TSC is not there to calibrate.
        Acceleration::Tcg => format!("{common} mitigations=off tsc=unstable no_timer_check"),
    }
}

/// In QEMU's option syntax a comma inside a value is doubled.
fn escape_commas(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        escaped.push(*byte);
        if *byte == b',' {
            escaped.push(b',');
        }
    }
    OsString::from_vec(escaped)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_cannot_add_options() {
        assert_eq!(
            escape_commas(Path::new("/a,share=on")),
            OsString::from("/a,,share=on")
        );
    }
}
