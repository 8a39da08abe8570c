//! Builds on stores of their own, in contexts with busybox.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::{Outcome, Scratch, call, place, runtime};

/// Longest that one call may take.
pub const LIMIT: Duration = Duration::from_secs(120);

/// The command of a build.
pub fn builder(store: &Path, context: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(place::program("hull-build"));
    command.env("HULL_ROOT", store).env("HULL_BUILD_RUNTIME", runtime::under_test());
    command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::null());
    command.args(["build", "--progress", "plain"]).args(arguments).arg(context);
    command
}

/// Builds.
pub fn build(store: &Path, context: &Path, arguments: &[&str]) -> Outcome {
    call(&mut builder(store, context, arguments), LIMIT)
}

/// A context with busybox and this Dockerfile behind `FROM scratch` and a shell.
pub fn context(scratch: &Scratch, name: &str, dockerfile: &str) -> std::path::PathBuf {
    let path = scratch.join(name);
    fs::create_dir_all(&path).unwrap();
    fs::copy("/bin/busybox", path.join("busybox")).unwrap();
    let head = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n";
    fs::write(path.join("Dockerfile"), format!("{head}{dockerfile}")).unwrap();
    path
}

/// What there is of the steps of a build: processes of their containers, of the runtime and of the guard by their command
/// lines, and control groups by their paths.
pub fn steps_of(build: u32, store: &Path) -> Vec<String> {
    let (name, state) = (format!("hull-build-{build}-"), format!("{}/tmp/{build}-", store.display()));
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let text = |file: &str| fs::read_to_string(process.path().join(file)).unwrap_or_default();
        let line = text("cmdline").replace('\0', " ");
        if process.file_name() != *build.to_string()
            && (line.contains(&state) || text("cgroup").contains(&name))
        {
            found.push(line);
        }
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let groups = fs::read_dir(hierarchy.path()).into_iter().flatten().flatten();
        let own = groups.filter(|group| group.file_name().to_string_lossy().starts_with(&name));
        found.extend(own.map(|group| group.path().display().to_string()));
    }
    found
}
