//! System calls that hull needs, each behind a safe function.
//!
//! This is the only crate of the workspace that may contain `unsafe`. It decides nothing: a function here is one
//! system call, or the few that only make sense together, and its error names the call and the errno.
//! Every fd it makes is close-on-exec from birth.
#![allow(unsafe_code)]

pub mod bpf;
pub mod capability;
pub mod errno;
mod error;
pub mod event;
pub mod fd;
pub mod fs;
pub mod heap;
pub mod identity;
pub mod io;
mod ioctl;
pub mod keyring;
pub mod limits;
pub mod memfd;
pub mod mount;
pub mod namespace;
pub mod network;
pub mod poll;
pub mod process;
mod raw;
pub mod scheduling;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod tty;
pub mod uts;

pub use error::{Result, SysError};
pub use namespace::CloneFlags;
pub use process::Pid;
/// The current directory, where a function wants a directory's fd.
pub use rustix::fs::CWD;
/// What a function takes where the kernel wants a string: `&str`, `&Path`, `&CStr` and others.
pub use rustix::path::Arg as PathArg;
