//! What a kernel must be able to do for guests' networks, tried in a namespace that ends with the trial.

use nix::sched::{CloneFlags, unshare};

use crate::{NetworkConfig, NetworkError, build, error::While, shaping};

/// Tries whether this kernel takes the rules of a guest's namespace.
pub fn probe_rules() -> Result<(), NetworkError> {
    apart(|| build::fence(&NetworkConfig::default()))
}

/// Tries whether this kernel can hold a link to a rate.
pub fn probe_limit() -> Result<(), NetworkError> {
    apart(|| shaping::shape_links(&["lo"], 1 << 20))
}

/// Runs `trial` on a thread and in a network namespace of its own.
fn apart(trial: impl FnOnce() -> Result<(), NetworkError> + Send + 'static) -> Result<(), NetworkError> {
    let tried = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).during(|| "making a network namespace".into())?;
        trial()
    });
    tried
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
