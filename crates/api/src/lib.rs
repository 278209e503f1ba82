//! The HTTP control plane: one TLS port for every service an AWS client may call.
//!
//! The SigV4 credential scope chooses the service: `s3` requests pass untouched to the S3 front end, which verifies
//! them itself; `lambda`, `logs` and `sts` are verified here. One call of `lambda` goes route → signature → JSON →
//! constraints → [`hearth_wire::Guard`] → typed request → [`hearth_wire::ControlPlane`].
#![forbid(unsafe_code)]

mod answer;
mod body;
mod json_service;
mod lambda;
mod router;
mod scope;
mod server;
mod services;
mod signature;
mod sts;

pub use answer::{Body, BoxError};
pub use server::{ApiConfig, serve};
pub use services::{JsonService, JsonServiceError, S3Service, Services};
