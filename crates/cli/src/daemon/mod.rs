//! Commands about the daemon on this machine.

pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod env;
mod process;
pub(crate) mod up;
