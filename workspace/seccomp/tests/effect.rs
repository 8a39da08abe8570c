//! The kernel does what the profile says: filters loaded in child processes.

mod common;

use common::{chance::Chance, filter, profile};
use hull_seccomp::{Arch, FLAG_NEW_LISTENER, Filter, compile};
use hull_sys::{
    process::{self, CloneRequest, WaitStatus, exit_now, spawn, wait},
    seccomp::{SeccompInstruction, load_filter},
};
use serde_json::{Value, json};
use std::os::fd::AsFd;

const SIGSYS: i32 = 31;
/// Exit code of a child whose filter was not taken.
const NOT_LOADED: i32 = 99;

fn instructions(filter: &Filter) -> Vec<SeccompInstruction> {
    let one = |one: &hull_seccomp::Instruction| SeccompInstruction {
        code: one.code,
        jump_true: one.jt,
        jump_false: one.jf,
        operand: one.k,
    };
    filter.program.iter().map(one).collect()
}

/// Loads the filters in a child, calls `act` there, and says how the child ended: with what `act` returned, or killed.
fn under(filters: &[Filter], act: impl FnOnce() -> i32) -> WaitStatus {
    // The child allocates nothing: the test's other threads may hold the allocator's lock.
    let programs: Vec<(Vec<SeccompInstruction>, u32)> =
        filters.iter().map(|filter| (instructions(filter), filter.flags)).collect();
    let child = spawn(&CloneRequest::default(), || {
        if process::set_no_new_privileges().is_err() {
            exit_now(NOT_LOADED);
        }
        for (program, flags) in &programs {
            match load_filter(program, *flags) {
                Ok(listener) if listener.is_some() == (flags & FLAG_NEW_LISTENER != 0) => {}
                _ => exit_now(NOT_LOADED),
            }
        }
        exit_now(act())
    });
    let child = child.expect("make a child");
    wait(child.pidfd.as_fd()).expect("wait for the child")
}

/// Returns the errno of removing a directory that does not exist.
fn remove_nothing() -> i32 {
    std::fs::remove_dir("/no/such/directory").map_or_else(|error| error.raw_os_error().unwrap_or(0), |()| 0)
}

fn on_rmdir(rule: Value) -> Filter {
    let mut rule = rule;
    rule["names"] = json!(["rmdir", "unlinkat"]);
    filter(Arch::NATIVE, json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
}

#[test]
fn actions_take_effect() {
    let table = [
        (json!({"action": "SCMP_ACT_ALLOW"}), WaitStatus::Exited(libc::ENOENT)),
        (json!({"action": "SCMP_ACT_LOG"}), WaitStatus::Exited(libc::ENOENT)),
        (json!({"action": "SCMP_ACT_ERRNO"}), WaitStatus::Exited(libc::EPERM)),
        (json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 100}), WaitStatus::Exited(100)),
        (json!({"action": "SCMP_ACT_TRACE"}), WaitStatus::Exited(libc::ENOSYS)),
        (json!({"action": "SCMP_ACT_TRAP"}), WaitStatus::Signaled(SIGSYS)),
        (json!({"action": "SCMP_ACT_KILL"}), WaitStatus::Signaled(SIGSYS)),
        (json!({"action": "SCMP_ACT_KILL_THREAD"}), WaitStatus::Signaled(SIGSYS)),
        (json!({"action": "SCMP_ACT_KILL_PROCESS"}), WaitStatus::Signaled(SIGSYS)),
    ];
    for (rule, end) in table {
        assert_eq!(under(&[on_rmdir(rule.clone())], remove_nothing), end, "{rule}");
    }
}

#[test]
fn conditions_take_effect() {
    let filter = filter(
        Arch::NATIVE,
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO",
               "errnoRet": 77, "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_NE"}]}]}),
    );
    let kill = |signal| {
        move || match process::kill(process::effective_pid(), signal) {
            Ok(()) => 0,
            Err(error) => i32::from(error.is(77)),
        }
    };
    assert_eq!(under(std::slice::from_ref(&filter), kill(0)), WaitStatus::Exited(0));
    assert_eq!(under(&[filter], kill(libc::SIGTERM)), WaitStatus::Exited(1));
}

#[test]
fn call_newer_than_the_profile_fails_as_unknown_and_an_older_one_does_not() {
    let filter = filter(
        Arch::NATIVE,
        json!({"defaultAction": "SCMP_ACT_KILL_PROCESS",
               "syscalls": [{"names": ["getpid", "exit_group"], "action": "SCMP_ACT_ALLOW"}]}),
    );
    let newer = || match process::pidfd_open(process::effective_pid()) {
        Err(error) if error.is(libc::ENOSYS) => 7,
        _ => 8,
    };
    assert_eq!(under(std::slice::from_ref(&filter), newer), WaitStatus::Exited(7));
    assert_eq!(under(&[filter], || i32::from(process::setsid().is_ok())), WaitStatus::Signaled(SIGSYS));
}

#[test]
fn notify_rule_gives_a_listener() {
    let filter = filter(
        Arch::NATIVE,
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "flags":
               ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
               "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
    );
    assert_eq!(under(&[filter], || 7), WaitStatus::Exited(7));
}

#[test]
fn kernel_takes_every_program() {
    for first in (0..60).step_by(6) {
        let filters: Vec<Filter> = (first..first + 6)
            .map(|seed| {
                let mut json = Chance::new(seed).profile(Arch::NATIVE, 110, 1);
                json["defaultAction"] = json!("SCMP_ACT_ALLOW");
                // The child has to load the next one and to end.
                let text = json.to_string().replace("exit_group", "exit");
                compile(&profile(serde_json::from_str(&text).unwrap()), Arch::NATIVE).unwrap()
            })
            .collect();
        assert_eq!(under(&filters, || 7), WaitStatus::Exited(7), "{first}");
    }
}
