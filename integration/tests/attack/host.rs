//! What belongs to the host or the caller: descriptors, environment, devices and files.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use hull_testkit::call::quick;
use hull_testkit::runtime::{LIMIT, ours, peek};
use hull_testkit::{Bundle, Runtime, Scratch, call, needs};
use serde_json::{Value, json};

use crate::busybox;

/// CVE-2016-9962, CVE-2024-21626: descriptors of the caller or of the runtime reach the container or a hook.
#[test]
fn no_descriptor_reaches_the_container_or_a_hook() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let numbers = "ls /proc/self/fd";
    let run = |options: &str, hook: &Path| {
        let script = format!("{numbers} >{}", hook.display());
        let bundle = Bundle::shell(numbers).with(|config| {
            config["hooks"] =
                json!({ "createRuntime": [{ "path": "/bin/bash", "args": ["bash", "-c", script] }] });
        });
        let line = format!(
            "exec 3</ 4</ 5</ 6</etc/passwd 9>/dev/null && exec {} --root {} run {options} --bundle {} {}",
            runtime.program.display(),
            runtime.state_dir().display(),
            bundle.path().display(),
            bundle.id
        );
        call(Command::new("bash").args(["-c", &line]), LIMIT)
    };
    let seen = Scratch::new("hook");
    // One more is open to read the directory.
    let only_streams =
        |text: &str| text.lines().filter(|number| !["0", "1", "2", "3"].contains(number)).count() == 0;
    let outcome = run("", &seen.join("fds"));
    assert!(only_streams(outcome.text()), "{outcome:?}");
    let in_hook = peek(seen.join("fds"));
    assert!(in_hook.lines().count() >= 3 && only_streams(&in_hook), "a hook sees {in_hook:?}");
    let control = run("--preserve-fds 3", &seen.join("fds2"));
    assert!(
        control.text().lines().any(|number| number == "5"),
        "a descriptor that is given shows: {control:?}"
    );
}

/// The rule for hooks: on the host they see their own environment and nothing of the container's.
#[test]
fn hooks_get_their_own_environment_only() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let seen = Scratch::new("hook");
    let hook = |name: &str, env: Value| json!([{ "path": "/usr/bin/env", "args": ["env", "-S", format!("sh -c 'env >{}'", seen.join(name).display())], "env": env }]);
    let bundle = Bundle::new(&["/bin/true"]).with(|config| {
        config["process"]["env"] = json!(["PATH=/bin", "LD_PRELOAD=/evil.so", "SECRET=container"]);
        config["hooks"] = json!({
            "prestart": hook("prestart", json!(["PATH=/usr/bin:/bin", "OWN=yes"])),
            "poststop": hook("poststop", json!(["PATH=/usr/bin:/bin"])),
        });
    });
    let mut command =
        runtime.command(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]);
    call(command.env("CALLER_SECRET", "1"), LIMIT).done();
    let prestart = peek(seen.join("prestart"));
    assert!(prestart.lines().any(|line| line == "OWN=yes"), "the hook ran with its own: {prestart:?}");
    for name in ["prestart", "poststop"] {
        let environment = peek(seen.join(name));
        assert!(!environment.is_empty(), "{name} did not run");
        assert!(
            !environment.contains("SECRET") && !environment.contains("LD_PRELOAD"),
            "{name}: {environment:?}"
        );
    }
}

/// runc 1.1.1: redirecting streams changed the owner of the host's null device.
#[test]
fn the_null_device_of_the_host_keeps_its_owner() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    // A null device of our own, so that a hit spoils nothing.
    let place = Scratch::new("null");
    let null = place.join("null");
    quick("mknod", &["-m", "666", null.to_str().expect("UTF-8"), "c", "1", "3"]).done();
    let bundle = Bundle::shell("test $(id -u) = 1000")
        .with(|config| config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    for _ in 0..10 {
        let open = |write: bool| {
            fs::OpenOptions::new().read(!write).write(write).open(&null).expect("open the device")
        };
        let mut command =
            runtime.command(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]);
        let status = command
            .stdin(open(false))
            .stdout(open(true))
            .stderr(open(true))
            .status()
            .expect("start the runtime");
        assert!(status.success());
    }
    let meta = null.metadata().expect("look at the device");
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (0, 0, 0o666));
    rustix::fs::chown(&null, Some(rustix::fs::Uid::from_raw(1000)), None).expect("change the owner");
    assert_eq!(null.metadata().expect("look at the device").uid(), 1000, "the reading shows a change");
}

/// A pid file or log that is a link in a directory where others may write leads nowhere.
#[test]
fn a_pid_file_does_not_follow_a_link() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let target = runtime.beside("precious");
    fs::write(&target, "precious").expect("write the target");
    let link = runtime.beside("pid");
    symlink(&target, &link).expect("make the link");
    let bundle = Bundle::new(&["/bin/true"]);
    let path = bundle.path().to_str().expect("UTF-8");
    runtime.call(&["run", "--pid-file", link.to_str().expect("UTF-8"), "--bundle", path, &bundle.id]).done();
    assert_eq!(peek(&target), "precious");
    assert!(peek(&link).parse::<u32>().is_ok(), "the pid file is a file of its own now: {:?}", peek(&link));
}
