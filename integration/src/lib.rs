//! hull as others meet it: by its command line, under podman, containerd and Docker, and with hostile bundles.
//!
//! Every test drives the program at `HULL_TEST_RUNTIME` (default: the built `hull`), so it can be proven against an
//! established runtime first. A manager runs with directories and sockets of its own and is stopped by its id.
#![forbid(unsafe_code)]

pub mod containerd;
pub mod daemon;
pub mod docker;
pub mod image;
pub mod podman;
pub mod systemd;
pub mod terminal;
pub mod user;
