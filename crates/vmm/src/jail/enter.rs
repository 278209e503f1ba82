use std::{
    convert::Infallible,
    fs::{self, File},
    io::{self, Write},
    os::unix::process::CommandExt,
    process::Command,
};

use caps::{CapSet, CapsHashSet};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::{Gid, Uid, dup2_stdout, setgroups, setresgid, setresuid, setsid},
};

use super::{JailSpec, NetworkOf, root, syscalls};

/// Descriptors a VMM may have open; a guest's devices need some dozens.
const OPEN_FILES: u64 = 1024;

/// The launcher: becomes the VMM of `spec` (JSON) in a child process whose pid it prints, or says why not. Call it first
/// thing in a process of its own.
pub fn enter(spec: &str) -> Result<(), String> {
    let spec: JailSpec =
        serde_json::from_str(spec).map_err(|error| format!("the jail's description: {error}"))?;
    leave_namespaces(&spec)?;
    match fork_sibling().map_err(|error| format!("starting the VMM's process: {error}"))? {
        Some(pid) => io::stdout()
            .write_all(pid.to_string().as_bytes())
            .map_err(|error| format!("telling the VMM's pid: {error}")),
        None => become_vmm(&spec).map(|never| match never {}),
    }
}

fn step<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Joins the control groups and leaves the daemon's namespaces.
fn leave_namespaces(spec: &JailSpec) -> Result<(), String> {
    step(
        "its place when memory runs out",
        fs::write("/proc/self/oom_score_adj", super::EXPENDABLE.to_string()),
    )?;
    for group in &spec.cgroups {
        step(
            &format!("joining the control group {}", group.display()),
            fs::write(group.join("cgroup.procs"), "0"),
        )?;
    }
    match &spec.network {
        NetworkOf::Nobody => step("a network namespace", unshare(CloneFlags::CLONE_NEWNET))?,
        NetworkOf::Guest(path) => {
            let namespace = step("opening the guest's network namespace", File::open(path))?;
            step(
                "entering the guest's network namespace",
                setns(namespace, CloneFlags::CLONE_NEWNET),
            )?;
        }
    }
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWCGROUP;
    step("new namespaces", unshare(namespaces))
}

/// Forks a child of the launcher's parent: the daemon watches and reaps the VMM itself. `None` in the child.
fn fork_sibling() -> io::Result<Option<i32>> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without a stack of its own the child goes on with a copy of this one, as after fork; this process has one
    // thread, so nothing is left locked in the child.
    match unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0, 0, 0, 0) } {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some(pid as i32)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn become_vmm(spec: &JailSpec) -> Result<Infallible, String> {
    // The pipe on standard output is the launcher's: the daemon waits for its end. The VMM has its log in both places.
    step("leaving standard output", dup2_stdout(io::stderr()))?;
    step("a session", setsid())?;
    step("the jail's root", root::enter(spec))?;
    limit(spec)?;
    give_up_privileges(spec)?;
    step("the system call filter", syscalls::restrict())?;
    let error = Command::new(&spec.program)
        .args(&spec.arguments)
        .env_clear()
        .envs(spec.environment.iter().cloned())
        .exec();
    Err(format!("starting {}: {error}", spec.program.display()))
}

fn limit(spec: &JailSpec) -> Result<(), String> {
    for (resource, most) in [
        // Not 0, which counts for files alone: a handler that the kernel pipes cores into gets none of a process with 1.
        (Resource::RLIMIT_CORE, 1),
        (Resource::RLIMIT_NOFILE, OPEN_FILES),
        (Resource::RLIMIT_NPROC, spec.tasks),
        (Resource::RLIMIT_FSIZE, spec.file_bytes),
    ] {
        step("resource limits", setrlimit(resource, most, most))?;
    }
    Ok(())
}

fn give_up_privileges(spec: &JailSpec) -> Result<(), String> {
    step("capabilities", caps::clear(None, CapSet::Ambient))?;
    step("capabilities", caps::clear(None, CapSet::Bounding))?;
    let (user, group) = (Uid::from_raw(spec.user), Gid::from_raw(spec.group));
    step("groups", setgroups(&[Gid::from_raw(spec.images_group)]))?;
    step("group", setresgid(group, group, group))?;
    step("user", setresuid(user, user, user))?;
    step(
        "capabilities",
        caps::set(None, CapSet::Inheritable, &CapsHashSet::new()),
    )?;
    step("privileges", prctl::set_no_new_privs())
}
