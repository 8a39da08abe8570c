//! Seccomp.

use std::fs;

use serde_json::{Value, json};

use super::Table;
use crate::bundle::{Bundle, probe};
use crate::console::{Console, Delivery};
use crate::lab::{Lab, answers};
use crate::verdict::{Finding, fail, holds, same};

pub(super) const CASES: Table = &[
    ("S2", actions_do_what_they_say),
    ("S3", errno_is_the_given_one),
    ("S4", architectures_are_known),
    ("S5", flags_are_known),
    ("S6", names_of_calls_are_checked),
    ("S7", arguments_are_compared),
    ("S9", listener_goes_to_the_agent),
    ("S10", agent_gets_the_process_state),
    ("S11", metadata_goes_with_the_listener),
];

/// What the probe's mkdir may use.
const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

/// A filter that allows everything but one rule.
fn but(rule: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })
}

/// What mkdir answers under a filter; `None` when the program did not live to tell.
fn mkdir(lab: &Lab, filter: Value) -> Finding<Option<String>> {
    let bundle = lab.bundle(|config| {
        probe(config, &["do", "mkdir", "/tmp/new"]);
        config["linux"]["seccomp"] = filter;
    })?;
    let output = lab.run(&bundle)?;
    let told = answers(&output.stdout).and_then(|list| list.into_iter().next());
    if told.is_none() && output.succeeded() {
        return fail("an answer, or another exit status than 0", output.told());
    }
    Ok(told)
}

fn actions_do_what_they_say(lab: &Lab) -> Finding {
    let (refused, unheard, done) = (Some("!EPERM"), Some("!ENOSYS"), Some(""));
    for (action, wanted) in [
        ("SCMP_ACT_ALLOW", done),
        ("SCMP_ACT_LOG", done),
        ("SCMP_ACT_ERRNO", refused),
        ("SCMP_ACT_TRACE", unheard),
        ("SCMP_ACT_TRAP", None),
        ("SCMP_ACT_KILL", None),
        ("SCMP_ACT_KILL_THREAD", None),
        ("SCMP_ACT_KILL_PROCESS", None),
    ] {
        let seen = mkdir(lab, but(json!({ "names": MKDIR, "action": action })))?;
        same(&format!("mkdir under {action}"), &wanted, &seen.as_deref())?;
    }
    refuses(lab, "an unknown action", but(json!({ "names": MKDIR, "action": "SCMP_ACT_PERHAPS" })))?;
    let rule = json!({ "names": MKDIR, "action": "SCMP_ACT_ERRNO" });
    refuses(lab, "a filter with a rule and without defaultAction", json!({ "syscalls": [rule] }))
}

fn refuses(lab: &Lab, what: &str, filter: Value) -> Finding {
    lab.refuses_to_run(what, |config| config["linux"]["seccomp"] = filter)
}

/// Calls that a runtime after its filter, and the probe, may need: what is left out is mkdir.
const NEEDED: &str = "accept4 access arch_prctl brk capget capset chdir clock_gettime clone clone3 close close_range \
    connect dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 execve execveat exit exit_group \
    faccessat faccessat2 fchdir fchmod fchown fcntl fork fstat fstatfs fsync ftruncate futex getcwd getdents64 getegid \
    geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getsid \
    gettid getuid ioctl kill lseek lstat madvise mmap mprotect mremap munmap nanosleep newfstatat open openat openat2 \
    pipe pipe2 poll ppoll prctl pread64 prlimit64 pwrite64 read readlink readlinkat readv recvfrom recvmsg restart_syscall \
    rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigtimedwait sched_getaffinity sched_yield seccomp \
    sendmsg sendto set_robust_list set_tid_address setgid setgroups setresgid setresuid setuid sigaltstack socket \
    socketpair stat statfs statx sysinfo tgkill umask uname unlink unlinkat wait4 waitid write writev";

fn errno_is_the_given_one(lab: &Lab) -> Finding {
    let with = |value: u32| but(json!({ "names": MKDIR, "action": "SCMP_ACT_ERRNO", "errnoRet": value }));
    same("mkdir with errnoRet 28", &Some("!ENOSPC"), &mkdir(lab, with(28))?.as_deref())?;
    let names: Vec<&str> = NEEDED.split_whitespace().collect();
    let allowed = json!([{ "names": names, "action": "SCMP_ACT_ALLOW" }]);
    let default = json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 16, "syscalls": allowed });
    same("mkdir with defaultErrnoRet 16", &Some("!EBUSY"), &mkdir(lab, default)?.as_deref())?;
    let default = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": allowed });
    same("mkdir without defaultErrnoRet", &Some("!EPERM"), &mkdir(lab, default)?.as_deref())?;
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_KILL"] {
        refuses(
            lab,
            &format!("errnoRet with {action}"),
            but(json!({ "names": MKDIR, "action": action, "errnoRet": 1 })),
        )?;
    }
    Ok(())
}

fn architectures_are_known(lab: &Lab) -> Finding {
    let names = if cfg!(target_arch = "aarch64") {
        ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"].to_vec()
    } else {
        ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"].to_vec()
    };
    let mut filter = but(json!({ "names": MKDIR, "action": "SCMP_ACT_ERRNO" }));
    filter["architectures"] = json!(names);
    same("mkdir with architectures", &Some("!EPERM"), &mkdir(lab, filter.clone())?.as_deref())?;
    // Those of the other byte order cannot be in one filter of libseccomp's with this machine's.
    let further =
        ["ARM", "AARCH64", "MIPSEL", "MIPSEL64", "MIPSEL64N32", "PPC64LE", "RISCV64", "LOONGARCH64", "SH"];
    for name in
        further.map(|name| format!("SCMP_ARCH_{name}")).iter().filter(|name| !names.contains(&name.as_str()))
    {
        filter["architectures"] = json!([names[0], name]);
        same(&format!("mkdir with {name}"), &Some("!EPERM"), &mkdir(lab, filter.clone())?.as_deref())?;
    }
    filter["architectures"] = json!(["SCMP_ARCH_ABACUS"]);
    refuses(lab, "an unknown architecture", filter)
}

fn flags_are_known(lab: &Lab) -> Finding {
    let mut filter = but(json!({ "names": MKDIR, "action": "SCMP_ACT_ERRNO" }));
    for flag in ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"] {
        filter["flags"] = json!([flag]);
        same(&format!("mkdir with {flag}"), &Some("!EPERM"), &mkdir(lab, filter.clone())?.as_deref())?;
    }
    // The kernel takes this one only with a listener.
    let (delivery, ..) = delivered(lab, &["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])?;
    same("descriptors with SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", &1, &delivery.descriptors.len())?;
    filter["flags"] = json!(["SECCOMP_FILTER_FLAG_PERHAPS"]);
    refuses(lab, "an unknown flag", filter)
}

fn names_of_calls_are_checked(lab: &Lab) -> Finding {
    let names = json!(["no_such_call", "mkdir", "mkdirat"]);
    let seen = mkdir(lab, but(json!({ "names": names, "action": "SCMP_ACT_ERRNO" })))?;
    same("mkdir beside an unknown name", &Some("!EPERM"), &seen.as_deref())?;
    refuses(lab, "a rule without names", but(json!({ "names": [], "action": "SCMP_ACT_ERRNO" })))
}

fn arguments_are_compared(lab: &Lab) -> Finding {
    let large = (1_u64 << 40).to_string();
    let cases: [(&str, u64, u64, [bool; 4]); 9] = [
        ("SCMP_CMP_EQ", 20, 0, [false, true, false, false]),
        ("SCMP_CMP_NE", 20, 0, [true, false, true, true]),
        ("SCMP_CMP_LT", 20, 0, [true, false, false, false]),
        ("SCMP_CMP_LE", 20, 0, [true, true, false, false]),
        ("SCMP_CMP_GE", 20, 0, [false, true, true, true]),
        ("SCMP_CMP_GT", 20, 0, [false, false, true, true]),
        ("SCMP_CMP_GT", 1 << 39, 0, [false, false, false, true]),
        ("SCMP_CMP_EQ", 1 << 40, 0, [false, false, false, true]),
        // 10 is 1010 and 20 is 10100 in bits, 34 is 100010.
        ("SCMP_CMP_MASKED_EQ", 0b10, 0b10, [true, false, true, false]),
    ];
    for (op, value, second, wanted) in cases {
        let rule = json!({ "names": ["lseek"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 1, "value": value, "valueTwo": second, "op": op }] });
        let words = [
            "lseek", "/probe", "10", "+", "lseek", "/probe", "20", "+", "lseek", "/probe", "34", "+",
            "lseek", "/probe", &large,
        ];
        let seen = lab.inside(&words, |config| config["linux"]["seccomp"] = but(rule))?;
        let refused: Vec<bool> = seen.iter().map(|answer| answer == "!EPERM").collect();
        same(&format!("whether {op} {value} fits 10, 20, 34 and 2^40"), &wanted[..], &refused[..])?;
    }
    let one = |value: u64| json!({ "index": 1, "value": value, "op": "SCMP_CMP_EQ" });
    let rule = json!({ "names": ["lseek"], "action": "SCMP_ACT_ERRNO", "args": [one(10), one(20)] });
    let words = ["lseek", "/probe", "10", "+", "lseek", "/probe", "20", "+", "lseek", "/probe", "34"];
    let seen = lab.inside(&words, |config| config["linux"]["seccomp"] = but(rule))?;
    same("10, 20 and 34 with two conditions on one argument", &["!EPERM", "!EPERM", "34"][..], &seen[..])?;
    let bad = json!({ "names": ["lseek"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 1, "value": 1, "op": "SCMP_CMP_NEARLY" }] });
    refuses(lab, "an unknown operator", but(bad))
}

/// A bundle with a NOTIFY rule for mkdir and a metadata text.
fn notifying(lab: &Lab, socket: &std::path::Path, flags: &[&str]) -> Finding<Bundle> {
    lab.bundle(|config| {
        probe(config, &["do", "mkdir", "/tmp/new", "+", "mkdir", "/tmp/after"]);
        let mut filter = but(json!({ "names": MKDIR, "action": "SCMP_ACT_NOTIFY" }));
        filter["listenerPath"] = json!(socket);
        filter["flags"] = json!(flags);
        filter["listenerMetadata"] = json!("some=metadata,\"quoted\"");
        config["annotations"] = json!({ "org.example.key": "value" });
        config["linux"]["seccomp"] = filter;
    })
}

/// What an agent gets over one connection, and the pid of the container.
fn delivered(lab: &Lab, flags: &[&str]) -> Finding<(Delivery, i32, Console, Bundle)> {
    let socket = lab.place.join("agent");
    let agent = Console::listen(&socket)?;
    let bundle = notifying(lab, &socket, flags)?;
    lab.create(&bundle)?;
    let pid = lab.pid(&bundle)?;
    lab.call(&["start", &bundle.id])?.done("start")?;
    let delivery = agent.delivery(lab)?;
    Ok((delivery, pid, agent, bundle))
}

fn listener_goes_to_the_agent(lab: &Lab) -> Finding {
    let (delivery, pid, agent, bundle) = delivered(lab, &[])?;
    same("descriptors over the connection", &1, &delivery.descriptors.len())?;
    holds("one connection", !agent.was_called(), "a second one")?;
    let link = fs::read_link(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&delivery.descriptors[0])
    ))?;
    holds("a listener of seccomp", link.to_string_lossy().contains("seccomp notify"), link.display())?;
    let waits = || fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let held = lab.eventually(|| bundle.inside("tmp/new").exists() || !waits().starts_with("running"));
    holds("mkdir waits for the agent", held && !bundle.inside("tmp/new").exists(), "the directory was made")?;
    // The kernel answers ENOSYS once nobody listens.
    drop(delivery);
    lab.await_status(&bundle, "stopped")?;
    let missing = lab.place.join("nobody-listens");
    let bundle = notifying(lab, &missing, &[])?;
    let created = lab.try_create(&bundle)?;
    if created.succeeded() {
        lab.call(&["start", &bundle.id])?.refused("a listenerPath where nobody listens")
    } else {
        created.refused("a listenerPath where nobody listens")
    }
}

fn state_of(delivery: &Delivery) -> Finding<Value> {
    serde_json::from_str(&delivery.text).or_else(|_| fail("one JSON document", &delivery.text))
}

fn agent_gets_the_process_state(lab: &Lab) -> Finding {
    let (delivery, pid, _agent, bundle) = delivered(lab, &[])?;
    let sent = state_of(&delivery)?;
    holds("an ociVersion", sent["ociVersion"].is_string(), &sent["ociVersion"])?;
    same("fds", &json!(["seccompFd"]), &sent["fds"])?;
    same("pid", &json!(pid), &sent["pid"])?;
    same("state.id", &json!(bundle.id), &sent["state"]["id"])?;
    same("state.bundle", &json!(bundle.path), &sent["state"]["bundle"])?;
    same("state.annotations", &json!({ "org.example.key": "value" }), &sent["state"]["annotations"])?;
    let status = sent["state"]["status"].as_str().unwrap_or_default();
    holds("a status of the creation or the start", ["creating", "created"].contains(&status), status)?;
    holds("descriptors in the first message alone", !delivery.late, "some came later")
}

fn metadata_goes_with_the_listener(lab: &Lab) -> Finding {
    let (delivery, ..) = delivered(lab, &[])?;
    same("metadata", &json!("some=metadata,\"quoted\""), &state_of(&delivery)?["metadata"])?;
    let mut alone = but(json!({ "names": MKDIR, "action": "SCMP_ACT_ERRNO" }));
    alone["listenerMetadata"] = json!("x");
    refuses(lab, "listenerMetadata without listenerPath", alone.clone())?;
    let socket = lab.place.join("unused");
    let agent = Console::listen(&socket)?;
    alone["listenerPath"] = json!(socket);
    same("mkdir with a listenerPath and no rule for it", &Some("!EPERM"), &mkdir(lab, alone)?.as_deref())?;
    holds("no connection without a NOTIFY rule", !agent.was_called(), "one came")
}
