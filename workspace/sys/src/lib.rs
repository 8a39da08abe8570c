//! System calls that hull needs, each behind a safe function.
//!
//! This is the only crate of the workspace that may contain `unsafe`. It decides nothing: a function here is one
//! system call, or the few that only make sense together, and its error names the call and the errno.
#![allow(unsafe_code)]

mod error;

pub use error::{Result, SysError};
