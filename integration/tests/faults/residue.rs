//! What a container may have left, and the check that it has not.

use std::fs;
use std::path::Path;

use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::runtime::peek;
use hull_testkit::{Bundle, Runtime, leftovers};

/// A bundle whose program runs until it is killed; its command line holds the container's id, so that it can be found.
pub fn lasting() -> Bundle {
    Bundle::new(&["/bin/sh", "-c", "true"]).with_id(|id, config| {
        config["process"]["args"] = serde_json::json!(["/bin/sh", "-c", "while :; do sleep 0.1; done", id]);
    })
}

/// Deletes the container when the test ends, whatever happens: nobody else would after a failure.
pub struct Swept<'a> {
    pub runtime: &'a Runtime,
    pub bundle: &'a Bundle,
}

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        // It is gone already when the test went well.
        let _ = self.runtime.call(&["delete", "--force", &self.bundle.id]);
    }
}

/// Everything of this container that is on the machine; a deleted one has nothing.
pub fn residue(runtime: &Runtime, bundle: &Bundle) -> Vec<String> {
    let mut found = state_entries(runtime);
    found.extend(cgroups(Path::new("/sys/fs/cgroup"), &bundle.id, 0));
    found.extend(processes(runtime, bundle));
    found.extend(leftovers::mounts_below(bundle.path()));
    found
}

/// Deletes by force, which must work, and waits until nothing is left.
#[track_caller]
pub fn delete_leaves_nothing(runtime: &Runtime, bundle: &Bundle, after: &str) {
    let deleted = runtime.call(&["delete", "--force", &bundle.id]);
    assert_eq!(deleted.code, 0, "{after}: {deleted:?}");
    nothing_left(runtime, bundle, after);
}

/// Fails unless nothing is left; a process that was killed may take a moment to go.
#[track_caller]
pub fn nothing_left(runtime: &Runtime, bundle: &Bundle, after: &str) {
    let gone = eventually(PATIENCE / 4, || residue(runtime, bundle).is_empty());
    assert!(gone, "{after}: left behind: {:#?}", residue(runtime, bundle));
}

fn state_entries(runtime: &Runtime) -> Vec<String> {
    let Ok(entries) = fs::read_dir(runtime.state_dir()) else { return Vec::new() };
    entries.flatten().map(|entry| format!("state {}", entry.path().display())).collect()
}

fn cgroups(directory: &Path, id: &str, depth: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_string_lossy().contains(id) {
            found.push(format!("cgroup {}", entry.path().display()));
        } else if depth == 0 {
            found.extend(cgroups(&entry.path(), id, 1));
        }
    }
    found
}

/// Processes of the container (its id is in their command line) and of the runtime (its state directory is).
fn processes(runtime: &Runtime, bundle: &Bundle) -> Vec<String> {
    let state = runtime.state_dir().display().to_string();
    let all = fs::read_dir("/proc").expect("read /proc").flatten();
    let lines = all.map(|entry| (entry.file_name(), peek(entry.path().join("cmdline")).replace('\0', " ")));
    lines
        .filter(|(_, line)| line.contains(&bundle.id) || line.contains(&state))
        .map(|(pid, line)| format!("process {}: {line}", pid.to_string_lossy()))
        .collect()
}
