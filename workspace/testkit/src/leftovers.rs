//! What a test run must not leave: mounts, cgroups, processes, network namespaces, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names that only tests and the runtimes under test give.
const OURS: [&str; 3] = ["testkit-", "hull-test", "hull_test"];

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

/// The mount points below a directory, as this process sees them.
#[must_use]
pub fn mounts_below(directory: &Path) -> Vec<String> {
    let all = lines("/proc/self/mountinfo");
    all.iter().filter_map(|line| target(line)).filter(|at| Path::new(at).starts_with(directory)).collect()
}

/// Every cgroup directory below `directory`, of any name: a run takes all of its own away.
fn cgroups(directory: &Path, depth: usize) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let inside = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found = Vec::new();
    for entry in inside {
        if depth > 0 {
            found.push(format!("cgroup {}", entry.path().display()));
        }
        found.extend(cgroups(&entry.path(), depth + 1));
    }
    found
}

/// Processes whose command line has a name that only tests give, and every zombie that has no parent but process 1.
fn processes() -> Vec<String> {
    let pids = names("/proc").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let own = std::process::id().to_string();
    let shown = pids.filter(|pid| *pid != own).filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        ours(&line).then(|| format!("process {pid} {line}"))
    });
    shown.collect()
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
