//! Requests and responses, one module per resource; members carry the names of the service model.
//!
//! Requests hold path and query members beside those of the body. Responses print unset optional members as `null`
//! (spec 3.2) and include the unmodelled members of spec 4.6.
#![allow(
    missing_docs,
    reason = "each member is named, with its unit, as in the service model"
)]

mod access;
mod audit;
mod base;
mod build;
mod connector;
mod image;
mod managed;
mod microvm;
mod specification;
mod tags;
mod token;
mod usage;
mod version;

pub use access::*;
pub use audit::*;
pub use base::*;
pub use build::*;
pub use connector::*;
pub use image::*;
pub use managed::*;
pub use microvm::*;
pub use specification::*;
pub use tags::*;
pub use token::*;
pub use usage::*;
pub use version::*;

/// A member that is on the wire and always `null` (spec 4.6).
pub type AlwaysNull = Option<()>;
