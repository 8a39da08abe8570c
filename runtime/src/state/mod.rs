//! Recorded state: one directory per container below the state root.
//!
//! | file | what it is |
//! |---|---|
//! | `state.json` | the record, with a version and a checksum; replaced by rename |
//! | `config.json` | the configuration as it was at create; later edits of the bundle change nothing |
//! | `gate` | the start gate's socket; there until `start` has opened it |
//!
//! The directory itself is locked (flock) by whoever changes the container's life cycle; readers take no lock. Nothing
//! is synced to disk: after a reboot the record is void anyway, and the checksum finds a torn file.

mod directory;
mod id;
mod identity;
mod record;
mod status;

pub use directory::{StateDir, StateRoot};
pub use id::ContainerId;
pub use identity::{ProcessIdentity, never_executed};
pub use record::{Record, VERSION};
pub use status::Status;
