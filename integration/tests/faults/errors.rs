//! System calls fail, in the runtime and in the container's process: an error or success, and nothing is left.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};

use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::gate::{cgroup_v1, program};
use hull_testkit::runtime::{LIMIT, ours};
use hull_testkit::{Bundle, Outcome, Runtime, Scratch, call, needs};
use serde_json::Value;

use crate::busybox;
use crate::residue::{delete_leaves_nothing, lasting, nothing_left, residue};

/// `run` under strace with its options, the container's processes included.
fn traced_run(runtime: &Runtime, bundle: &Bundle, log: &str, options: &[&str]) -> Outcome {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", log]).args(options);
    command.arg(&runtime.program).arg("--root").arg(runtime.state_dir());
    command.args(["--log-format", "json", "run", "--bundle"]);
    command.arg(bundle.path()).arg(OsStr::new(&bundle.id));
    call(command.stdin(Stdio::null()), LIMIT / 3)
}

/// How often each call is made by the process that makes it most often.
fn counts(log: &str) -> BTreeMap<String, usize> {
    let mut by_process: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in fs::read_to_string(log).expect("read the trace").lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
            *by_process.entry((name.to_owned(), pid.to_owned())).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((name, _), count) in by_process {
        let entry = most.entry(name).or_insert(0);
        *entry = count.max(*entry);
    }
    most
}

///
#[test]
fn a_failing_call_is_an_error_or_harmless_and_nothing_is_left() {
    needs!(busybox(), program("strace"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("echo ran");
    let place = Scratch::new("trace");
    let log = place.join("log");
    let log = log.to_str().expect("UTF-8");
    assert_eq!(traced_run(&runtime, &bundle, log, &[]).text(), "ran");
    // An end cannot fail, strace itself makes the first execve, and what the C library of the container's program does
    // when its start fails is not the runtime's.
    let never = ["exit", "exit_group", "rt_sigreturn", "execve", "brk", "arch_prctl", "rt_sigaction"];
    let errors = ["ENOMEM", "EMFILE", "ENOSPC", "EINTR", "EIO", "EAGAIN", "EPERM", "ENOSYS"];
    let (mut tried, mut wrong) = (0, Vec::new());
    for (name, count) in counts(log).into_iter().filter(|(name, _)| !never.contains(&name.as_str())) {
        let places = if count > 2 { vec![1, count.div_ceil(2), count] } else { vec![1] };
        for at in places {
            let error = errors[tried % errors.len()];
            tried += 1;
            let fault = format!("inject={name}:error={error}:when={at}");
            let outcome = traced_run(&runtime, &bundle, "/dev/null", &["-e", &fault]);
            let title = format!("{fault}: {} {} {}", outcome.code, outcome.stdout, outcome.stderr);
            // The start of the standard library may give up, code of this project may not.
            let ours = ["panicked at runtime/", "panicked at workspace/"];
            let panicked = ours.iter().any(|text| outcome.stderr.contains(text));
            // Success is never claimed for a program that has not run.
            let claimed = outcome.code == 0 && outcome.stdout != "ran\n" && name != "write";
            let deleted = runtime.call(&["delete", "--force", &bundle.id]).code == 0;
            let gone = || residue(&runtime, &bundle).is_empty();
            if panicked || claimed || outcome.code == 137 || !deleted || !eventually(PATIENCE / 12, gone) {
                wrong.push(format!("{title}: left: {:?}", residue(&runtime, &bundle)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tried > 60, "{tried} calls only: the trace was not read");
    assert_eq!(runtime.run(&bundle).text(), "ran");
}

/// the container's process is killed at a call that only it makes.
#[test]
fn death_of_the_containers_process_names_signal_and_leaves_nothing() {
    needs!(busybox(), program("strace"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("echo ran");
    for name in ["move_mount", "pivot_root", "sethostname", "capset", "setgroups"] {
        let fault = format!("inject={name}:signal=KILL:when=1");
        let outcome = traced_run(&runtime, &bundle, "/dev/null", &["-e", &fault]);
        assert_eq!(outcome.code, 1, "{fault}: {outcome:?}");
        let line: Value = serde_json::from_str(outcome.stderr.lines().last().expect("a line")).expect("JSON");
        assert!(
            line["msg"].as_str().is_some_and(|text| text.contains("killed by signal 9")),
            "{name}: {line}"
        );
        assert_eq!(line["error"]["code"], "init-died", "{name}: {line}");
        delete_leaves_nothing(&runtime, &bundle, &fault);
    }
}

/// it is the joining process that died, the container lives.
#[test]
fn death_of_a_joining_process_is_told_as_its_own() {
    needs!(busybox(), program("strace"), ours());
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let container = runtime.start(&bundle);
    let mut exec = Command::new("strace");
    exec.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=capset:signal=KILL:when=1"]);
    exec.arg(&runtime.program).arg("--root").arg(runtime.state_dir());
    let killed = call(exec.args(["exec", &bundle.id, "/bin/true"]).stdin(Stdio::null()), LIMIT);
    killed.failed(255, "exec failed: the process was killed by signal 9 before it was ready");
    assert_eq!(container.status(), "running");
    delete_leaves_nothing(&runtime, &bundle, "a killed exec");
}

/// a caller that may open few files; each of them is the first one too many at some limit.
#[test]
fn too_few_descriptors_are_told_and_leave_nothing() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let bundle =
        Bundle::shell("echo ran").with(|config| config["process"]["rlimits"] = serde_json::json!([]));
    let mut refused = 0;
    let ran = (4..200).find(|limit| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {limit} && exec \"$@\""), "sh"]).arg(&runtime.program);
        command.arg("--root").arg(runtime.state_dir()).args(["run", "--bundle"]);
        let outcome = call(command.arg(bundle.path()).arg(&bundle.id).stdin(Stdio::null()), LIMIT);
        nothing_left(&runtime, &bundle, &format!("{limit} descriptors: {}", outcome.stderr));
        if outcome.code != 0 {
            outcome.failed(1, "too many open files");
            refused += 1;
        }
        outcome.code == 0
    });
    // Each hierarchy of version 1 takes a descriptor more than the one of version 2.
    let enough = if cgroup_v1().is_ok() { 10 } else { 8 };
    assert!(ran.is_some() && refused > enough, "ran with {ran:?} after {refused} refusals");
}

/// a look at the state directory that fails is no proof that somebody else has taken it.
#[test]
fn a_state_directory_that_cannot_be_looked_at_is_not_taken_for_gone() {
    needs!(busybox(), program("strace"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("echo ran");
    let mut hit = 0;
    for (call, at) in
        ["lstat", "newfstatat", "fstat", "statx"].iter().flat_map(|call| (1..8).map(move |at| (call, at)))
    {
        let fault = format!("inject=?{call}:error=EIO:when={at}");
        let outcome = traced_run(&runtime, &bundle, "/dev/null", &["-e", &fault]);
        assert!(!outcome.stderr.contains("already exists"), "{fault}: {outcome:?}");
        nothing_left(&runtime, &bundle, &fault);
        hit += usize::from(outcome.code != 0);
    }
    assert!(hit > 0, "no call was hit");
}
