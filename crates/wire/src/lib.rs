//! The wire contract of the AWS-compatible APIs: types, errors, identifiers, constraints, page tokens. No I/O.
//!
//! [`operations::Operation`] is the one table of operations; the router, the constraint check and the call into the
//! [`ControlPlane`] all derive from it.
#![forbid(unsafe_code)]

pub mod arn;
mod caller;
pub mod constraints;
pub mod enums;
mod error;
mod guard;
pub mod json;
pub mod operations;
pub mod page;
mod request;
mod sensitive;
pub mod texts;
mod timestamp;
pub mod types;

pub use caller::{Caller, partition_of};
pub use error::{ApiError, ErrorDetails, ErrorKind};
pub use guard::{Call, Guard, Request};
pub use operations::{ControlPlane, Operation};
pub use request::Labels;
pub use sensitive::Sensitive;
pub use timestamp::Timestamp;
