//! The heart: images, builds and MicroVMs as state machines.
//!
//! ```text
//!  control_plane      the API's operations: identifiers, business rules, answers
//!     │      │
//!   image  microvm    one folder a resource (connector, too), the same inner names:
//!     │      │          record   what is written down
//!     │      │          policy   which request is legal in which state (pure, property-tested)
//!     │      │          task     one task owns one resource and carries out what policy allows
//!     └──┬───┘
//!  catalog registry   what exists, and the ways to find it
//!     │      │
//!      node           what all of them use: database, guests, pool, builder, logs, clock of limits
//! ```
//!
//! Every transition is written to the database before it is acted on, and can be repeated after a crash.
#![forbid(unsafe_code)]

mod application;
mod artifact;
mod catalog;
mod connector;
mod control_plane;
mod hooks;
mod idempotency;
pub mod image;
pub mod microvm;
mod node;
mod permissions;
mod quotas;
mod rebuild;
mod registry;
mod service;
pub mod tiers;
mod turns;

pub use connector::NetworkMap;
pub use image::base::BaseVersion;
pub use microvm::activity::{Activity, Attachment, BusyRules};
pub use microvm::gate::{GateError, Passage};
pub use node::{LifecycleConfig, Node};
pub use quotas::Quotas;
pub use service::{EndpointOwner, Service};

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The database.
    #[error(transparent)]
    State(#[from] hearth_state::StateError),
    /// A guest.
    #[error(transparent)]
    Guest(#[from] hearth_guest::GuestError),
    /// The system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}
