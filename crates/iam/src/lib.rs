//! Who may do what: access keys, roles, sessions and the policies that bind them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `policy` | IAM's policy language: read, then asked |
//! | `demand` | what a call must be allowed: actions on resources |
//! | `identity` | whom an access key stands for |
//! | `session` | temporary keys: sealed into their own tokens, so that none is stored |
//! | `store` | keys and roles in the database |
//! | `guard` | asks the policies about every call |
#![forbid(unsafe_code)]

mod demand;
mod guard;
mod identity;
mod issue;
pub mod policy;
mod records;
mod session;
mod store;

pub use demand::{Demand, ImageOf};
pub use guard::Authorizer;
pub use identity::Identity;
pub use issue::{CredentialIssuer, Credentials, IssueError};
pub use records::{KeyRecord, RoleRecord};
pub use session::SessionKey;
pub use store::{Iam, KeyError, Settings};
