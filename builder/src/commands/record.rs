//! What is written down of a container, for those that make it and those that connect it.

use std::path::{Path, PathBuf};

use hull_image::Digest;
use hull_sys::mount;
use serde::{Deserialize, Serialize};

/// What a container is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Container {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Chosen or made up; unique.
    pub(crate) name: String,
    /// The image's name as given.
    pub(crate) image: String,
    /// The image's id.
    pub(crate) image_id: String,
    /// Digest of the image's manifest.
    pub(crate) manifest: Digest,
    /// Diff ids of the image's layers.
    pub(crate) diff_ids: Vec<Digest>,
    /// Seconds since 1970.
    pub(crate) created: i64,
    /// Nanoseconds of that second: of two made in one, `ps` shows the newer one first.
    #[serde(default)]
    pub(crate) created_nanos: u32,
    /// What runs in it.
    pub(crate) command: Vec<String>,
    /// The runtime's path.
    pub(crate) runtime: PathBuf,
    /// Signal that asks it to end.
    pub(crate) stop_signal: String,
    /// Remove it when it ends.
    pub(crate) remove: bool,
    /// The name of the network.
    pub(crate) network: String,
    /// Published ports, `host:container/protocol`.
    pub(crate) ports: Vec<String>,
    /// How often it was started again: who cleans up after a run must not take away what the next one uses.
    #[serde(default)]
    pub(crate) run: u32,
}

/// Unmounts what is at a path; nothing there is no error.
pub(crate) fn unmount(path: &Path) {
    // Not mounted: after a reboot, or because it never was.
    let _ = mount::unmount_detach(path);
}
