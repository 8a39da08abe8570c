//! What a compiled profile answers, case by case.

mod common;

use common::{answer, answer_number, filter};
use hull_seccomp::{
    ALLOW, Arch, ERRNO, FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV, KILL_PROCESS,
    KILL_THREAD, LOG, Listener, NOTIFY, TRACE, TRAP,
};
use serde_json::{Value, json};

const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

#[test]
fn every_action_has_its_word() {
    let table = [
        (json!({"action": "SCMP_ACT_KILL"}), KILL_THREAD),
        (json!({"action": "SCMP_ACT_KILL_THREAD"}), KILL_THREAD),
        (json!({"action": "SCMP_ACT_KILL_PROCESS"}), KILL_PROCESS),
        (json!({"action": "SCMP_ACT_TRAP"}), TRAP),
        (json!({"action": "SCMP_ACT_ERRNO"}), EPERM),
        (json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 0}), ERRNO),
        (json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 100}), ERRNO | 100),
        (json!({"action": "SCMP_ACT_TRACE"}), TRACE | 1),
        (json!({"action": "SCMP_ACT_TRACE", "errnoRet": 0xffff}), TRACE | 0xffff),
        (json!({"action": "SCMP_ACT_LOG"}), LOG),
        (json!({"action": "SCMP_ACT_NOTIFY"}), NOTIFY),
    ];
    for (mut rule, word) in table {
        rule["names"] = json!(["mkdir"]);
        let filter = filter(
            Arch::X86_64,
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "syscalls": [rule]}),
        );
        assert_eq!(answer(&filter, Arch::X86_64, "mkdir", &[]), word, "{rule}");
        assert_eq!(answer(&filter, Arch::X86_64, "rmdir", &[]), ALLOW, "{rule}");
    }
}

/// Compiles one allow rule for `lseek` and says for which values of its second argument it holds.
fn allowed(native: Arch, arch: Arch, args: &Value, values: &[u64]) -> Vec<bool> {
    let filter = filter(
        native,
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": args}]
        }),
    );
    values.iter().map(|value| answer(&filter, arch, "lseek", &[9, *value, 9]) == ALLOW).collect()
}

#[test]
fn operators_compare_64_bits() {
    const V: u64 = 0x5_0000_0007;
    let values = [0, 7, V - 1, V, V + 1, 0x4_ffff_ffff, 0x6_0000_0000, u64::MAX];
    let table = [
        ("SCMP_CMP_EQ", [false, false, false, true, false, false, false, false]),
        ("SCMP_CMP_NE", [true, true, true, false, true, true, true, true]),
        ("SCMP_CMP_GT", [false, false, false, false, true, false, true, true]),
        ("SCMP_CMP_GE", [false, false, false, true, true, false, true, true]),
        ("SCMP_CMP_LT", [true, true, true, false, false, true, false, false]),
        ("SCMP_CMP_LE", [true, true, true, true, false, true, false, false]),
    ];
    for (op, expected) in table {
        let args = json!([{"index": 1, "value": V, "op": op}]);
        assert_eq!(allowed(Arch::X86_64, Arch::X86_64, &args, &values), expected, "{op}");
    }
}

#[test]
fn operators_hold_at_both_ends_of_the_range() {
    let values = [0, 1, u64::MAX - 1, u64::MAX];
    let table = [
        ("SCMP_CMP_GE", 0, [true, true, true, true]),
        ("SCMP_CMP_LT", 0, [false, false, false, false]),
        ("SCMP_CMP_LE", 0, [true, false, false, false]),
        ("SCMP_CMP_GT", 0, [false, true, true, true]),
        ("SCMP_CMP_GT", u64::MAX, [false, false, false, false]),
        ("SCMP_CMP_LE", u64::MAX, [true, true, true, true]),
        ("SCMP_CMP_GE", u64::MAX, [false, false, false, true]),
        ("SCMP_CMP_LT", u64::MAX, [true, true, true, false]),
        ("SCMP_CMP_EQ", u64::MAX, [false, false, false, true]),
    ];
    for (op, value, expected) in table {
        let args = json!([{"index": 1, "value": value, "op": op}]);
        assert_eq!(allowed(Arch::X86_64, Arch::X86_64, &args, &values), expected, "{op} {value:#x}");
    }
}

#[test]
fn masked_comparison_ignores_bits_outside_the_mask() {
    let values = [0, 0x10, 0x1_0000_0010, 0x1f, 0x2_0000_0010];
    let table = [
        (json!({"index": 1, "value": 0xf0, "valueTwo": 0x10}), [false, true, true, true, true]),
        (json!({"index": 1, "value": 0xf0, "valueTwo": 0x11}), [false, true, true, true, true]),
        (
            json!({"index": 1, "value": 0x3_0000_00f0_u64, "valueTwo": 0x1_0000_0010_u64}),
            [false, false, true, false, false],
        ),
        (json!({"index": 1, "value": 0x1_0000_0000_u64}), [true, true, false, true, true]),
        (json!({"index": 1, "value": 0}), [true, true, true, true, true]),
    ];
    for (mut arg, expected) in table {
        arg["op"] = json!("SCMP_CMP_MASKED_EQ");
        let args = json!([arg]);
        assert_eq!(allowed(Arch::X86_64, Arch::X86_64, &args, &values), expected, "{args}");
    }
}

#[test]
fn abis_of_32_bits_compare_low_words() {
    let values = [1, 3, 0xffff_ffff, u64::MAX, 0x2_0000_0000];
    for arch in [Arch::X86, Arch::X32] {
        let args = json!([{"index": 1, "value": u64::MAX, "op": "SCMP_CMP_EQ"}]);
        assert_eq!(allowed(Arch::X86_64, arch, &args, &values), [false, false, true, true, false]);
        let args = json!([{"index": 1, "value": 0x1_0000_0002_u64, "op": "SCMP_CMP_GT"}]);
        assert_eq!(allowed(Arch::X86_64, arch, &args, &values), [false, true, true, true, false]);
    }
}

#[test]
fn conditions_on_different_arguments_all_hold_and_on_one_argument_are_alternatives() {
    let filter = filter(
        Arch::X86_64,
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["ftruncate"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}]},
            {"names": ["dup3"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 3, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": 8, "op": "SCMP_CMP_EQ"}]},
        ]}),
    );
    let native = |name, args: &[u64]| answer(&filter, Arch::X86_64, name, args);
    for (args, word) in [([5, 7], ALLOW), ([5, 8], EPERM), ([6, 7], EPERM)] {
        assert_eq!(native("ftruncate", &args), word, "{args:?}");
    }
    for (args, word) in [([1, 0], ALLOW), ([3, 0], ALLOW), ([2, 0], EPERM), ([2, 8], ALLOW)] {
        assert_eq!(native("dup3", &args), word, "{args:?}");
    }
}

#[test]
fn first_matching_rule_with_conditions_decides() {
    let rule = |errno: u32, index: u32| {
        json!({"names": ["dup3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
               "args": [{"index": index, "value": 1, "op": "SCMP_CMP_EQ"}]})
    };
    for (syscalls, both) in [([rule(10, 0), rule(11, 1)], 10), ([rule(11, 1), rule(10, 0)], 11)] {
        let filter = filter(Arch::X86_64, json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls}));
        assert_eq!(answer(&filter, Arch::X86_64, "dup3", &[1, 1]), ERRNO | both);
        assert_eq!(answer(&filter, Arch::X86_64, "dup3", &[1, 0]), ERRNO | 10);
        assert_eq!(answer(&filter, Arch::X86_64, "dup3", &[0, 1]), ERRNO | 11);
        assert_eq!(answer(&filter, Arch::X86_64, "dup3", &[0, 0]), ALLOW);
    }
}

#[test]
fn rule_without_conditions_stands_and_says_what_it_hides() {
    let always = json!({"names": ["dup3"], "action": "SCMP_ACT_ALLOW"});
    let deny = json!({"names": ["dup3"], "action": "SCMP_ACT_TRAP",
                      "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]});
    let cases = [([always.clone(), deny.clone()], (1, 0)), ([deny, always], (0, 1))];
    for (syscalls, (loser, winner)) in cases {
        let filter = filter(Arch::X86_64, json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls}));
        assert_eq!(answer(&filter, Arch::X86_64, "dup3", &[1]), ALLOW);
        assert_eq!(
            filter.warnings,
            [format!(
                "/linux/seccomp/syscalls/{loser}: no effect on dup3, since /linux/seccomp/syscalls/{winner} holds \
                 whatever the arguments"
            )]
        );
    }
}

#[test]
fn first_of_two_rules_without_conditions_stands() {
    let filter = filter(
        Arch::X86_64,
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["dup3"], "action": "SCMP_ACT_TRAP"}, {"names": ["dup3"], "action": "SCMP_ACT_ERRNO"}]}),
    );
    assert_eq!(answer(&filter, Arch::X86_64, "dup3", &[]), TRAP);
    assert_eq!(filter.warnings.len(), 1);
}

#[test]
fn rule_equal_to_the_default_action_is_dropped() {
    let filter = filter(
        Arch::X86_64,
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": [
            {"names": ["dup3"], "action": "SCMP_ACT_ERRNO"}, {"names": ["dup3"], "action": "SCMP_ACT_ALLOW"}]}),
    );
    assert_eq!(answer(&filter, Arch::X86_64, "dup3", &[]), ALLOW);
    assert_eq!(filter.warnings, Vec::<String>::new());
}

#[test]
fn calls_newer_than_the_profile_are_unknown() {
    let table = [
        (json!({"defaultAction": "SCMP_ACT_ERRNO"}), EPERM, ENOSYS),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 6}), ERRNO | 6, ENOSYS),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38}), ENOSYS, ENOSYS),
        (json!({"defaultAction": "SCMP_ACT_KILL"}), KILL_THREAD, ENOSYS),
        (json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"}), KILL_PROCESS, ENOSYS),
        (json!({"defaultAction": "SCMP_ACT_TRAP"}), TRAP, ENOSYS),
        (json!({"defaultAction": "SCMP_ACT_TRACE"}), TRACE | 1, TRACE | 1),
        (json!({"defaultAction": "SCMP_ACT_LOG"}), LOG, LOG),
    ];
    for (mut profile, older, newer) in table {
        // On this ABI, dup3 is 292; the rule for it is dropped where it is the default action, and counts all the same.
        profile["syscalls"] = json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                                     {"names": ["dup3"], "action": profile["defaultAction"]}]);
        let filter = filter(Arch::X86_64, profile.clone());
        let native = |number| answer_number(&filter, Arch::X86_64, number, &[]);
        assert_eq!(native(0), ALLOW, "{profile}");
        assert_eq!(native(291), older, "{profile}");
        assert_eq!(native(293), newer, "{profile}");
        assert_eq!(native(1000), newer, "{profile}");
        assert_eq!(native(0xffff_ffff), older, "{profile}: a call that a tracer skips");
    }
}

#[test]
fn newest_call_is_taken_for_each_abi() {
    let filter = filter(
        Arch::Aarch64,
        json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
               "syscalls": [{"names": ["read", "getrandom", "set_tls"], "action": "SCMP_ACT_ALLOW"},
                            {"names": ["usr26"], "action": "SCMP_ACT_ERRNO"}]}),
    );
    for (arch, number, word) in [
        (Arch::Aarch64, 278, ALLOW),
        (Arch::Aarch64, 277, EPERM),
        (Arch::Aarch64, 279, ENOSYS),
        (Arch::Arm, 384, ALLOW),
        (Arch::Arm, 383, EPERM),
        (Arch::Arm, 385, ENOSYS),
        // A private call of ARM is no sign of a newer kernel.
        (Arch::Arm, 0xf_0003, EPERM),
        (Arch::Arm, 0xf_0004, ENOSYS),
        (Arch::Arm, 0xf_0005, ALLOW),
        (Arch::Arm, 0xf_0006, ENOSYS),
        (Arch::X86_64, 0, KILL_THREAD),
    ] {
        assert_eq!(answer_number(&filter, arch, number, &[]), word, "{arch:?} {number:#x}");
    }
}

#[test]
fn each_abi_has_its_own_numbers() {
    let json = |architectures: &[&str]| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures,
               "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_TRAP"}]})
    };
    let all = filter(Arch::X86_64, json(&["SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
    let native = filter(Arch::X86_64, json(&[]));
    // The native ABI need not be listed; others that are not are refused as a whole.
    for (arch, number, with_all, alone) in [
        (Arch::X86_64, 83, TRAP, TRAP),
        (Arch::X86_64, 39, ALLOW, ALLOW),
        (Arch::X86, 39, TRAP, KILL_THREAD),
        (Arch::X86, 83, ALLOW, KILL_THREAD),
        (Arch::X32, 0x4000_0053, TRAP, KILL_THREAD),
        (Arch::X32, 0x4000_0054, ALLOW, KILL_THREAD),
        (Arch::X32, 0xffff_fffe, ALLOW, KILL_THREAD),
        (Arch::X32, 0xffff_ffff, ALLOW, ALLOW),
        (Arch::Aarch64, 34, KILL_THREAD, KILL_THREAD),
    ] {
        assert_eq!(answer_number(&all, arch, number, &[]), with_all, "{arch:?} {number:#x}");
        assert_eq!(answer_number(&native, arch, number, &[]), alone, "{arch:?} {number:#x}");
    }
}

#[test]
fn foreign_architectures_are_accepted_with_a_warning() {
    for name in hull_seccomp::archs() {
        let filter =
            filter(Arch::X86_64, json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [name]}));
        let own = ["SCMP_ARCH_NATIVE", "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"].contains(name);
        assert_eq!(filter.warnings.is_empty(), own, "{name}: {:?}", filter.warnings);
    }
}

#[test]
fn multiplexed_calls_follow_the_single_ones() {
    let filter = filter(
        Arch::X86_64,
        json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
            {"names": ["accept", "semget"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}]}),
    );
    let old = |name, selector| answer(&filter, Arch::X86, name, &[selector]);
    assert_eq!(old("socketcall", 5), ALLOW, "accept");
    assert_eq!(old("socketcall", 1), EPERM, "the family of socket is out of sight");
    assert_eq!(old("socketcall", 2), EPERM, "bind");
    assert_eq!(old("ipc", 2), ALLOW, "semget");
    assert_eq!(old("socketcall", 0x1_0005), EPERM, "which the kernel does not know");
    assert_eq!(old("ipc", 0x1_0002), ALLOW, "the version is cut off");
    assert_eq!(old("ipc", 11), EPERM, "msgsnd");
    assert_eq!(old("socket", 1), ALLOW);
    assert_eq!(old("socket", 40), EPERM);
    assert_eq!(filter.warnings.len(), 1, "{:?}", filter.warnings);
}

#[test]
fn rule_for_the_multiplexing_call_stands_for_all() {
    let filter = filter(
        Arch::X86_64,
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
            {"names": ["socket", "bind"], "action": "SCMP_ACT_TRAP"},
            {"names": ["socketcall"], "action": "SCMP_ACT_ERRNO"}]}),
    );
    assert_eq!(answer(&filter, Arch::X86, "socketcall", &[1]), EPERM);
    assert_eq!(answer(&filter, Arch::X86, "socketcall", &[3]), EPERM);
    assert_eq!(answer(&filter, Arch::X86, "socket", &[1]), TRAP);
}

#[test]
fn flags_and_listener_are_taken_over() {
    let notify = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let (tsync, log, spec, wait) = (
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    );
    let table = [
        (json!(null), json!([]), FLAG_SPEC_ALLOW, 0),
        (json!([]), json!([]), 0, 0),
        (json!([tsync]), json!([]), 0, 0),
        (json!([log]), json!([]), FLAG_LOG, 0),
        (json!([spec, log, tsync]), json!([]), FLAG_LOG | FLAG_SPEC_ALLOW, 0),
        (json!([wait]), json!([]), 0, 1),
        (json!([wait]), notify.clone(), FLAG_WAIT_KILLABLE_RECV | FLAG_NEW_LISTENER, 0),
        (json!(null), notify, FLAG_SPEC_ALLOW | FLAG_NEW_LISTENER, 0),
    ];
    for (flags, syscalls, expected, warnings) in table {
        let filter = filter(
            Arch::X86_64,
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "syscalls": syscalls,
                   "listenerPath": "/agent", "listenerMetadata": "m"}),
        );
        assert_eq!(filter.flags, expected, "{flags} {syscalls}");
        assert_eq!(filter.warnings.len(), warnings);
        let listener = (expected & FLAG_NEW_LISTENER != 0)
            .then(|| Listener { path: "/agent".into(), metadata: Some("m".into()) });
        assert_eq!(filter.listener, listener, "a path without a NOTIFY rule is ignored");
    }
}
