//! What the tests of every crate share: bundles, small root file systems, calls of a runtime, gates.
//!
//! For tests only: nothing here is linked into a program that is shipped, and nothing here knows the code of the
//! runtime. A runtime is a path, so that each test can be proven against another implementation first
//! (`HULL_TEST_RUNTIME=/usr/sbin/runc`).
#![forbid(unsafe_code)]

pub mod bundle;
pub mod call;
pub mod gate;
pub mod leftovers;
pub mod place;
pub mod probe;
pub mod rootfs;
pub mod runtime;

pub use bundle::Bundle;
pub use call::{Outcome, call};
pub use place::Scratch;
pub use runtime::{Container, Runtime};
