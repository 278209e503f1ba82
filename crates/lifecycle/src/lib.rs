//! Room: lifecycle.
