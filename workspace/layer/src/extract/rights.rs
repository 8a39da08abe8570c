//! Whom files are given to and whether devices are made, by what this process may do.

use std::fs;

/// What becomes of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// They are made.
    Make,
    /// They are left out and counted.
    Skip,
}

/// Who owns what is extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whom the archive says.
    Keep,
    /// Whom the archive says where this process's user namespace has that id, else its root: those are counted.
    Mapped,
    /// Who runs this process.
    Process,
}

/// What this process may do to files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rights {
    pub(crate) devices: Devices,
    pub(crate) owners: Owners,
}

impl Rights {
    /// Root of a user namespace may neither make devices nor set `trusted.*`, but give files to whom the namespace has.
    pub(crate) fn here() -> Self {
        let whole = |text: String| text.split_whitespace().eq(["0", "0", "4294967295"]);
        if !rustix::process::geteuid().is_root() {
            Self { devices: Devices::Skip, owners: Owners::Process }
        } else if fs::read_to_string("/proc/self/uid_map").is_ok_and(whole) {
            Self { devices: Devices::Make, owners: Owners::Keep }
        } else {
            Self { devices: Devices::Skip, owners: Owners::Mapped }
        }
    }
}
