//! Ordinary users, with and without subordinate ids, with and without a systemd of their own.

use std::fs;
use std::path::Path;

use hull_integration::systemd::unified;
use hull_integration::user::{self, User};
use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::gate::Gate;
use hull_testkit::runtime::{peek, under_test};
use hull_testkit::{Bundle, gate, needs};
use serde_json::json;

/// A bundle of the user's, without what only root may ask for.
fn rootless_bundle(user: &User, maps: &serde_json::Value, arguments: &[&str]) -> Bundle {
    let bundle = Bundle::new(arguments).with(|config| {
        let linux = config["linux"].as_object_mut().expect("an object");
        linux.remove("cgroupsPath");
        linux.remove("resources");
        linux.insert("uidMappings".to_owned(), maps.clone());
        linux.insert("gidMappings".to_owned(), maps.clone());
        let namespaces = linux["namespaces"].as_array_mut().expect("a list");
        namespaces.push(json!({ "type": "user" }));
        let mounts = config["mounts"].as_array_mut().expect("a list");
        let pts = mounts.iter_mut().find(|mount| mount["type"] == "devpts").expect("the usual mount");
        pts["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    });
    user.own(bundle.path());
    bundle
}

fn rootless_life(id: u32, maps: &serde_json::Value, manager: &[&str], group: &str) {
    let user = User::new(id);
    let bundle = rootless_bundle(&user, maps, &["/bin/sleep", "1000"]);
    let (root, path) = (user.place().join("state"), bundle.path().to_str().expect("UTF-8").to_owned());
    let hull = |arguments: &[&str]| {
        let root = root.to_str().expect("UTF-8");
        user.call(&under_test(), &[&["--root", root], manager, arguments].concat())
    };
    hull(&["create", "--bundle", &path, &bundle.id]).done();
    hull(&["start", &bundle.id]).done();
    let state: serde_json::Value = serde_json::from_str(hull(&["state", &bundle.id]).text()).expect("JSON");
    assert_eq!(state["status"], "running");
    let found = peek(format!("/proc/{}/cgroup", state["pid"]));
    assert!(found.contains(group), "{found}");
    assert_eq!(hull(&["exec", &bundle.id, "id", "-u"]).text(), "0");
    hull(&["kill", &bundle.id, "KILL"]).done();
    assert!(eventually(PATIENCE, || hull(&["state", &bundle.id]).stdout.contains("\"stopped\"")));
    hull(&["delete", &bundle.id]).done();
    hull(&["state", &bundle.id]).failed(1, "does not exist");
}

fn one_id(id: u32) -> serde_json::Value {
    json!([{ "containerID": 0, "hostID": id, "size": 1 }])
}

fn with_sub_ids() -> serde_json::Value {
    json!([{ "containerID": 0, "hostID": 1000, "size": 1 }, { "containerID": 1, "hostID": 100_000, "size": 65536 }])
}

fn users() -> Gate {
    gate::root().and(user::known(1000)).and(user::known(1001)).and(gate::program("setpriv"))
}

#[test]
fn an_ordinary_user_runs_containers_with_and_without_subordinate_ids() {
    needs!(users(), gate::program("busybox"), gate::program("newuidmap"));
    rootless_life(1000, &with_sub_ids(), &[], "");
    rootless_life(1001, &one_id(1001), &[], "");
}

#[test]
fn an_ordinary_users_container_is_a_scope_of_its_own_systemd() {
    needs!(users(), unified(), gate::program("newuidmap"));
    let manager = ["--systemd-cgroup"];
    rootless_life(1000, &with_sub_ids(), &manager, "/user@1000.service/user.slice/hull-");
    rootless_life(1001, &one_id(1001), &manager, "/user@1001.service/user.slice/hull-");
}

#[test]
fn an_ordinary_users_container_is_not_checkpointed_and_runs_on() {
    needs!(users(), gate::program("busybox"));
    let user = User::new(1001);
    let bundle = rootless_bundle(&user, &one_id(1001), &["/bin/sleep", "1000"]);
    let (root, path) = (user.place().join("state"), bundle.path().to_str().expect("UTF-8").to_owned());
    let hull = |arguments: &[&str]| {
        user.call(&under_test(), &[&["--root", root.to_str().expect("UTF-8")], arguments].concat())
    };
    hull(&["run", "--detach", "--bundle", &path, &bundle.id]).done();
    let refused = "criu saves and restores containers for root alone";
    hull(&["checkpoint", &bundle.id]).failed(1, refused);
    assert!(hull(&["state", &bundle.id]).stdout.contains("\"running\""));
    hull(&["delete", "--force", &bundle.id]).done();
}

/// Without a group of its own a container runs, and whatever works by one says how to get one.
#[test]
fn an_ordinary_users_container_without_a_group_runs_and_is_neither_paused_nor_limited() {
    needs!(users(), gate::program("busybox"));
    let user = User::new(1001);
    let bundle = rootless_bundle(&user, &one_id(1001), &["/bin/sleep", "1000"]);
    let (root, path) = (user.place().join("state"), bundle.path().to_str().expect("UTF-8").to_owned());
    let hull = |arguments: &[&str]| {
        let front = ["--log-format", "json", "--root", root.to_str().expect("UTF-8")];
        user.call(&under_test(), &[&front[..], arguments].concat())
    };
    hull(&["run", "--detach", "--bundle", &path, &bundle.id]).done();
    for arguments in [&["pause", &bundle.id][..], &["update", "--pids-limit", "9", &bundle.id]] {
        let refused = hull(arguments);
        refused.failed(1, "the container has no control group of its own");
        assert!(refused.stderr.contains("loginctl enable-linger"), "{refused:?}");
    }
    assert!(hull(&["state", &bundle.id]).stdout.contains("\"running\""));
    hull(&["delete", "--force", &bundle.id]).done();
}

#[test]
fn what_an_ordinary_user_cannot_have_is_named_with_what_would_give_it() {
    needs!(users(), gate::program("busybox"));
    let user = User::new(1001);
    let attempt = |maps: &serde_json::Value, options: &[&str], change: &dyn Fn(&mut serde_json::Value)| {
        let bundle = rootless_bundle(&user, maps, &["/bin/true"]).with(|config| change(config));
        let root = user.place().join("state");
        let ends = ["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id];
        user.call(
            &under_test(),
            &[&["--log-format", "json", "--root", root.to_str().expect("UTF-8")], options, &ends].concat(),
        )
    };
    attempt(&with_sub_ids(), &[], &|_| ()).failed(1, "/etc/subuid");
    let limited = attempt(&one_id(1001), &[], &|config| {
        config["linux"]["resources"] = json!({ "pids": { "limit": 9 } });
    });
    limited.failed(1, "rootless needs no limits");
    assert!(limited.stderr.contains("loginctl enable-linger"), "{limited:?}");
    attempt(&one_id(1001), &[], &|config| config["linux"]["cgroupsPath"] = json!("/elsewhere"))
        .failed(1, "mkdir");
    // The second is Debian's.
    for (directory, sysctl) in [("user", "max_user_namespaces"), ("kernel", "unprivileged_userns_clone")] {
        let file = Path::new("/proc/sys").join(directory).join(sysctl);
        let Some(before) = Some(peek(&file)).filter(|value| !value.is_empty()) else { continue };
        fs::write(&file, "0").expect("forbid user namespaces");
        let refused = attempt(&one_id(1001), &[], &|_| ());
        fs::write(&file, before).expect("allow user namespaces again");
        refused.failed(1, sysctl);
    }
    if !Path::new("/run/systemd/system").exists() {
        attempt(&one_id(1001), &["--systemd-cgroup"], &|_| ()).failed(1, "loginctl enable-linger");
    }
}

#[test]
fn without_newuidmap_a_range_of_ids_is_refused_with_the_package_that_has_it() {
    needs!(users(), gate::program("busybox"), gate::path("/usr/bin/setpriv"));
    let user = User::new(1000);
    let bundle = rootless_bundle(&user, &with_sub_ids(), &["/bin/true"]);
    let (root, path) = (user.place().join("state"), bundle.path().to_str().expect("UTF-8").to_owned());
    let front = ["--log-format", "json", "--root", root.to_str().expect("UTF-8")];
    let run = [&front[..], &["run", "--bundle", &path, &bundle.id]].concat();
    let refused = user.call_without_programs(&under_test(), &run);
    refused.failed(1, "newuidmap is not installed");
    assert!(refused.stderr.contains("the package 'uidmap' has it"), "{refused:?}");
    assert!(refused.stderr.contains("/linux/uidMappings"), "{refused:?}");
    user.call(&under_test(), &[&front[..], &["state", &bundle.id]].concat()).failed(1, "does not exist");
    // One id needs no helper.
    let bundle = rootless_bundle(&user, &one_id(1000), &["/bin/true"]);
    let path = bundle.path().to_str().expect("UTF-8").to_owned();
    user.call_without_programs(
        &under_test(),
        &[&front[..], &["run", "--bundle", &path, &bundle.id]].concat(),
    )
    .done();
}

/// Only the program is another, and there is no terminal for it.
#[test]
fn what_spec_writes_for_an_ordinary_user_runs() {
    needs!(users(), gate::program("busybox"));
    let user = User::new(1001);
    let bundle = Bundle::new(&[]);
    let config = bundle.path().join("config.json");
    fs::remove_file(&config).expect("remove the configuration");
    user.own(bundle.path());
    let (root, path) = (user.place().join("state"), bundle.path().to_str().expect("UTF-8"));
    let hull = |arguments: &[&str]| {
        user.call(&under_test(), &[&["--root", root.to_str().expect("UTF-8")], arguments].concat())
    };
    hull(&["spec", "--rootless", "--bundle", path]).done();
    let mut written: serde_json::Value = serde_json::from_str(&peek(&config)).expect("JSON");
    written["process"]["terminal"] = json!(false);
    written["process"]["args"] = json!(["sh", "-c", "id -u; cat /proc/self/uid_map; ls /sys/class/net"]);
    fs::write(&config, written.to_string()).expect("write the configuration");
    let outcome = hull(&["run", "--bundle", path, &bundle.id]);
    let lines: Vec<_> =
        outcome.text().lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[..2], [vec!["0"], vec!["0", "1001", "1"]], "{outcome:?}");
    assert!(lines.iter().any(|line| line[..] == ["lo"]), "{outcome:?}");
}
