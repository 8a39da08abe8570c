//! The effectful half of a step: files copied, commands run, directories made, each in a snapshot of its own.

pub(crate) mod accounts;
pub(crate) mod add;
pub(crate) mod copy;
pub(crate) mod grow;
pub(crate) mod lines;
pub(crate) mod mode;
mod output;
pub(crate) mod place;
pub(crate) mod run;
pub(crate) mod sandbox;
pub(crate) mod stubs;
mod sweep;
pub(crate) mod workdir;
pub(crate) mod write;
