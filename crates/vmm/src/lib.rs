//! Room: vmm.
