//! Profiles that are refused, and the member they are refused for.

mod common;

use common::{profile, refusal};
use hull_seccomp::{Arch, compile_with};
use serde_json::{Value, json};

#[test]
fn refusal_names_the_member() {
    let rule = |rule: Value| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_TRAP"}, rule]})
    };
    let table = [
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "/linux/seccomp/defaultAction"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), "/linux/seccomp/defaultErrnoRet"),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 65536}),
            "/linux/seccomp/defaultErrnoRet",
        ),
        (rule(json!({"names": [], "action": "SCMP_ACT_TRAP"})), "/linux/seccomp/syscalls/1/names"),
        (
            rule(json!({"names": ["read", ""], "action": "SCMP_ACT_TRAP"})),
            "/linux/seccomp/syscalls/1/names/1",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_TRAP", "errnoRet": 1})),
            "/linux/seccomp/syscalls/1/errnoRet",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [
                {"index": 5, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            "/linux/seccomp/syscalls/1/args/1/index",
        ),
        (
            rule(json!({"names": ["mkdir", "write"], "action": "SCMP_ACT_NOTIFY"})),
            "/linux/seccomp/syscalls/1/names/1",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "",
                   "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
            "/linux/seccomp/listenerPath",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "m"}),
            "/linux/seccomp/listenerMetadata",
        ),
    ];
    for (json, field) in table {
        assert_eq!(refusal(json.clone()).field, field, "{json}");
    }
}

#[test]
fn notify_on_a_call_the_runtime_needs_says_which() {
    let json = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent",
                      "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]});
    assert_eq!(
        refusal(json.clone()).to_string(),
        "/linux/seccomp/syscalls/0/names/0: SCMP_ACT_NOTIFY cannot be used for the write syscall"
    );
    assert!(compile_with(&profile(json.clone()), Arch::X86_64, &[]).is_ok());
    assert!(compile_with(&profile(json), Arch::X86_64, &["read"]).is_ok());
}

#[test]
fn unknown_words_do_not_parse() {
    for json in [
        json!({"defaultAction": "SCMP_ACT_MAYBE"}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_ODD"]}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]}),
        json!({"syscalls": []}),
    ] {
        assert!(serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(json.clone()).is_err(), "{json}");
    }
}

#[test]
fn every_listed_word_parses() {
    for action in hull_seccomp::actions() {
        profile(json!({"defaultAction": action}));
    }
    for flag in hull_seccomp::known_flags() {
        profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]}));
    }
    for op in hull_seccomp::operators() {
        profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
            "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 0, "op": op}]}]}));
    }
}

#[test]
fn profile_that_the_kernel_could_not_take_is_refused() {
    let args: Vec<Value> =
        (0..3000_u64).map(|n| json!({"index": 0, "value": n << 20, "op": "SCMP_CMP_EQ"})).collect();
    let refusal = refusal(json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP", "args": args}]}));
    assert_eq!(refusal.field, "/linux/seccomp/syscalls");
    assert!(refusal.reason.ends_with("the kernel takes 4096"), "{}", refusal.reason);
}
