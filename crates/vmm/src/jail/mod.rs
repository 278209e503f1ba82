//! The jail of a VMM process, the same for every VMM.
//!
//! The daemon starts itself anew as the *launcher* (a hidden command), which has one thread and therefore may do what a
//! threaded process cannot: join the control groups, leave every namespace, build a root that holds only what this VM
//! needs, give up root and every capability, put a system call filter on and become the VMM. The VMM is then a child of
//! the daemon and the first process of its own PID namespace.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `spec` | what a jail holds and what it may use |
//! | `launch` | the daemon's side: starts the launcher, learns the VMM's pid |
//! | `enter` | the launcher's side, step by step |
//! | `root` | the jail's file system |
//! | `syscalls` | the system call filter |
//! | `cgroups` | control groups, versions 1 and 2 |
//! | `attach` | shows one more file to a VMM that runs |

mod attach;
mod cgroups;
mod enter;
mod launch;
mod root;
mod spec;
mod syscalls;

pub use attach::attach;
pub use cgroups::{Cgroups, Limits};
pub use enter::enter;
pub(crate) use launch::launch;
pub use spec::{Bind, Device, JailSpec, NetworkOf};
pub(crate) use spec::{bind_disks, disk_place};

/// The launcher's hidden command.
pub const COMMAND: &str = "jail";
/// `oom_score_adj` of a VMM: ended before an ordinary process when memory runs out, until its guest has a state of its own.
const EXPENDABLE: i16 = 500;
/// Where a VMM finds its own directory: its sockets, and files that it was given to write.
pub(crate) const OWN: &str = "/own";
