//! The check at the end of a run sees whatever is left: a check that cannot fail proves nothing.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use hull_testkit::call::{PATIENCE, eventually, quick};
use hull_testkit::place::{self, unique};
use hull_testkit::{Scratch, gate, leftovers, needs};

/// Something of the snapshot speaks of `name`.
fn seen(name: &str) -> bool {
    leftovers::snapshot().iter().any(|line| line.contains(name))
}

/// A child that ends with the test.
struct Ends(Child);

impl Ends {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        let child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn();
        Self(child.expect("start a program"))
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn a_directory_or_cgroup_that_is_left_is_seen() {
    needs!(gate::root(), gate::cgroup_v1());
    let state_root = PathBuf::from("/run/hull");
    let had_root = state_root.exists();
    fs::create_dir_all(&state_root).expect("make the state root");
    let name = unique("left");
    for place in ["/tmp", "/run/hull", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/memory"] {
        let directory = PathBuf::from(place).join(&name);
        assert!(!seen(&name), "{place}: seen before it is there");
        fs::create_dir(&directory).expect("make a directory");
        let found = seen(&name);
        fs::remove_dir(&directory).expect("remove the directory");
        assert!(found, "{} is not seen", directory.display());
    }
    if !had_root {
        // Somebody else may use it by now.
        let _ = fs::remove_dir(&state_root);
    }
}

#[test]
fn a_process_that_is_left_is_seen_by_its_name_or_its_root() {
    needs!(gate::root(), gate::program("busybox"));
    let name = unique("left");
    let named = Ends::start("tail", &["-f", "/dev/null", &name]);
    assert!(eventually(PATIENCE, || seen(&format!("process {} ", named.0.id()))));
    drop(named);

    let place = Scratch::new("left");
    fs::copy(gate::find("busybox").expect("busybox is installed"), place.join("busybox"))
        .expect("copy busybox");
    let root = place.path().display();
    let script = format!("mount --bind {root} {root} && exec chroot {root} /busybox tail -f /busybox");
    let nameless = Ends::start("unshare", &["--mount", "--propagation", "private", "sh", "-c", &script]);
    let pid = nameless.0.id();
    let line = format!("process {pid} /busybox tail -f /busybox ");
    assert!(eventually(PATIENCE, || seen(&line)), "not seen: {:?}", leftovers::snapshot());
    drop(nameless);
    assert!(!seen(&line));
}

#[test]
fn a_mount_and_a_network_namespace_that_are_left_are_seen() {
    needs!(gate::root(), gate::program("ip"));
    let name = unique("left");
    quick("ip", &["netns", "add", &name]).done();
    let snapshot = leftovers::snapshot();
    quick("ip", &["netns", "delete", &name]).done();
    assert!(snapshot.contains(&format!("netns {name}")), "{snapshot:?}");
    assert!(snapshot.contains(&format!("mount /run/netns/{name}")), "{snapshot:?}");
    assert!(!seen(&name));
}

#[test]
fn the_program_ends_with_1_and_names_what_is_left() {
    let place = Scratch::new("before");
    let program = place::program("hull-leftovers");
    let check = || quick(program.to_str().expect("UTF-8"), &[place.join("list").to_str().expect("UTF-8")]);
    check().done();
    let left = Scratch::new("left");
    let line = format!("left behind: file {}", left.path().file_name().expect("a name").to_string_lossy());
    check().failed(1, &line);
    drop(left);
    // Other tests of the run may have something of their own just now.
    assert!(!check().stdout.contains(&line));
}
