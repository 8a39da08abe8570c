//! A conformance suite for any OCI runtime, driven by its command line alone.
//!
//! `requirements.tsv` holds what the specification asks for, one line each, in words of our own with the section it comes
//! from. `cases` has a function for each line that can be shown; `reasons.tsv` says why a line has none. A case sees a
//! runtime only through a [`lab::Lab`]: bundles it writes, commands it calls, and a static probe program that looks
//! round from inside. Nothing here may depend on the code of a runtime.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod call;
pub mod cases;
pub mod cgroup;
pub mod console;
pub mod format;
pub mod hold;
pub mod interrupt;
pub mod lab;
pub mod options;
pub mod peers;
pub mod probe;
pub mod requirement;
pub mod runner;
pub mod suite;
pub mod table;
pub mod verdict;
