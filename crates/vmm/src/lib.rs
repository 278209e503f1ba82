//! Virtual machine monitors: the [`Driver`] trait, one module per VMM, and the guest memory they share.
//!
//! This room knows processes, sockets, device state and guest memory. It knows nothing of images, tenants or AWS.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`driver`] | what every VMM must be able to do, and the shapes passed in |
//! | [`firecracker`] | Firecracker by its API, with KVM |
//! | [`qemu`] | QEMU by QMP, with KVM or TCG |
//! | [`jail`] | what a VMM process may see, do and use |
//! | [`memory`] | which pages a guest has written, the delta file, zero pages |
//! | [`log`] | the words of a VMM process and its guest's console, bounded |
//! | [`process`] | a VMM process that outlives the daemon: found again, watched, ended |
//! | [`adopt()`] | finds processes of a former daemon again, whatever driver started them |
//! | `saving` | the part of a save that blocks a thread |
//! | [`kvm`] | is `/dev/kvm` usable, or only there? |
//! | [`cpu`] | what a guest under KVM sees of the host's processor |

mod adopt;
pub mod cpu;
pub mod driver;
pub mod firecracker;
pub mod jail;
pub mod kvm;
pub mod log;
pub mod memory;
pub mod process;
mod program;
pub mod qemu;
mod saving;

pub use adopt::adopt;
pub use driver::{
    Acceleration, Disk, DiskLimits, Driver, Kernel, Link, Machine, Memory, Platform, Vm, VmmError, in_time,
};
pub use process::ProcessRecord;
