//! Reading configurations: what is refused, what is mended, what is ignored.

mod common;

use common::{assert_refused, changed, config, load_value, plan};
use hull_plan::{load, parse_process, parse_resources};
use serde_json::{Value, json};

#[test]
fn invalid_json_is_refused_with_its_byte() {
    let deep = "[".repeat(100_000);
    let table: [(&[u8], &str); 14] = [
        (b"", "byte 0"),
        (b"{", "byte 1"),
        (b"{\"root\": 1,}", "byte 11"),
        (b"{\n  \"root\": tru\n}", "byte 15 (line 2, column 14), inside /root"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"{\"root\": \"\xff\"}", "byte 10: the text is not UTF-8"),
        (b"{\"root\": \"\\ud800\"}", "unexpected end of hex escape"),
        (b"{\"root\": \"\x00\"}", "control character"),
        (b"{\"root\": 1e999}", "number out of range"),
        (b"{\"root\": 01}", "invalid number"),
        (b"{} {}", "byte 3"),
        (b"{\"root\": NaN}", "expected value"),
        (b"\x00\x01\x02", "byte 0"),
        (deep.as_bytes(), "recursion limit exceeded"),
    ];
    for (bytes, phrase) in table {
        let refusal = load(bytes).expect_err("it is not JSON");
        assert_eq!(refusal.field, "");
        assert!(refusal.reason.contains("invalid JSON at byte"), "{}", refusal.reason);
        assert!(refusal.reason.contains(phrase), "{:?} lacks {phrase:?}", refusal.reason);
    }
}

#[test]
fn a_syntax_error_names_where_it_lies() {
    let refusal = load(b"{\"process\": {\"args\": [\"a\", tru]}}").expect_err("tru is no value");
    assert!(refusal.reason.contains("inside /process/args/1"), "{}", refusal.reason);
}

#[test]
fn only_an_object_is_a_configuration() {
    for bytes in ["[]", "1", "\"ociVersion\"", "null"] {
        assert_eq!(
            load(bytes.as_bytes()).expect_err("no object").reason,
            "the document is not a JSON object"
        );
    }
}

#[test]
fn a_member_name_twice_is_refused() {
    let text = config().to_string();
    for (text, field) in [
        (text.replacen('{', "{\"hostname\": \"a\",", 1), "/hostname"),
        (text.replace("\"cwd\":", "\"cwd\": \"/\", \"cwd\":"), "/process/cwd"),
        (
            text.replace("{\"type\":\"network\"}", "{\"type\":\"user\",\"type\":\"network\"}"),
            "/linux/namespaces/1/type",
        ),
        (
            format!(
                "{{\"annotations\": {{{}\"n5\": 1}}}}",
                (0..40).map(|n| format!("\"n{n}\": {n}, ")).collect::<String>()
            ),
            "/annotations/n5",
        ),
        ("{\"linux\": {\"x/y\": {\"~\": 1, \"~\": 1}}}".into(), "/linux/x~1y/~0"),
    ] {
        let refusal = load(text.as_bytes()).expect_err("a name occurs twice");
        assert_eq!(refusal.field, field);
        assert!(
            refusal.reason.starts_with("member name occurs twice in this object (before byte "),
            "{}",
            refusal.reason
        );
    }
}

#[test]
fn names_of_resources_are_taken_in_any_case() {
    let specified = json!({
        "devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
        "memory": {"limit": 1, "kernelTCP": 2, "disableOOMKiller": true},
        "cpu": {"cpus": "1", "realtimePeriod": 5},
        "blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 9}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
        "rdma": {"MLX": {"hcaHandles": 3}, "mlx": {"hcaObjects": 1}},
        "unified": {"cpu": "a", "CPU": "b"},
    });
    let expected = parse_resources(specified.to_string().as_bytes()).expect("it is valid");
    assert_eq!(expected.cpu().as_ref().and_then(|cpu| cpu.cpus().as_deref()), Some("1"));
    assert_eq!(expected.unified().as_ref().map(|files| files["CPU"].as_str()), Some("b"));
    let upper = |name: &str| format!("\"{}\":", name.to_uppercase());
    let names = "devices allow type major minor access memory limit kernelTCP disableOOMKiller cpus realtimePeriod blockIO \
        weightDevice leafWeight hugepageLimits pageSize rdma hcaHandles hcaObjects unified";
    let shouted = names.split_whitespace().fold(specified.to_string(), |text, name| {
        let renamed = text.replace(&format!("\"{name}\":"), &upper(name));
        assert_ne!(renamed, text, "{name} is not there");
        renamed
    });
    let shouted = shouted.replacen("\"cpu\":{", "\"CpU\":{", 1);
    assert_eq!(parse_resources(shouted.as_bytes()).expect("it is valid"), expected);
    let shouted: Value = serde_json::from_str(&shouted).expect("it is JSON");
    let spec = load_value(&changed("/linux/resources", shouted)).expect("it is valid").spec;
    assert_eq!(spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()), Some(&expected));
}

#[test]
fn objects_of_resources_in_two_cases_are_one() {
    let parts =
        r#"{"cpu": {"shares": 2}, "CPU": {"Cpus": "0"}, "unified": {"a": "1"}, "Unified": {"A": "2"}}"#;
    let whole = r#"{"cpu": {"shares": 2, "cpus": "0"}, "unified": {"a": "1", "A": "2"}}"#;
    let read = |text: &str| parse_resources(text.as_bytes()).expect("it is valid");
    assert_eq!(read(parts), read(whole));
}

#[test]
fn resources_named_twice_in_different_case_are_refused() {
    for (text, field) in [
        (r#"{"cpu": {"shares": 2}, "CPU": {"shares": 3}}"#, "/cpu/shares"),
        (r#"{"cpu": {"shares": 2}, "CPU": {"Shares": 3}}"#, "/cpu/shares"),
        (r#"{"cpu": null, "CPU": {"shares": 3}}"#, "/cpu"),
        (r#"{"cpu": {}, "CPU": {"shares": 3}, "Cpu": {}}"#, "/cpu"),
        (r#"{"unified": {"a": "1"}, "Unified": {"a": "2"}}"#, "/unified/a"),
        (r#"{"devices": [], "Devices": []}"#, "/devices"),
        (
            r#"{"blockIO": {"weightDevice": [{"major": 1}, {"minor": 1, "Minor": 2}]}}"#,
            "/blockIO/weightDevice/1/minor",
        ),
        (r#"{"rdma": {"limit": {"HcaObjects": 1, "hcaObjects": 2}}}"#, "/rdma/limit/hcaObjects"),
    ] {
        let refusal = parse_resources(text.as_bytes()).expect_err("a name occurs twice");
        assert_eq!((refusal.field.as_str(), refusal.reason.contains("occurs twice")), (field, true));
        let resources: Value = serde_json::from_str(text).expect("it is JSON");
        assert_refused(
            &changed("/linux/resources", resources),
            &format!("/linux/resources{field}"),
            "occurs twice",
        );
    }
}

#[test]
fn a_nul_byte_in_a_used_string_is_refused() {
    for (pointer, value) in [
        ("/hostname", json!("a\0b")),
        ("/process/args/0", json!("\0")),
        ("/process/cwd", json!("/\0")),
        ("/mounts/0/destination", json!("/proc\0")),
        ("/root/path", json!("root\0fs")),
    ] {
        assert_refused(&changed(pointer, value), pointer, "NUL byte");
    }
    let annotations = changed("/annotations", json!({"a/b": "x\0"}));
    assert_refused(&annotations, "/annotations/a~1b", "NUL byte");
    assert!(plan(&changed("/unknown", json!("a\0b"))).is_ok(), "nobody reads it");
}

#[test]
fn unknown_members_and_other_platforms_are_ignored() {
    let mut config = config();
    config["unknown"] = json!({"a": [1, 2, {"b": null}]});
    config["process"]["unknown"] = json!(1);
    config["linux"]["namespaces"][0]["unknown"] = json!([]);
    config["windows"] = json!("nothing of the kind");
    config["solaris"] = json!(5);
    config["vm"] = json!([]);
    config["zos"] = json!(false);
    config["freebsd"] = json!(false);
    config["uidMappings"] = json!("x");
    config["process"]["commandLine"] = json!(5);
    config["process"]["user"]["username"] = json!(5);
    let loaded = load_value(&config).expect("it is ignored");
    assert_eq!(loaded.spec, load_value(&common::config()).expect("it is valid").spec);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn a_wrong_type_is_refused_with_its_pointer() {
    for (pointer, value, phrase) in [
        ("/process/user/uid", json!("zero"), "expected a whole number from 0 to 4294967295"),
        ("/process/user/uid", json!(-1), "expected a whole number from 0 to 4294967295"),
        ("/process/user/uid", json!(4_294_967_296_u64), "expected a whole number from 0 to 4294967295"),
        ("/process/user/uid", json!(1.5), "expected a whole number from 0 to 4294967295"),
        ("/process/args", json!("sh"), "expected a list"),
        ("/process/args/0", json!(1), "expected a string"),
        ("/process/args/0", json!(null), "expected a string"),
        ("/root", json!([]), ""),
        ("/mounts/0", json!("x"), "expected an object"),
        ("/linux/namespaces/2/type", json!("ipcs"), "unknown variant `ipcs`, expected one of"),
        ("/process/rlimits/0/type", json!("RLIMIT_X"), "unknown variant `RLIMIT_X`"),
        ("/process/terminal", json!("yes"), "expected true or false"),
        ("/hooks", json!(5), "expected an object"),
        (
            "/linux/timeOffsets",
            json!({"a/b": {"secs": "x"}}),
            "expected a whole number from -9223372036854775808",
        ),
        ("/annotations", json!({"a": null}), "expected a string"),
        ("/linux/sysctl", json!({"net.a": 1}), "expected a string"),
        ("/process/capabilities", json!({"bounding": ["CAP_KILL", 5]}), "name of a capability"),
    ] {
        let config = changed(pointer, value);
        let refusal = load_value(&config).expect_err(pointer);
        assert!(refusal.field.starts_with(pointer), "{} is not {pointer}", refusal.field);
        assert!(config.pointer(&refusal.field).is_some(), "{} is not in the document", refusal.field);
        assert!(refusal.reason.contains(phrase), "{:?} lacks {phrase:?}", refusal.reason);
    }
}

#[test]
fn a_missing_member_is_refused_at_its_parent() {
    for (pointer, parent, name) in [
        ("/process/cwd", "/process", "cwd"),
        ("/mounts/0/destination", "/mounts/0", "destination"),
        ("/linux/namespaces/0/type", "/linux/namespaces/0", "type"),
        ("/process/rlimits/0/soft", "/process/rlimits/0", "soft"),
        ("/process/rlimits/0/hard", "/process/rlimits/0", "hard"),
        ("/root", "", "root"),
        ("/root/path", "/root", "path"),
    ] {
        assert_refused(&changed(pointer, Value::Null), parent, name);
    }
    assert_refused(&changed("/process/ioPriority", json!({"priority": 1})), "/process/ioPriority", "class");
    let device = changed("/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": 1}]));
    assert_refused(&device, "/linux/devices/0", "minor");
    let maps = changed("/linux/uidMappings", json!([{"containerID": 0, "size": 1}]));
    assert_refused(&maps, "/linux/uidMappings/0", "hostID");
}

#[test]
fn a_long_string_is_not_repeated_in_full() {
    let refusal =
        load_value(&changed("/process/terminal", json!("ü".repeat(100_000)))).expect_err("not a boolean");
    assert!(refusal.reason.len() < 400, "{} bytes", refusal.reason.len());
}

#[test]
fn unknown_capabilities_are_dropped_with_a_warning() {
    let sets = json!({"bounding": ["CAP_KILL", "CAP_UNKNOWN", "KILL", "cap_chown"], "effective": null});
    let loaded = load_value(&changed("/process/capabilities", sets)).expect("a warning is not an error");
    let warnings: Vec<_> =
        loaded.warnings.iter().map(|warning| (warning.field.as_str(), &*warning.text)).collect();
    assert_eq!(
        warnings,
        [
            ("/process/capabilities/bounding/1", "ignoring unknown capability \"CAP_UNKNOWN\""),
            ("/process/capabilities/bounding/2", "ignoring unknown capability \"KILL\""),
            ("/process/capabilities/bounding/3", "ignoring unknown capability \"cap_chown\""),
        ]
    );
    let plan = hull_plan::Plan::build(&loaded.spec, &common::facts()).expect("it is valid");
    assert_eq!(plan.process.and_then(|process| process.capabilities).map(|sets| sets.bounding), Some(1 << 5));
}

#[test]
fn null_is_absence() {
    let mut config = config();
    for pointer in ["hooks", "annotations", "domainname"] {
        config[pointer] = Value::Null;
    }
    config["linux"]["timeOffsets"] = Value::Null;
    config["linux"]["seccomp"] = Value::Null;
    config["process"]["capabilities"] = json!({"bounding": null, "ambient": null});
    config["linux"]["resources"] = json!({"pids": {"limit": null}, "memory": {"limit": null}});
    let spec = load_value(&config).expect("nothing is there").spec;
    let resources =
        spec.linux().as_ref().and_then(|linux| linux.resources().clone()).expect("resources are there");
    assert_eq!(resources.pids(), &None, "no limit is not a limit of 0");
    assert_eq!(resources.memory().and_then(|memory| memory.limit()), None);
}

#[test]
fn a_pids_limit_of_zero_stays() {
    let spec =
        load_value(&changed("/linux/resources", json!({"pids": {"limit": 0}}))).expect("it is valid").spec;
    let resources =
        spec.linux().as_ref().and_then(|linux| linux.resources().clone()).expect("resources are there");
    assert_eq!(resources.pids().map(|pids| pids.limit()), Some(0));
}

#[test]
fn a_hugepage_limit_beyond_the_signed_range_is_the_largest() {
    let limits =
        json!({"hugepageLimits": [{"pageSize": "2MB", "limit": u64::MAX}, {"pageSize": "1GB", "limit": 5}]});
    let spec = load_value(&changed("/linux/resources", limits)).expect("it is valid").spec;
    let resources =
        spec.linux().as_ref().and_then(|linux| linux.resources().clone()).expect("resources are there");
    let limits: Vec<i64> = resources.hugepage_limits().iter().flatten().map(|limit| limit.limit()).collect();
    assert_eq!(limits, [i64::MAX, 5]);
}

#[test]
fn an_empty_seccomp_section_is_no_filter() {
    for seccomp in [json!({}), json!({"defaultAction": "", "syscalls": null}), json!({"syscalls": []})] {
        let plan = plan(&changed("/linux/seccomp", seccomp)).expect("it is valid");
        assert_eq!(plan.seccomp, None);
    }
    let calls =
        changed("/linux/seccomp", json!({"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}));
    assert_refused(&calls, "/linux/seccomp", "defaultAction");
    assert!(
        plan(&changed("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"})))
            .unwrap()
            .seccomp
            .is_some()
    );
}

#[test]
fn a_process_file_needs_no_user() {
    let loaded =
        parse_process(br#"{"args": ["/bin/env"], "cwd": "/", "terminal": null}"#).expect("it is valid");
    assert_eq!((loaded.process.user().uid(), loaded.process.user().gid()), (0, 0));
    assert_eq!(parse_process(br#"{"args": 5, "cwd": "/"}"#).expect_err("args is a list").field, "/args");
    let refusal = parse_process(
        br#"{"args": ["a"], "cwd": "/", "scheduler": {"policy": "SCHED_OTHER", "flags": ["X"]}}"#,
    );
    assert_eq!(refusal.expect_err("X is no flag").field, "/scheduler/flags/0");
}
