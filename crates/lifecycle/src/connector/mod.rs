//! Network connectors: what MicroVMs may reach, in the words of lambda-core (spec 4.7).
//!
//! ```text
//!  create ─▶ PENDING ─▶ ACTIVE ◀─ update: a new version, PENDING ─▶ ACTIVE; the connector stays ACTIVE meanwhile
//!               │         │
//!               ▼         ▼
//!            FAILED ─▶ DELETING ─▶ gone
//! ```
//!
//! On a node of one's own, subnets and security groups are names for what its operator has configured ([`NetworkMap`]).
//! A MicroVM keeps the configuration its connectors had at its launch: deleting one changes nothing for those that use it.

mod map;
pub(crate) mod policy;
pub(crate) mod record;

pub use map::NetworkMap;
