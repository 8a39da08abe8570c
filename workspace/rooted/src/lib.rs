//! Files under a root that an image or a running container has a say in, and a procfs that they have none in.
//!
//! | type | what it is for | rule |
//! |---|---|---|
//! | [`Root`] | every lookup and every creation below a root file system | paths are resolved by the kernel inside the root |
//! | [`Proc`] | every read and write of procfs | one verified handle, no link out, no mount crossed |
//! | [`mountinfo`] | the table of mounts | pure |
//! | [`accounts`] | passwd and group files of an image | regular files, bounded |
//! | [`prove_cwd_inside`] | the current directory | belongs to what the process sees as its root |
//!
//! It must not: open a file of the container by a joined path string, follow a link of procfs that leads elsewhere,
//! or fall back to path strings where the kernel lacks a call.
#![forbid(unsafe_code)]

pub mod accounts;
mod cwd;
mod error;
pub mod mountinfo;
mod proc;
mod resolve;
mod root;
mod value;
mod walk;

pub use cwd::prove_cwd_inside;
pub use error::{Error, Result};
pub use proc::{Entry, Proc, View, Written};
pub use root::Root;
