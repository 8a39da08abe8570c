//! What cannot be saved or restored: told with the reason, and what was there before is there after.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hull_testkit::Bundle;
use hull_testkit::call::{PATIENCE, eventually};
use serde_json::{Value, json};

use crate::COUNTER;

#[test]
fn without_criu_the_container_runs_on_and_the_error_says_what_to_do() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    let images = stage.images();
    let mut command = stage.runtime.command(&[
        "--log-format",
        "json",
        "checkpoint",
        "--image-path",
        &images,
        &stage.bundle.id,
    ]);
    let outcome = hull_testkit::call(command.env("PATH", "/nonexistent"), hull_testkit::runtime::LIMIT);
    outcome.failed(1, "criu: executable file not found in $PATH");
    let line: Value = serde_json::from_str(outcome.stderr.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!((&line["error"]["code"], &line["error"]["step"]), (&json!("criu"), &json!("checkpoint")));
    assert!(line["error"]["hint"].as_str().is_some_and(|hint| hint.contains("install criu")), "{line}");
    pipes.says("a", "1 a");
}

#[test]
fn a_criu_that_does_not_work_here_is_told_with_its_own_words() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    let program = stage.runtime.beside("criu");
    fs::write(&program, "#!/bin/sh\necho 'Error (vdso.c:1): the kernel is a stranger' >&2\nexit 1\n")
        .expect("write");
    Command::new("chmod").arg("+x").arg(&program).status().expect("chmod");
    let program = program.display().to_string();
    let outcome = stage.runtime.call(&[
        "--criu",
        &program,
        "checkpoint",
        "--image-path",
        &stage.images(),
        &stage.bundle.id,
    ]);
    outcome.failed(1, "it does not work on this kernel: Error (vdso.c:1): the kernel is a stranger");
    pipes.says("a", "1 a");
}

#[test]
fn a_dump_that_fails_leaves_the_container_running() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    // A child of the container's, with a file of the host that CRIU cannot name.
    let file = fs::File::create(stage.runtime.beside("file")).expect("make a file");
    let child = "sleep 1000 <&- 2>&- &";
    let mut command = stage.runtime.command(&["exec", &stage.bundle.id, "/bin/sh", "-c", child]);
    let status = command.stdout(file).stderr(Stdio::null()).status().expect("start the runtime");
    assert!(status.success());
    let outcome = stage.checkpoint(&[]);
    outcome.failed(1, "checkpoint failed: ");
    assert!(outcome.stderr.contains("Error ("), "no words of CRIU's in {}", outcome.stderr);
    assert_eq!(stage.status(), "running");
    pipes.says("a", "1 a");
}

#[test]
fn what_exec_left_running_is_named_before_it_is_lost() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    stage.call(&["exec", "--detach", &stage.bundle.id, "/bin/sleep", "1000"]).done();
    let outcome = stage.checkpoint(&[]);
    outcome.done();
    assert!(outcome.stderr.contains("was started by exec: it is not saved"), "{}", outcome.stderr);
    stage.is_gone();
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    stage.checkpoint(&[]).done();
    let images = PathBuf::from(stage.images());
    fs::write(images.join("core-1.img"), "no image").expect("break an image");
    let bundle = stage.bundle.path().display().to_string();
    let restore = |images: &Path| {
        let images = images.display().to_string();
        stage.call(&["restore", "--detach", "--bundle", &bundle, "--image-path", &images, &stage.bundle.id])
    };
    let outcome = restore(&images);
    outcome.failed(1, "restore failed: ");
    assert!(outcome.stderr.contains("Error ("), "no words of CRIU's in {}", outcome.stderr);
    stage.is_gone();
    restore(&stage.runtime.beside("nothing")).failed(1, "open the image directory");
    fs::remove_file(images.join("descriptors.json")).expect("remove the note");
    restore(&images).failed(1, "holds no checkpoint");
    stage.is_gone();
}

/// The configuration of the restore is another one: its limit is none that CRIU can work in, and its user namespace is none
/// of the images'.
#[test]
fn a_restore_that_the_configuration_forbids_says_what_of_it() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    stage.checkpoint(&[]).done();
    let images = stage.images();
    let refused = |change: &dyn Fn(&mut Value), reason: &str| {
        let path = stage.bundle.path().join("config.json");
        let text = fs::read_to_string(&path).expect("read the configuration");
        let mut config = serde_json::from_str(&text).expect("JSON");
        change(&mut config);
        fs::write(&path, config.to_string()).expect("write the configuration");
        let bundle = stage.bundle.path().display().to_string();
        let words = ["restore", "--detach", "--bundle", &bundle, "--image-path", &images, &stage.bundle.id];
        let mut command = stage.runtime.command(&stage.arguments(&words));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let outcome =
            command.spawn().and_then(std::process::Child::wait_with_output).expect("run the runtime");
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert!(!outcome.status.success() && said.contains(reason), "{said}");
        stage.is_gone();
        fs::write(&path, text).expect("write the configuration");
    };
    refused(
        &|config| config["linux"]["resources"]["memory"] = json!({ "limit": 1_000_000, "swap": 1_000_000 }),
        "OOM-killed (memory limit of ",
    );
    let hooked = stage.bundle.path().join("hooked");
    let users = |config: &mut Value| {
        config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
        for maps in ["uidMappings", "gidMappings"] {
            config["linux"][maps] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        }
        let script = format!("touch {}", hooked.display());
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
        config["hooks"] = json!({ "createRuntime": [hook] });
    };
    refused(&users, "without a user namespace");
    assert!(!hooked.exists(), "a hook ran for a container that is refused");
    stage.restore().says("b", "2 b");
}

/// Without a pid namespace the death of the first process ends no other.
#[test]
fn a_restore_that_cannot_be_told_ends_every_process() {
    let stage = stage!(Bundle::shell("sleep 1000 & while :; do sleep 0.1; done").with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    }));
    let bundle = stage.bundle.path().display().to_string();
    let mut run = stage.runtime.command(&["run", "--detach", "--bundle", &bundle, &stage.bundle.id]);
    let status = run.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("start the runtime").success());
    stage.checkpoint(&[]).done();
    let images = stage.images();
    let nowhere = stage.runtime.beside("no/such/place").display().to_string();
    let untold = || {
        let outcome = stage.call(&[
            "restore",
            "--detach",
            "--bundle",
            &bundle,
            "--image-path",
            &images,
            "--pid-file",
            &nowhere,
            &stage.bundle.id,
        ]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        outcome.stderr.contains("write pid file")
    };
    // Numbers of processes that have just ended are taken until somebody has reaped them.
    assert!(eventually(PATIENCE, untold), "its processes were never restored");
    stage.is_gone();
}

#[test]
fn a_fifo_among_the_images_holds_nobody_up() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    let images = PathBuf::from(stage.images());
    fs::create_dir(&images).expect("make the image directory");
    Command::new("mkfifo").arg(images.join("descriptors.json")).status().expect("mkfifo");
    stage.checkpoint(&[]).failed(1, "write descriptors.json");
    pipes.says("a", "1 a");
}

#[test]
fn a_caller_that_may_open_few_files_can_save_a_container() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let images = stage.images();
    let command =
        stage.runtime.command(&stage.arguments(&["checkpoint", "--image-path", &images, &stage.bundle.id]));
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 128 && exec \"$@\"", "sh"]).arg(command.get_program());
    hull_testkit::call(limited.args(command.get_args()), hull_testkit::runtime::LIMIT).done();
    stage.restore().says("b", "2 b");
}

#[test]
fn an_id_in_use_is_refused_and_its_container_lives() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    stage.checkpoint(&["--leave-running"]).done();
    let bundle = stage.bundle.path().display().to_string();
    let images = stage.images();
    stage
        .call(&["restore", "--detach", "--bundle", &bundle, "--image-path", &images, &stage.bundle.id])
        .failed(1, "container with given ID already exists");
    pipes.says("a", "1 a");
}

#[test]
fn a_container_that_has_not_started_is_refused() {
    let stage = stage!(Bundle::shell(COUNTER));
    let bundle = stage.bundle.path().display().to_string();
    stage.call(&["create", "--bundle", &bundle, &stage.bundle.id]).done();
    stage.checkpoint(&[]).failed(1, "container cannot be checkpointed in the created state");
}

#[test]
fn options_that_mean_nothing_are_refused_and_the_container_runs_on() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    for (options, reason) in [
        (["--manage-cgroups-mode", "all"], "invalid manage-cgroups-mode value"),
        (["--empty-ns", "uts"], "is not supported"),
        (["--status-fd", "99"], "invalid --status-fd argument 99"),
        (["--page-server", "nowhere"], "Use --page-server ADDRESS:PORT"),
        (["--parent-path", "/tmp"], "--parent-path must be relative"),
        (["--parent-path", "../none"], "invalid --parent-path"),
    ] {
        stage.checkpoint(&options).failed(1, reason);
    }
    pipes.says("a", "1 a");
}
