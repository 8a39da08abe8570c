//! Where systemd is process 1: its units, as a test sees them.

use std::fs;
use std::path::Path;

use hull_testkit::call::quick;
use hull_testkit::gate::{self, Gate};

/// systemd is process 1, with a bus.
///
/// # Errors
/// What is missing.
pub fn here() -> Gate {
    let there = ["/run/systemd/system", "/run/dbus/system_bus_socket"];
    gate::root().and(there.into_iter().try_for_each(gate::path)).and(gate::program("busybox"))
}

/// Control groups are those of version 2 as well.
///
/// # Errors
/// What is missing.
pub fn unified() -> Gate {
    here().and(gate::path("/sys/fs/cgroup/cgroup.controllers"))
}

/// A property of a unit, as systemd shows it.
#[must_use]
pub fn property(unit: &str, name: &str) -> String {
    quick("systemctl", &["show", "-P", name, unit]).text().trim().to_owned()
}

/// A slice of a test's own, which is gone at its end: systemd keeps it when the last scope in it is gone.
#[derive(Debug)]
pub struct Slice(pub &'static str);

impl Drop for Slice {
    fn drop(&mut self) {
        let _ = quick("systemctl", &["stop", self.0]);
        // Of version 1 hierarchies that systemd does not manage the slice stays, as every parent of a group does.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove(&hierarchy.path().join(self.0));
        }
    }
}

fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // One in use is told by whoever looks for leftovers.
    let _ = fs::remove_dir(group);
}
