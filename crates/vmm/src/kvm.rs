//! Is `/dev/kvm` usable? A host may offer it, create VMs and vCPUs, and still run guest kernel code a thousand times
//! too slowly (a kernel that emulates it for want of hardware support). So a tiny guest loop runs against a deadline.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};
use nix::{
    sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap},
    unistd::alarm,
};

/// Rounds of the probe's loop: 3 ms on hardware, 30 to 90 ms under nested translation, 5 s and more where every
/// instruction is emulated.
const ROUNDS: u32 = 5_000_000;
/// Longest time the loop may take.
const LOOP_SECONDS: u32 = 2;
/// Longest time until a busy machine has started the probe's process and it has ended.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Usability {
    /// Guest code runs at hardware speed.
    Usable,
    /// It cannot be used; one line with the cause.
    Unusable(String),
}

/// Runs the probe in a child process, which can be ended at the deadline. `program` must call [`run_probe`] when its
/// only argument is `probe-kvm`.
pub fn probe(program: &Path) -> Usability {
    if !Path::new("/dev/kvm").exists() {
        return Usability::Unusable("there is no /dev/kvm".into());
    }
    match run_child(program, DEADLINE) {
        Ok(Some(output)) if output.is_empty() => Usability::Usable,
        Ok(Some(output)) => Usability::Unusable(output),
        Ok(None) => Usability::Unusable(format!(
            "a guest loop did not end within {} s",
            DEADLINE.as_secs()
        )),
        Err(error) => Usability::Unusable(format!("the probe could not run: {error}")),
    }
}

/// The child's words, empty for success; `None` when it was ended at the deadline.
fn run_child(program: &Path, deadline: Duration) -> io::Result<Option<String>> {
    let mut child = Command::new(program)
        .arg("probe-kvm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let end = Instant::now() + deadline;
    while Instant::now() < end {
        if child.try_wait()?.is_some() {
            let output = child.wait_with_output()?;
            let words = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            return Ok(match output.status.success() {
                true => Some(String::new()),
                false if output.status.signal() == Some(libc::SIGALRM) => Some(format!(
                    "a guest loop of {ROUNDS} rounds took more than {LOOP_SECONDS} s: this kernel emulates guest code instead of running it"
                )),
                false if words.is_empty() => Some(format!("the probe ended with {}", output.status)),
                false => Some(words),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Runs the loop in this process, which is ended when it takes too much; `Err` with one line when KVM refuses.
pub fn run_probe() -> Result<(), String> {
    let kvm = Kvm::new().map_err(|error| format!("/dev/kvm cannot be opened: {error}"))?;
    let vm = kvm
        .create_vm()
        .map_err(|error| format!("KVM creates no VM: {error}"))?;
    // mov ecx, ROUNDS; dec ecx; jnz -4; hlt — in 16-bit real mode at address 0x1000.
    let mut code = vec![0x66, 0xb9];
    code.extend_from_slice(&ROUNDS.to_le_bytes());
    code.extend_from_slice(&[0x66, 0x49, 0x75, 0xfc, 0xf4]);

    let length = std::num::NonZeroUsize::new(4096).expect("not zero");
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: fresh anonymous memory, which lives until after the VM has stopped.
    let page = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }
        .map_err(|error| format!("no memory: {error}"))?;
    // SAFETY: the page is ours, 4096 bytes long, and the code is shorter.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), page.as_ptr().cast(), code.len()) };
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0x1000,
        memory_size: 4096,
        userspace_addr: page.as_ptr() as u64,
    };
    // SAFETY: the region names the page above, which outlives the VM's use of it.
    unsafe { vm.set_user_memory_region(region) }.map_err(|error| format!("KVM takes no memory: {error}"))?;
    let result = run_loop(&vm);
    // SAFETY: the vCPU is gone; nothing uses the page any more.
    unsafe { munmap(page, length.get()) }.map_err(|error| error.to_string())?;
    result
}

fn run_loop(vm: &kvm_ioctls::VmFd) -> Result<(), String> {
    let mut vcpu = vm
        .create_vcpu(0)
        .map_err(|error| format!("KVM creates no vCPU: {error}"))?;
    let refused = |error: kvm_ioctls::Error| format!("KVM refuses the vCPU's registers: {error}");
    let mut special = vcpu.get_sregs().map_err(refused)?;
    special.cs.base = 0;
    special.cs.selector = 0;
    vcpu.set_sregs(&special).map_err(refused)?;
    let mut registers = vcpu.get_regs().map_err(refused)?;
    registers.rip = 0x1000;
    registers.rflags = 2;
    vcpu.set_regs(&registers).map_err(refused)?;
    // Unhandled, it ends the process. Not before: starting a process takes its own time on a busy machine.
    alarm::set(LOOP_SECONDS);
    match vcpu.run() {
        Ok(VcpuExit::Hlt) => Ok(()),
        Ok(other) => Err(format!("a guest loop ended with {other:?}")),
        Err(error) => Err(format!("a guest loop failed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script, written by another process: what this one has open for writing, a child that another
    /// test is just starting may hold open too, and then it cannot be executed.
    fn script(path: &Path, text: &str) {
        let written = Command::new("/bin/sh")
            .args(["-c", "printf '%s' \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", text])
            .arg(path)
            .status();
        assert!(written.expect("runs").success());
    }

    #[test]
    fn a_probe_that_hangs_is_ended_at_the_deadline() {
        let directory = tempfile::tempdir().expect("temp dir");
        let hanging = directory.path().join("hanging");
        script(&hanging, "#!/bin/sh\nexec sleep 60\n");
        assert_eq!(
            run_child(&hanging, Duration::from_millis(100)).expect("runs"),
            None
        );
    }

    #[test]
    fn a_probe_that_refuses_passes_its_words_on() {
        let directory = tempfile::tempdir().expect("temp dir");
        let refusing = directory.path().join("refusing");
        script(&refusing, "#!/bin/sh\necho no luck\nexit 1\n");
        assert_eq!(
            run_child(&refusing, DEADLINE).expect("runs"),
            Some("no luck".into())
        );
    }
}
