//! Control groups that killed builds left: their runtime could not remove them any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the steps of a build are called, before its pid and a number.
pub(super) const PREFIX: &str = "hull-build-";

/// One that is younger may be another build's, in a pid namespace that is not seen from here.
const YOUNGEST: Duration = Duration::from_secs(60);

/// Removes the empty control groups below `parent`, in each hierarchy, of builds that do not run any more. What is in use
/// refuses to go.
pub(super) fn control_groups(parent: &str) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount_point in hierarchies(&table) {
        let directory = mount_point.join(parent.trim_start_matches('/'));
        for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name();
            let ended = name.to_str().and_then(pid_of).is_some_and(|pid| !is_alive(pid));
            if ended && age(&entry) > YOUNGEST {
                // Busy, or removed by another build in this moment.
                let _kept = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Mount points of control group file systems in /proc/self/mountinfo.
fn hierarchies(table: &str) -> Vec<PathBuf> {
    let mounts = table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        matches!(right.split(' ').next()?, "cgroup" | "cgroup2").then(|| left.split(' ').nth(4))?
    });
    mounts.map(PathBuf::from).collect()
}

/// The build's process in `hull-build-PID-NUMBER`.
fn pid_of(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix(PREFIX)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn age(entry: &fs::DirEntry) -> Duration {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.ok().and_then(|time| time.elapsed().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_build_steps_are_swept() {
        for (name, pid) in [
            ("hull-build-123-0", Some(123)),
            ("hull-build-123", None),
            ("hull-build-x-0", None),
            ("hull-build-123-0-1", None),
            ("other-123-0", None),
        ] {
            assert_eq!(pid_of(name), pid, "{name}");
        }
    }

    #[test]
    fn control_group_mounts_are_found_in_the_table() {
        let table = "30 29 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                     31 30 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
                     32 30 0:28 /a /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        assert_eq!(
            hierarchies(table),
            [Path::new("/sys/fs/cgroup/unified"), Path::new("/sys/fs/cgroup/pids")]
        );
    }
}
