//! Images, their versions and builds.
//!
//! ```text
//!  create ─► CREATING ─► CREATED | CREATE_FAILED ─┐
//!                                                 ├─ update ─► UPDATING ─► UPDATED | UPDATE_FAILED
//!  delete ─► DELETING ─► gone                     └─ (any settled state)
//! ```

pub(crate) mod base;
pub(crate) mod policy;
pub(crate) mod record;
mod snapshot;
pub(crate) mod task;
