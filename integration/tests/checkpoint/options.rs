//! The options of checkpoint and restore: what CRIU refuses without each, and keeps with it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use hull_testkit::place::unique;
use hull_testkit::runtime::peek;
use hull_testkit::{Bundle, Scratch, gate, needs};
use serde_json::json;

use crate::{COUNTER, Pipes, Stage};

/// A shell that does `script`, says `ready`, and goes on with `rest`.
fn ready_after(script: &str, rest: &str) -> Bundle {
    Bundle::shell(&format!("{script}\necho ready\n{rest}"))
}

/// Refused for want of `options`, in CRIU's own words, and the container runs on; saved with them.
fn saved_only_with(stage: &Stage, enough: &[&str], options: &[&str], words: &str) {
    let refused = stage.checkpoint(enough);
    refused.failed(1, "checkpoint failed: ");
    assert!(refused.stderr.contains(words), "{refused:?}");
    assert_eq!(stage.status(), "running");
    stage.forget_images();
    stage.checkpoint(&[enough, options].concat()).done();
    stage.is_gone();
}

/// What CRIU up to 4.1 says of every TCP socket on kernels since Linux 6.16, which have this option for other sockets alone.
const NO_TCP: &str = "Can't get 1:16 opt";

#[test]
fn connections_are_kept_where_that_is_asked_for() {
    let stage = stage!(Bundle::new(&["/bin/hull-probe", "connection"]));
    let mut pipes = stage.run();
    pipes.answers("connected");
    pipes.says("a", "a");
    let option = ["--tcp-established"];
    if stage.checkpoint(&[&option[..], &["--leave-running"]].concat()).stderr.contains(NO_TCP) {
        return gate::skipped("needs a criu that knows this kernel's TCP sockets");
    }
    stage.forget_images();
    saved_only_with(&stage, &[], &option, "consider using --tcp-established");
    stage.restore_with(&option).says("b", "b");
}

#[test]
fn connections_that_nobody_has_taken_are_left_out_where_that_is_asked_for() {
    let stage = stage!(Bundle::new(&["/bin/hull-probe", "pending"]));
    let mut pipes = stage.run();
    pipes.answers("connected");
    let options = ["--tcp-established", "--tcp-skip-in-flight"];
    if stage.checkpoint(&[&options[..], &["--leave-running"]].concat()).stderr.contains(NO_TCP) {
        return gate::skipped("needs a criu that knows this kernel's TCP sockets");
    }
    stage.forget_images();
    saved_only_with(&stage, &options[..1], &options[1..], "In-flight connection");
    stage.restore_with(&options[..1]).says("a", "a");
}

#[test]
fn locks_of_files_are_kept_where_that_is_asked_for() {
    let stage = stage!(Bundle::new(&["/bin/hull-probe", "lock", "/file"]));
    let mut pipes = stage.run();
    pipes.answers("locked");
    let option = ["--file-locks"];
    saved_only_with(&stage, &[], &option, "--file-locks");
    let mut pipes = stage.restore_with(&option);
    pipes.says("a", "a");
    assert_eq!(stage.inside("hull-probe lock /file"), "locked by another");
}

/// A file whose name is gone while it has another.
#[test]
fn open_files_without_their_name_are_kept_where_that_is_asked_for() {
    let script = "exec 3<>/first; ln /first /second; rm /first";
    let stage = stage!(ready_after(script, "while read x; do echo $x >&3; echo $x; done"));
    let mut pipes = stage.run();
    pipes.answers("ready");
    pipes.says("before", "before");
    saved_only_with(&stage, &[], &["--link-remap"], "link-remap");
    stage.restore().says("after", "after");
    assert_eq!(peek(stage.bundle.root().join("second")), "before\nafter");
}

#[test]
fn sockets_of_the_outside_are_kept_where_that_is_asked_for() {
    let place = Scratch::new("outside");
    let path = place.join("socket").display().to_string();
    let outside = UnixDatagram::bind(&path).expect("make a socket");
    let source = place.path().display().to_string();
    let stage = stage!(Bundle::new(&["/bin/hull-probe", "datagrams", &path]).with(|config| {
        // By the same path, as that is how CRIU finds it again.
        let mount = json!({ "destination": source, "source": source, "options": ["bind"] });
        config["mounts"].as_array_mut().expect("an array").push(mount);
        // CRIU finds both ends in one network namespace only.
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
        namespaces.retain(|namespace| namespace["type"] != "network");
    }));
    let hears = |pipes: &mut Pipes, word: &str| {
        pipes.told(word);
        let mut bytes = [0; 64];
        let count = outside.recv(&mut bytes).expect("receive");
        assert_eq!(&bytes[..count], word.as_bytes());
    };
    let mut pipes = stage.run();
    hears(&mut pipes, "before");
    let option = ["--ext-unix-sk"];
    saved_only_with(&stage, &[], &option, "--ext-unix-sk");
    hears(&mut stage.restore_with(&option), "after");
}

/// The container's groups are made before CRIU is asked, and strict is CRIU's word for refusing those that are there.
#[test]
fn control_groups_are_managed_in_the_mode_asked_for() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    for (number, mode) in ["soft", "full", "ignore"].into_iter().enumerate() {
        pipes.says(mode, &format!("{} {mode}", number + 1));
        let option = ["--manage-cgroups-mode", mode];
        stage.checkpoint(&option).done();
        pipes = stage.restore_with(&option);
        stage.forget_images();
    }
    pipes.says("last", "4 last");
    let strict = ["--manage-cgroups-mode", "strict"];
    stage.checkpoint(&strict).done();
    let (bundle, images) = (stage.bundle.path().display().to_string(), stage.images());
    let options = ["--detach", "--bundle", &bundle, "--image-path", &images, &stage.bundle.id];
    stage.call(&[&["restore"], &strict[..], &options].concat()).failed(1, "existing cgroups");
    stage.is_gone();
}

#[test]
fn logs_are_written_where_that_is_asked_for() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let work = stage.beside("work");
    stage.checkpoint(&["--work-path", &work, "--empty-ns", "network"]).done();
    stage.restore_with(&["--work-path", &work, "--empty-ns", "network"]).says("b", "2 b");
    for log in ["dump.log", "restore.log"] {
        assert!(Path::new(&work).join(log).exists(), "no {log} in the work directory");
        assert!(!Path::new(&stage.images()).join(log).exists(), "{log} among the images");
    }
    let images = fs::read_dir(stage.images()).expect("list the images").count();
    assert!(images > 5, "{images} images");
}

/// A kernel has one of the two at most: CRIU knows the other by the option alone.
#[test]
fn a_label_of_a_module_that_the_kernel_lacks_is_refused_by_criu() {
    let stage = stage!(Bundle::shell(COUNTER));
    let module = if Path::new("/sys/kernel/security/apparmor").exists() { "selinux" } else { "apparmor" };
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    stage.checkpoint(&[]).done();
    let (bundle, images) = (stage.bundle.path().display().to_string(), stage.images());
    let label = format!("{module}:a_label");
    let options = ["--detach", "--bundle", &bundle, "--image-path", &images, "--lsm-profile", &label];
    let refused = stage.call(&[&["restore"], &options[..], &[&stage.bundle.id]].concat());
    refused.failed(1, &format!("{module} LSM specified but {module} not supported by kernel"));
    stage.is_gone();
    stage.restore().says("b", "2 b");
}

/// A policy namespace of AppArmor has a profile of its own from the start, so that no compiled policy is needed.
struct PolicyNamespace(PathBuf);

impl PolicyNamespace {
    fn make(name: &str) -> Self {
        let path = Path::new(POLICIES).join(name);
        fs::create_dir(&path).expect("make a policy namespace");
        Self(path)
    }
}

impl Drop for PolicyNamespace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

const POLICIES: &str = "/sys/kernel/security/apparmor/policy/namespaces";

#[test]
fn an_apparmor_label_is_restored_or_replaced_by_the_one_asked_for() {
    needs!(gate::root(), gate::path(POLICIES));
    let name = unique("policies");
    let _policies = PolicyNamespace::make(&name);
    let profile = format!(":{name}:unconfined");
    let stage = stage!(
        Bundle::shell(COUNTER).with(|config| config["process"]["apparmorProfile"] = json!(profile.clone()))
    );
    let label = || peek(format!("/proc/{}/attr/current", stage.state()["pid"]));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    assert_eq!(label(), profile);
    stage.checkpoint(&["--leave-running"]).done();
    stage.call(&["delete", "--force", &stage.bundle.id]).done();
    let mut pipes = stage.restore();
    pipes.says("b", "2 b");
    assert_eq!(label(), profile);
    stage.call(&["delete", "--force", &stage.bundle.id]).done();
    let mut pipes = stage.restore_with(&["--lsm-profile", "apparmor:unconfined"]);
    pipes.says("b", "2 b");
    assert_eq!(label(), "unconfined");
    // Before the namespace goes.
    stage.call(&["delete", "--force", &stage.bundle.id]).done();
}
