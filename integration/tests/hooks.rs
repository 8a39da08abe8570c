//! The hooks of a container's life: which run when one fails, how often, and what they are told.
#![forbid(unsafe_code)]

use std::path::Path;

use hull_testkit::runtime::{ours, peek};
use hull_testkit::{Bundle, Runtime, gate, needs};
use serde_json::{Value, json};

/// A hook that runs a shell script of the host's.
fn shell(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

/// A poststop hook that leaves a line for each run.
fn counted(file: &Path) -> Value {
    shell(&format!("echo ran >>{}", file.display()))
}

#[test]
fn poststop_hooks_run_once_when_a_poststart_hook_fails() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let ran = runtime.beside("ran");
    let bundle = Bundle::new(&["/bin/sleep", "60"])
        .with(|config| config["hooks"] = json!({ "poststart": shell("exit 3"), "poststop": counted(&ran) }));
    let path = bundle.path().to_str().expect("UTF-8");
    runtime.call(&["run", "--detach", "--bundle", path, &bundle.id]).failed(1, "poststart hook #0");
    assert_eq!(peek(&ran), "ran", "after run");
    std::fs::remove_file(&ran).expect("remove");

    let container = runtime.create(&bundle);
    container.call("start", &[]).failed(1, "poststart hook #0");
    assert_eq!(container.status(), "stopped");
    assert_eq!(peek(&ran), "ran", "after start");
    container.call("delete", &[]).done();
    assert_eq!(peek(&ran), "ran", "after delete");
}

#[test]
fn a_failing_start_container_hook_destroys_the_container_in_start() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let ran = runtime.beside("ran");
    let failing = json!([{ "path": "/bin/false" }]);
    let bundle = Bundle::new(&["/bin/sleep", "60"])
        .with(|config| config["hooks"] = json!({ "startContainer": failing, "poststop": counted(&ran) }));
    let container = runtime.create(&bundle);
    container.call("start", &[]).failed(1, "startContainer hook #0");
    assert_eq!(peek(&ran), "ran", "after start");
    assert_eq!(container.status(), "stopped");
    container.call("delete", &[]).done();
    assert_eq!(peek(&ran), "ran", "after delete");
}

#[test]
fn a_start_container_hook_that_does_not_read_its_state_ends_nothing() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    // More than a pipe holds, written while the hook goes away; process 1 of a pid namespace would ignore the signal.
    let bundle = Bundle::new(&["/bin/grep", "SigIgn", "/proc/self/status"]).with(|config| {
        config["hooks"] = json!({ "startContainer": [{ "path": "/bin/true" }] });
        config["annotations"] = json!({ "long": "x".repeat(200_000) });
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    assert_eq!(runtime.run(&bundle).text(), "SigIgn:\t0000000000000000");
}

#[test]
fn hooks_inside_are_told_the_pid_that_they_see() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    for (own, what) in [(true, "own"), (false, "shared")] {
        let seen = runtime.beside(what);
        let hook = shell(&format!("cat >{}; echo \" $PPID\" >>{}", seen.display(), seen.display()));
        let bundle = Bundle::new(&["/bin/true"]).with(|config| {
            config["hooks"] = json!({ "createContainer": hook });
            if !own {
                let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
                namespaces.retain(|namespace| namespace["type"] != "pid");
            }
        });
        runtime.run(&bundle).done();
        let told = peek(&seen);
        let (state, parent) = told.rsplit_once(' ').expect("state and pid");
        let state: Value = serde_json::from_str(state).expect("a state document");
        assert_eq!(state["pid"].to_string(), parent, "{what}");
        assert_eq!(state["pid"] == 1, own, "{what}");
        assert_eq!(state["status"], "created", "{what}");
    }
}
