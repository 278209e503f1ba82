//! Files and directories as tar streams: what `hearth cp` and the guest say to each other.
//!
//! An archive of a directory has an entry `./` for the directory itself, then everything in it by relative names; one of
//! a file has that file alone. Regular files, directories and symbolic links are carried, with mode, owner and time;
//! devices, pipes and sockets are left out.
#![forbid(unsafe_code)]

mod pack;
mod unpack;

pub use pack::pack;
pub use unpack::unpack;

/// Name of the entry that stands for the packed directory itself.
const ROOT: &str = "./";
