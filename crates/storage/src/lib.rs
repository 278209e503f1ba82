//! What lies on the node's disk: objects, sparse disks, and files that survive a power cut.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`objects`] | buckets and objects of the S3 front end |
//! | [`disk`] | raw disks: made, cloned by their data extents, measured |
//! | [`durable`] | temp file → fsync → rename → fsync directory |
#![forbid(unsafe_code)]

pub mod disk;
pub mod durable;
pub mod objects;
