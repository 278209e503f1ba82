//! Room: logs.
