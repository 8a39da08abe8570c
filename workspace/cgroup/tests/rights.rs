//! What a caller without privileges gets, and what is handed to the container's user.
#![allow(clippy::unwrap_used, reason = "test code")]

mod bed;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use bed::{Bed, resources};
use hull_cgroup::{Cgroup, CgroupError, CgroupSpec, Hierarchies, Layout, Manager, plan};
use hull_testkit::place::Scratch;
use hull_testkit::{gate, needs};

/// Runs this test program again as a user without rights.
fn again_as_nobody(test: &str) {
    let scratch = Scratch::new("rights");
    let copy = scratch.join("test");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(copy);
    let outcome = command.args(["--exact", test]).current_dir("/").output().unwrap();
    let text = String::from_utf8_lossy(&outcome.stdout);
    assert!(outcome.status.success() && text.contains("1 passed"), "{text}");
}

fn make(path: Option<&str>, json: &str) -> Result<Cgroup, CgroupError> {
    let hierarchies = Hierarchies::probe().unwrap();
    let resources = resources(json);
    let spec = CgroupSpec {
        path,
        id: "testkit-hull-nobody",
        resources: Some(&resources),
        rootless: true,
        manager: Manager::Files,
        annotations: &BTreeMap::new(),
    };
    Cgroup::make(&plan(&spec, hierarchies.facts()).unwrap(), &hierarchies)
}

#[test]
fn a_rootless_caller_without_permission_gets_what_needs_none() {
    if gate::root().is_ok() {
        needs!(gate::program("setpriv"));
        return again_as_nobody("a_rootless_caller_without_permission_gets_what_needs_none");
    }
    let mut cgroup = make(None, r#"{"pids":null,"devices":[{"allow":false}]}"#).unwrap();
    assert_eq!(cgroup.saved_paths().places, []);
    cgroup.attach(std::process::id().cast_signed()).unwrap();
    let rules = plan_rules();
    cgroup.apply_devices(&rules, true).unwrap();

    let named = make(Some("/testkit-hull-nobody"), "{}").unwrap_err();
    assert!(named.to_string().starts_with("unable to apply cgroup configuration: mkdir /"), "{named}");
    assert_eq!(named.errno(), Some(libc::EACCES));

    let limited = make(None, r#"{"pids":{"limit":10}}"#).unwrap_err().to_string();
    let v2 = Hierarchies::probe().unwrap().facts().layout() == Some(Layout::V2);
    let expected = if v2 {
        "unable to apply cgroup configuration: rootless needs no limits + no cgrouppath when no permission is granted \
         for cgroups: mkdir /"
    } else {
        "cannot set pids limit: container could not join or create cgroup (/linux/resources/pids/limit)"
    };
    assert!(limited.starts_with(expected), "{limited}");
}

fn plan_rules() -> hull_cgroup::DeviceRules {
    let hierarchies = Hierarchies::probe().unwrap();
    let spec = CgroupSpec {
        path: None,
        id: "x",
        resources: None,
        rootless: true,
        manager: Manager::Files,
        annotations: &BTreeMap::new(),
    };
    plan(&spec, hierarchies.facts()).unwrap().devices.unwrap()
}

#[test]
fn only_the_delegated_files_of_version_2_change_owner() {
    let bed = Bed::new("owner");
    let tree = bed.hierarchies.facts().v2().map(drop).ok_or("needs a version 2 tree".to_owned());
    needs!(gate::root(), tree);
    let made = bed.make("{}");
    bed.only(Layout::V2, |name| !name.is_empty()).delegate(4242).unwrap();
    bed.only(Layout::V2, str::is_empty).delegate(4242).unwrap();
    let owner = |path: std::path::PathBuf| fs::metadata(path).unwrap().uid();
    for directory in bed.directories() {
        let expected = if directory == bed.file("", "") { 4242 } else { 0 };
        assert_eq!(owner(directory.clone()), expected, "{}", directory.display());
    }
    let owners =
        ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "cgroup.max.depth", "cgroup.kill"]
            .map(|file| owner(bed.file("", file)));
    assert_eq!(owners, [4242, 4242, 4242, 0, 0]);
    drop(made);
}
