//! Capabilities and identity of a container's process.
use anyhow::Context;
use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::user::Identity;

/// Docker's default set: mask 00000000a80425fb (spec section 11).
const DEFAULT: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_MKNOD,
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_SETFCAP,
];

/// Gives up whatever the identity shall not have. Root keeps its set, others none that they could use at once: the
/// kernel clears it with the change of user, and the bounding set still limits what a set-uid program regains.
pub fn become_user(identity: &Identity, all_capabilities: bool) -> anyhow::Result<()> {
    if !all_capabilities {
        let allowed = CapsHashSet::from(DEFAULT);
        for capability in caps::all().difference(&allowed) {
            // The kernel may not know the newest ones, and what it does not know is not there.
            if caps::has_cap(None, CapSet::Bounding, *capability).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, *capability).context("cannot limit capabilities")?;
            }
        }
        caps::clear(None, CapSet::Inheritable).context("cannot limit capabilities")?;
    }
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).context("cannot set groups")?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setresgid(gid, gid, gid).context("cannot set the group")?;
    // For root, the program gets what the bounding set holds: execve computes it anew.
    setresuid(uid, uid, uid).context("cannot set the user")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_dockers() {
        let mask = DEFAULT
            .iter()
            .fold(0, |mask, capability| mask | capability.bitmask());
        assert_eq!(mask, 0xa804_25fb);
    }
}
