//! The hooks of a container's life: which run when one fails, how often, and what they are told.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use hull_testkit::call::{PATIENCE, call, eventually};
use hull_testkit::runtime::{LIMIT, ours, peek};
use hull_testkit::{Bundle, Outcome, Runtime, gate, needs};
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

/// A hook of some kind that waits until it is let go, and the command that runs it.
struct Held<'a> {
    runtime: &'a Runtime,
    bundle: Bundle,
    go: PathBuf,
    began: PathBuf,
}

impl<'a> Held<'a> {
    fn new(runtime: &'a Runtime, kind: &str) -> Self {
        let (go, began) = (runtime.beside(&format!("{kind}-go")), runtime.beside(&format!("{kind}-began")));
        let wait = format!(
            "echo $$ >{}.new; mv {0}.new {0}; while [ ! -e {} ]; do sleep 0.02; done",
            began.display(),
            go.display()
        );
        let bundle = Bundle::new(&["/bin/sleep", "60"]).with(|config| {
            config["hooks"] = json!({ "prestart": [{ "path": "/bin/true" }] });
            config["hooks"][kind] = shell(&wait);
        });
        Self { runtime, bundle, go, began }
    }

    /// The words that make the container, or with `run` start it, too.
    fn making<'b>(&'b self, command: &'b str) -> Vec<&'b str> {
        let path = self.bundle.path().to_str().expect("UTF-8");
        let detach: &[&str] = if command == "run" { &["--detach"] } else { &[] };
        [&[command], detach, &["--bundle", path, &self.bundle.id]].concat()
    }

    /// Runs a command whose hook waits, and does something as soon as it does.
    fn beside(&self, words: &[&str], act: impl FnOnce()) -> Outcome {
        std::thread::scope(|scope| {
            let held = scope.spawn(|| self.runtime.call(words));
            let began = eventually(PATIENCE, || self.began.exists());
            if began {
                act();
            }
            std::fs::write(&self.go, "").expect("let the hook go");
            let outcome = held.join().expect("no panic");
            assert!(began, "the hook does not run: {}", outcome.stderr);
            outcome
        })
    }

    /// The hook's shell.
    fn hook_lives(&self) -> bool {
        Path::new("/proc").join(peek(&self.began)).join("exe").exists()
    }
}

#[test]
fn nobody_joins_a_container_whose_process_is_not_on_its_own_root_yet() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    for (command, kind) in [
        ("create", "prestart"),
        ("create", "createRuntime"),
        ("run", "createRuntime"),
        ("create", "createContainer"),
    ] {
        let held = Held::new(&runtime, kind);
        let _old = (std::fs::remove_file(&held.go), std::fs::remove_file(&held.began));
        let container = runtime.container(&held.bundle);
        let outcome = held.beside(&held.making(command), || {
            let look = ["/bin/ls", "/proc/1/root/etc/debian_version", "/etc/debian_version"];
            container.exec(&[], &look).failed(255, "is being created");
            assert_eq!(container.status(), "created", "{command} {kind}");
        });
        outcome.done();
        let status = if command == "run" { "running" } else { "created" };
        assert_eq!(container.status(), status);
        assert_eq!(container.exec(&[], &["/bin/echo", "inside"]).text(), "inside");
    }
}

#[test]
fn a_hook_that_hangs_keeps_nobody_from_deleting_by_force() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    for (command, kind) in [("create", "createRuntime"), ("run", "poststart"), ("delete", "poststop")] {
        let held = Held::new(&runtime, kind);
        let container = runtime.container(&held.bundle);
        let words = if command == "delete" {
            runtime.call(&held.making("create")).done();
            vec!["delete", held.bundle.id.as_str()]
        } else {
            held.making(command)
        };
        let outcome = held.beside(&words, || {
            container.call("delete", &["--force"]).done();
            assert!(!held.hook_lives(), "{kind}");
        });
        let told = format!("error running {kind} hook #0: signal: killed");
        match command {
            // A hook at the end that fails is a warning.
            "delete" => assert!(outcome.code == 0 && outcome.stderr.contains(&told), "{}", outcome.stderr),
            _ => outcome.failed(1, &told),
        }
        container.call("state", &[]).failed(1, "does not exist");
        assert!(!runtime.state_dir().join(&held.bundle.id).exists());
    }
}

#[test]
fn run_wants_a_process_and_create_does_not() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&[]).with(|config| {
        config.as_object_mut().expect("an object").remove("process");
    });
    let path = bundle.path().to_str().expect("UTF-8");
    let mut run = Command::new("timeout");
    let run = run.arg("10").arg(&runtime.program).arg("--root").arg(runtime.state_dir());
    call(run.args(["run", "--bundle", path, &bundle.id]), LIMIT)
        .failed(1, "process property must not be empty");
    let container = runtime.create(&bundle);
    assert_eq!(container.status(), "created");
}
