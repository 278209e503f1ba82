//! Auth tokens of the endpoint: compact JWE, direct key, AES-256-GCM (spec section 19).
//!
//! A token grants its bearer one MicroVM and either a set of ports or a shell, until an absolute time. The claims are
//! encrypted: clients cannot read them and must not try. This crate does no I/O; the caller keeps the [`Keyring`].
#![forbid(unsafe_code)]

mod claims;
mod jwe;
mod keyring;

pub use claims::{Claims, Grant, PortRange};
pub use keyring::{Keyring, KeyringError, RETIRED_KEY_LIFE_MS};

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of ours: malformed, altered, or encrypted under a key we do not have.
    #[error("token cannot be read")]
    Unreadable,
    /// A genuine token whose time is over.
    #[error("token has expired")]
    Expired,
}
