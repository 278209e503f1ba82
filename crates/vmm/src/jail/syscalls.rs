use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// What no VMM needs and what a break-out would start with. It stands before the VMM's own filter and holds from its
/// first instruction on; each VMM's own is narrower still once it runs.
const DENIED: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    // Namespaces and file systems.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_quotactl,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // A VMM has one flat directory, which this daemon reads and removes.
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_fanotify_init,
    // Does what it is asked without a call that a filter sees.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Large parts of the kernel that were broken often.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_modify_ldt,
    libc::SYS_vmsplice,
    // The machine as a whole.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_personality,
    libc::SYS_lookup_dcookie,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
];

/// Puts the filter on this thread: a denied call fails with `EPERM`, one of another architecture ends the process.
pub(super) fn restrict() -> Result<(), seccompiler::Error> {
    for filter in [denials()?, no_clone3()?] {
        let program: BpfProgram = filter.try_into()?;
        seccompiler::apply_filter(&program)?;
    }
    seccompiler::apply_filter(&NO_X32)
}

/// The same calls by other numbers, where the kernel has them: an x32 call has this bit set.
const X32: u32 = 0x4000_0000;
/// Ends a process that makes such a call. The library compares numbers alone.
const NO_X32: [sock_filter; 4] = [
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
    sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: X32,
    },
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS),
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
];

const fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// The flags of clone3 lie in memory, where no filter sees them: without it the C library uses clone.
fn no_clone3() -> Result<SeccompFilter, seccompiler::BackendError> {
    SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        TargetArch::x86_64,
    )
}

fn denials() -> Result<SeccompFilter, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    // A VMM talks to its local control socket and has its tap; every other family is attack surface.
    let condition = |operator, family: libc::c_int| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, family as u64)
    };
    let no_local_socket = SeccompRule::new(vec![condition(SeccompCmpOp::Ne, libc::AF_UNIX)?])?;
    rules.insert(libc::SYS_socket, vec![no_local_socket.clone()]);
    rules.insert(libc::SYS_socketpair, vec![no_local_socket]);
    let namespaces = (libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET) as u64;
    let mut each = Vec::new();
    for bit in (0..32).map(|bit| 1u64 << bit).filter(|bit| namespaces & bit != 0) {
        let set = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit)?;
        each.push(SeccompRule::new(vec![set])?);
    }
    rules.insert(libc::SYS_clone, each);
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::x86_64,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_lets_threads_and_local_sockets_through_and_nothing_of_what_it_denies() {
        let outcome = std::thread::spawn(|| {
            restrict().expect("a filter");
            std::thread::spawn(|| ()).join().expect("a thread");
            std::os::unix::net::UnixStream::pair().expect("local sockets");
            let refused = |error: std::io::Error| error.raw_os_error() == Some(libc::EPERM);
            assert!(refused(
                std::net::UdpSocket::bind("127.0.0.1:0").expect_err("refused")
            ));
            assert!(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).is_err());
            assert_eq!(nix::unistd::chroot("/"), Err(nix::Error::EPERM));
            assert!(refused(std::fs::create_dir("/tmp/refused").expect_err("refused")));
            assert!(refused(
                std::os::unix::fs::symlink("/tmp", "/tmp/refused").expect_err("refused")
            ));
            assert!(refused(
                std::fs::hard_link("/proc/self/exe", "/tmp/refused").expect_err("refused")
            ));
            let pair = nix::sys::socket::socketpair(
                nix::sys::socket::AddressFamily::Tipc,
                nix::sys::socket::SockType::SeqPacket,
                None,
                nix::sys::socket::SockFlag::empty(),
            );
            assert_eq!(pair.err(), Some(nix::Error::EPERM));
            // SAFETY: without a filter the kernel refuses the null pointer.
            let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) };
            assert!(ring == -1 && refused(std::io::Error::last_os_error()));
        });
        outcome.join().expect("no panic");
    }

    #[test]
    fn a_call_by_an_x32_number_ends_the_process() {
        let test = "jail::syscalls::tests::makes_a_call_by_an_x32_number";
        let child = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", test, "--ignored"])
            .output()
            .expect("runs");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&child.status),
            Some(libc::SIGSYS),
            "{child:?}"
        );
    }

    #[test]
    #[ignore = "ends its process: another test runs it"]
    fn makes_a_call_by_an_x32_number() {
        restrict().expect("a filter");
        // SAFETY: it has no arguments, and the filter ends the process.
        unsafe { libc::syscall(libc::SYS_getpid | libc::c_long::from(X32)) };
    }
}
