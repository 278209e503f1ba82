//! Commands about MicroVMs.

pub(crate) mod change;
pub(crate) mod curl;
pub(crate) mod id;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod token;
