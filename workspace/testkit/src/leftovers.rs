//! What a test run must not leave: mounts, cgroups, processes, network namespaces, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::call::eventually;
use crate::place;

/// Names that only tests and the runtimes under test give.
const OURS: [&str; 2] = ["testkit-", "hull-test-"];

/// The cgroups that managers make beside those they are told to make.
const MANAGERS: [&str; 5] = ["/docker", "/libpod_parent", "/default", "/containerd", "/machine"];

/// Everything on the machine that a test could have left, one line each. Take it before a run and after it.
#[must_use]
pub fn snapshot() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    found.extend(
        lines("/proc/self/mountinfo").iter().filter_map(|line| Some(format!("mount {}", target(line)?))),
    );
    found.extend(cgroups(Path::new("/sys/fs/cgroup"), 0));
    found.extend(processes());
    for (kind, directory) in [("state", "/run/hull"), ("netns", "/run/netns"), ("file", "/tmp")] {
        found.extend(
            names(directory)
                .into_iter()
                .filter(|name| kind != "file" || ours(name))
                .map(|n| format!("{kind} {n}")),
        );
    }
    found
}

/// A cgroup parent of a manager's own: it and all below it go at the end, in every hierarchy.
#[derive(Debug)]
pub struct Cgroups(String);

impl Cgroups {
    /// Thinks of a name; the manager makes the directories.
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self(place::unique(label))
    }

    /// The parent of a manager that takes no other; nothing where it is there already, as somebody else's.
    #[must_use]
    pub fn of_manager(name: &str) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let mut places = names("/sys/fs/cgroup").into_iter().map(|hierarchy| root.join(hierarchy).join(name));
        (!root.join(name).exists() && !places.any(|place| place.exists())).then(|| Self(name.to_owned()))
    }

    /// The name of the directory.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The path below each hierarchy's root.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}", self.0)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let root = Path::new("/sys/fs/cgroup");
        remove_tree(&root.join(&self.0));
        for hierarchy in names("/sys/fs/cgroup") {
            let hierarchy = root.join(hierarchy);
            let ours = hierarchy.join(&self.0);
            if mounts_below(&hierarchy).is_empty() && ours.exists() {
                // podman makes plain directories and files for hierarchies that are not mounted.
                let _ = fs::remove_dir_all(&ours).and_then(|()| fs::remove_dir(&hierarchy));
            } else {
                remove_tree(&ours);
            }
        }
    }
}

/// Removes empty cgroups from the leaves up; one with processes stays and is found by the leftovers check.
fn remove_tree(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    // A process of the group may still be on its way out; a directory that stays is reported at the end of the run.
    eventually(Duration::from_secs(5), || fs::remove_dir(directory).is_ok() || !directory.exists());
}

/// The mount points below a directory, as this process sees them.
#[must_use]
pub fn mounts_below(directory: &Path) -> Vec<String> {
    let all = lines("/proc/self/mountinfo");
    all.iter().filter_map(|line| target(line)).filter(|at| Path::new(at).starts_with(directory)).collect()
}

/// Every cgroup directory below `directory` whose path has a name that only tests or managers give.
fn cgroups(directory: &Path, depth: usize) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let inside = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found = Vec::new();
    for entry in inside {
        let path = entry.path().display().to_string();
        if depth > 0 && (ours(&path) || MANAGERS.iter().any(|name| path.ends_with(name))) {
            found.push(format!("cgroup {path}"));
        }
        found.extend(cgroups(&entry.path(), depth + 1));
    }
    found
}

/// Processes whose command line has a name that only tests give, or whose root is a directory of a test: a program in a
/// container is found by it, whatever it is called.
fn processes() -> Vec<String> {
    let pids = names("/proc").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let own = std::process::id().to_string();
    let own_mounts = fs::read_link("/proc/self/ns/mnt").ok();
    let shown = pids.filter(|pid| *pid != own).filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let inside = || {
            let elsewhere = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() != own_mounts;
            elsewhere && lines(&format!("/proc/{pid}/mountinfo")).iter().any(|mount| is_root_of_a_test(mount))
        };
        (ours(&line) || inside()).then(|| format!("process {pid} {line}"))
    });
    shown.collect()
}

/// The root mount of a process, if it is a bundle's or the Debian root file system.
fn is_root_of_a_test(mount: &str) -> bool {
    let from = mount.split(' ').nth(3).unwrap_or_default();
    target(mount).is_some_and(|at| at == "/") && (ours(from) || from.contains("/testkit/debian"))
}

fn ours(text: &str) -> bool {
    OURS.iter().any(|name| text.contains(name))
}

fn target(mountinfo: &str) -> Option<String> {
    mountinfo.split(' ').nth(4).map(str::to_owned)
}

fn lines(path: &str) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn names(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
