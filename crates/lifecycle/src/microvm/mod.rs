//! MicroVMs.
//!
//! ```text
//!            RunMicrovm
//!                │
//!            Pending ──── launch failed, /run refused ────────┐
//!                │ /run answered 200                          │
//!            Running ◄──────────────┐                         │
//!   suspend, │  ▲ request (cancel)  │ /resume answered 200    │
//!   idle     ▼  │                   │                         ▼
//!          Suspending ─► Suspended ─► Resuming          Terminating ─► Terminated
//! ```
//!
//! | stage | promises | holds |
//! | --- | --- | --- |
//! | Pending | nothing has reached the application | a guest, perhaps |
//! | Running | the gate is open | a guest |
//! | Suspending | memory and disk stand still; the guest can still go on | a paused guest |
//! | Suspended | device state, delta and scratch disk are on disk, synced | files only |
//! | Resuming | the files of Suspended stay until the guest runs | files and a guest |
//! | Terminating | no request is served any more | whatever is left |
//! | Terminated | nothing is left but the record | nothing |

pub(crate) mod activity;
pub(crate) mod gate;
mod launch;
pub(crate) mod meter;
mod output;
pub(crate) mod policy;
pub(crate) mod public;
pub(crate) mod record;
mod shared;
mod suspend;
pub(crate) mod task;

pub(crate) use output::{default_group, default_stream};
pub(crate) use record::MicrovmRecord;
pub(crate) use shared::{Message, Microvm};
