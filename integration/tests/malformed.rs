//! Configurations that are no configuration: each is refused with a place to look at, and nothing is left behind.
#![forbid(unsafe_code)]

use std::fs;

use hull_testkit::runtime::{cgroup_dir, ours};
use hull_testkit::{Bundle, Outcome, Runtime, gate, needs};
use serde_json::{Value, json};

/// Runs a bundle that must be refused and checks that neither state nor cgroup nor a file in the root file system is left.
#[track_caller]
fn refused(runtime: &Runtime, bundle: &Bundle) -> Outcome {
    let before = tree(bundle);
    let outcome = runtime.run(bundle);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    let left: Vec<_> =
        fs::read_dir(runtime.state_dir()).map(|all| all.flatten().collect()).unwrap_or_default();
    assert!(left.is_empty(), "state is left: {left:?} by {outcome:?}");
    for controller in ["memory", "pids", "devices", "freezer"] {
        assert!(!cgroup_dir(controller, bundle).exists(), "a {controller} cgroup is left by {outcome:?}");
    }
    assert_eq!(tree(bundle), before, "the root file system has changed by {outcome:?}");
    outcome
}

fn tree(bundle: &Bundle) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(bundle.root())
        .expect("read the root")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn bytes_that_are_no_json_are_refused_with_their_offset() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/true"]);
    let deep = "[".repeat(100_000);
    let table: [(&str, &[u8]); 9] = [
        ("empty", b""),
        ("cut", br#"{"ociVersion": "1.0.2", "process": {"#),
        ("no object", b"[1, 2]"),
        ("trailing", br#"{"ociVersion": "1.0.2"} x"#),
        ("control byte", b"{\"ociVersion\": \"1.0\x01.2\"}"),
        ("not UTF-8", b"{\"ociVersion\": \"\xff\xfe\"}"),
        ("lone surrogate", br#"{"ociVersion": "\ud800"}"#),
        ("zero byte", b"{\"ociVersion\"\0: 1}"),
        ("deep", deep.as_bytes()),
    ];
    for (name, bytes) in table {
        bundle.raw_config(bytes);
        let outcome = refused(&runtime, &bundle);
        let placed =
            ["line", "byte", "offset", "column", "document"].iter().any(|word| outcome.stderr.contains(word));
        assert!(placed, "{name}: no place in {outcome:?}");
    }
}

#[test]
fn a_wrong_field_is_refused_with_its_pointer() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let table: Vec<(&str, Value)> = vec![
        ("/ociVersion", json!(1)),
        ("/ociVersion", json!("2.0.0")),
        ("/ociVersion", json!("one")),
        ("/process/args", json!([])),
        ("/process/args", json!("sh")),
        ("/process/cwd", json!("relative")),
        ("/process/cwd", json!(7)),
        ("/process/user/uid", json!("zero")),
        ("/process/user/uid", json!(-1)),
        ("/process/user/uid", json!(4_294_967_296_u64)),
        ("/process/user/additionalGids", json!([1, "x"])),
        ("/process/env", json!({ "A": "b" })),
        ("/process/rlimits", json!([{ "type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1 }])),
        ("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 9, "hard": 1 }])),
        ("/process/terminal", json!("yes")),
        ("/process/oomScoreAdj", json!(1001)),
        ("/process/scheduler", json!({ "policy": "SCHED_NOSUCH" })),
        ("/root/path", json!(3)),
        ("/mounts", json!({})),
        ("/mounts/0/destination", json!("")),
        ("/mounts/0/options", json!("ro")),
        ("/linux/namespaces", json!([{ "type": "nosuch" }])),
        ("/linux/namespaces", json!([{ "type": "pid" }, { "type": "pid" }])),
        ("/linux/namespaces", json!([{ "type": "network", "path": "relative" }])),
        ("/linux/resources/memory", json!({ "limit": "64m" })),
        ("/linux/resources/pids", json!({ "limit": [] })),
        ("/linux/resources/cpu", json!({ "shares": -1 })),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NOSUCH" })),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOSUCH"] }),
        ),
        ("/linux/rootfsPropagation", json!("sideways")),
        ("/linux/devices", json!([{ "path": "relative", "type": "c", "major": 1, "minor": 3 }])),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 }])),
        ("/linux/sysctl", json!({ "kernel.nosuch/../x": "1" })),
        ("/linux/maskedPaths", json!([1])),
        ("/hooks/prestart", json!([{ "path": "relative" }])),
        ("/hooks/poststop", json!([{ "path": "/bin/true", "timeout": 0 }])),
        ("/annotations", json!({ "key": 1 })),
        ("/hostname", json!(7)),
    ];
    for (field, value) in table {
        let bundle = Bundle::new(&["/bin/true"]).with(|config| set(config, field, value.clone()));
        let outcome = refused(&runtime, &bundle);
        assert!(outcome.stderr.contains(field), "{field} = {value}: no pointer in {outcome:?}");
    }
}

#[test]
fn a_refusal_in_json_names_field_and_code() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/true"]).with(|config| config["process"]["cwd"] = json!("relative"));
    let path = bundle.path().to_str().expect("UTF-8");
    let outcome = runtime.call(&["--log-format", "json", "run", "--bundle", path, &bundle.id]);
    assert_eq!(outcome.code, 1);
    let line: Value = serde_json::from_str(outcome.stderr.lines().last().expect("a line")).expect("JSON");
    assert_eq!(line["level"], "error");
    assert!(line.to_string().contains("/process/cwd"), "{line}");
    assert!(line["msg"].as_str().is_some_and(|message| message.contains("run failed:")), "{line}");
}

#[test]
fn a_missing_or_odd_root_directory_is_refused() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::empty(&["/bin/true"]);
    fs::remove_dir(bundle.root()).expect("remove the root");
    let outcome = runtime.run(&bundle);
    outcome.failed(1, "rootfs");
    fs::write(bundle.root(), "a file").expect("write a file");
    assert_eq!(runtime.run(&bundle).code, 1);
    assert!(!cgroup_dir("pids", &bundle).exists());
}

#[test]
fn a_configuration_without_end_is_refused() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/true"]);
    let blanks = " ".repeat(17 << 20);
    bundle.raw_config(format!("{}{blanks}", bundle.config).as_bytes());
    refused(&runtime, &bundle);
    let fifo = bundle.path().join("config.json");
    fs::remove_file(&fifo).expect("remove config.json");
    hull_testkit::call::quick("mkfifo", &[fifo.to_str().expect("UTF-8")]).done();
    refused(&runtime, &bundle);
}

/// Sets the value at a JSON pointer, making the objects on the way.
fn set(config: &mut Value, pointer: &str, value: Value) {
    let mut at = config;
    for part in pointer.split('/').skip(1) {
        at = match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[part],
        };
    }
    *at = value;
}
