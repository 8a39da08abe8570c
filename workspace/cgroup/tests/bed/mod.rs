//! What the effect tests share: groups of a unique name that are gone after the test, and programs to put in them.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull_cgroup::{
    Cgroup, CgroupError, CgroupPlan, CgroupSpec, Hierarchies, Layout, Refusal, SavedPaths, plan,
};
use hull_testkit::place::unique;
use oci_spec::runtime::LinuxResources;

pub fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A group of the test's own; whatever is there at the end is killed and removed.
pub struct Bed {
    pub path: String,
    pub hierarchies: Hierarchies,
}

impl Bed {
    pub fn new(label: &str) -> Self {
        let path = format!("/{}", unique(&format!("hull-{label}")));
        Self { path, hierarchies: Hierarchies::probe().unwrap() }
    }

    pub fn layout(&self) -> Layout {
        self.hierarchies.facts().layout().unwrap()
    }

    pub fn plan(&self, below: &str, json: &str) -> Result<CgroupPlan, Refusal> {
        let path = format!("{}{below}", self.path);
        let resources = resources(json);
        let spec = CgroupSpec {
            path: Some(&path),
            id: "unused",
            resources: Some(&resources),
            rootless: false,
            manager: hull_cgroup::Manager::Files,
            annotations: &BTreeMap::new(),
        };
        plan(&spec, self.hierarchies.facts())
    }

    pub fn try_make(&self, json: &str) -> Result<Cgroup, CgroupError> {
        Cgroup::make(&self.plan("", json).unwrap(), &self.hierarchies)
    }

    pub fn make(&self, json: &str) -> Cgroup {
        self.try_make(json).unwrap()
    }

    /// Directories of the test's group in every hierarchy that exist.
    pub fn directories(&self) -> Vec<PathBuf> {
        let hierarchies = &self.hierarchies.facts().hierarchies;
        let all = hierarchies.iter().map(|h| PathBuf::from(format!("{}{}", h.mount_point, self.path)));
        all.filter(|path| path.is_dir()).collect()
    }

    /// A file of the test's group, below the mount point that has `controller` (empty: the version 2 tree).
    pub fn file(&self, controller: &str, file: &str) -> PathBuf {
        let facts = self.hierarchies.facts();
        let index = if controller.is_empty() { facts.v2() } else { facts.index_of(controller) };
        let mount = &facts.hierarchies[index.unwrap()].mount_point;
        Path::new(&format!("{mount}{}", self.path)).join(file)
    }

    pub fn read(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.file(controller, file)).unwrap().trim().to_owned()
    }

    /// The test's group as later commands see it, only in hierarchies that `wanted` picks by name.
    pub fn only(&self, layout: Layout, wanted: impl Fn(&str) -> bool) -> Cgroup {
        let mut paths = Cgroup::planned_paths(&self.plan("", "{}").unwrap());
        paths.layout = layout;
        paths.places.retain(|place| wanted(&place.hierarchy));
        Cgroup::open(&paths)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let paths: SavedPaths = Cgroup::planned_paths(&self.plan("", "{}").unwrap());
        let mut cgroup = Cgroup::open(&paths);
        let killed = cgroup.kill_all(soon());
        let removed = cgroup.destroy(soon());
        if !std::thread::panicking() {
            killed.unwrap();
            removed.unwrap();
            assert_eq!(self.directories(), Vec::<PathBuf>::new());
        }
    }
}

/// A program that dies with the test.
pub struct Process(pub Child);

impl Process {
    pub fn sleep() -> Self {
        Self::shell("exec sleep 1000")
    }

    /// Runs a script that begins when a line is sent to it, so that it can be put into a group first.
    pub fn shell(script: &str) -> Self {
        let script = format!("read start; {script}");
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    pub fn start(&mut self) {
        use std::io::Write;
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Starts the script and gives its output at its end.
    pub fn output(&mut self) -> String {
        use std::io::Read;
        self.start();
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.wait().unwrap();
        text
    }

    /// The process's state letter.
    pub fn state(&self) -> char {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // A frozen process of a failed test cannot die before its group is thawed.
        if !std::thread::panicking() {
            let _ = self.0.wait();
        }
    }
}
