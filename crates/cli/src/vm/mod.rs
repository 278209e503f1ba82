//! Commands about MicroVMs.

pub(crate) mod change;
pub(crate) mod cp;
pub(crate) mod curl;
pub(crate) mod describe;
pub(crate) mod exec;
pub(crate) mod forward;
pub(crate) mod id;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod terminal;
pub(crate) mod token;
