//! A guest as a whole: a VMM process, its network slot, its directory, and the agent inside.
//!
//! Builder and lifecycle are made of these parts; neither speaks to a VMM or a namespace directly.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`host`] | starts, restores, finds again and sweeps guests on this node |
//! | [`guest`] | one live guest |
//! | [`agent`] | requests to the agent, with time limits; its answers are hostile input |
//! | `burst` | a guest's processor time near its peak |
//! | `integrity` | whether a snapshot's files are what was written |
//! | `io` | how much a guest's devices may move |
//! | [`snapshot`] | a snapshot's directory and manifest |
//! | [`pool`] | processes started before they are needed |
#![forbid(unsafe_code)]

pub mod agent;
mod burst;
mod error;
pub mod guest;
pub mod host;
mod integrity;
mod io;
pub mod pool;
pub mod snapshot;

pub use agent::Agent;
pub use error::GuestError;
pub use guest::{Guest, GuestRecord};
pub use host::{BaseImage, Boot, Host, HostConfig, Idle, Restore};
pub use io::IoPerVcpu;
pub use pool::Pool;
pub use snapshot::{DiskShape, Shape, Snapshot};
