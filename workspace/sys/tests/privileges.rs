//! Identity, capabilities, filters, keyrings, limits and scheduling, in children that may lose everything.
#![allow(clippy::unwrap_used)] // Functions of a test are tests.

mod support;

use hull_sys::capability::{self, CapabilitySets};
use hull_sys::scheduling::{self, SchedulerAttributes};
use hull_sys::seccomp::{self, NotificationAnswer, SeccompInstruction};
use hull_sys::{CloneFlags, Pid, identity, keyring, limits, process, socket};
use hull_testkit::{gate, needs};
use std::os::fd::AsFd;
use support::{child_says, line, status};

const NOBODY: CloneFlags = CloneFlags::empty();
const ME: Pid = Pid::from_raw(0);
const CAP_CHOWN: u8 = 0;
const CAP_SETPCAP: u8 = 8;
const CAP_SYS_ADMIN: u8 = 21;

/// The gate of a test whose child said that the kernel is built without something.
fn known(said: &str, why: &str) -> gate::Gate {
    if said == "skip" { Err(why.to_owned()) } else { Ok(()) }
}

fn drop_root() {
    identity::set_groups(&[]).unwrap();
    identity::set_gids(1000, 1000, 1000).unwrap();
    identity::set_uids(1000, 1000, 1000).unwrap();
}

#[test]
fn ids_and_groups_are_those_of_the_kernels_own_account() {
    needs!(gate::root(), gate::alone());
    let said = child_says(NOBODY, || {
        identity::set_groups(&[7, 4_000_000_000]).unwrap();
        identity::set_gids(11, 12, 13).unwrap();
        identity::set_uids(21, 22, 23).unwrap();
        let back = line(identity::set_uids(0, 0, 0));
        let effective = (identity::effective_uid(), identity::effective_gid());
        format!("{} / {} / {} / {effective:?} / {back}", status("Uid"), status("Gid"), status("Groups"))
    });
    assert_eq!(
        said,
        format!("21 22 23 22 / 11 12 13 12 / 7 4000000000 / (22, 12) / setresuid {}", libc::EPERM)
    );
}

#[test]
fn capability_sets_are_those_of_the_kernels_own_account() {
    needs!(gate::root(), gate::alone());
    let said = child_says(NOBODY, || {
        let own = capability::get().unwrap();
        let ambient_first = line(capability::ambient_raise(CAP_CHOWN));
        capability::bounding_drop(CAP_SYS_ADMIN).unwrap();
        let bounded =
            (capability::bounding_has(CAP_SYS_ADMIN).unwrap(), capability::bounding_has(CAP_CHOWN).unwrap());
        let low = 1 << CAP_CHOWN | 1 << CAP_SETPCAP;
        let high = 1 << 39;
        let new = CapabilitySets { effective: low, permitted: low | high, inheritable: 1 << CAP_CHOWN };
        capability::set(&new).unwrap();
        capability::ambient_raise(CAP_CHOWN).unwrap();
        let ambient = capability::ambient_has(CAP_CHOWN).unwrap();
        let seen = [status("CapEff"), status("CapPrm"), status("CapInh"), status("CapAmb")].join(" ");
        capability::ambient_clear().unwrap();
        let cleared = capability::ambient_has(CAP_CHOWN).unwrap();
        let grown = line(capability::set(&own));
        let same = capability::get().unwrap() == new;
        format!("{ambient_first} {bounded:?} {seen} {ambient} {cleared} {grown} {same}")
    });
    let seen = "0000000000000101 0000008000000101 0000000000000001 0000000000000001";
    let refused = libc::EPERM;
    assert_eq!(said, format!("prctl {refused} (false, true) {seen} true false capset {refused} true"));
}

#[test]
fn the_last_capability_is_the_kernels() {
    let kernel: u8 =
        std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    assert_eq!(capability::last_capability(), kernel);
    assert!(capability::bounding_has(kernel + 1).unwrap_err().is(libc::EINVAL));
}

#[test]
fn capabilities_survive_the_change_of_user_only_when_kept() {
    needs!(gate::root(), gate::alone());
    let permitted = |keep: bool| {
        child_says(NOBODY, || {
            process::set_keep_capabilities(keep).unwrap();
            drop_root();
            format!("{} {}", capability::get().unwrap().permitted != 0, capability::get().unwrap().effective)
        })
    };
    assert_eq!((permitted(true), permitted(false)), ("true 0".into(), "false 0".into()));
}

/// `getppid` (or on aarch64 its number there) gets `action`, all else is allowed.
fn filter(action: u32) -> [SeccompInstruction; 4] {
    let instruction =
        |code, jump_false, operand| SeccompInstruction { code, jump_true: 0, jump_false, operand };
    let number = libc::SYS_getppid as u32;
    [
        instruction(0x20, 0, 0),
        instruction(0x15, 1, number),
        instruction(0x06, 0, action),
        instruction(0x06, 0, ALLOW),
    ]
}

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;

#[test]
fn a_filter_holds_from_the_moment_it_is_loaded() {
    needs!(gate::alone());
    let said = child_says(NOBODY, || {
        let before = seccomp::current_mode().unwrap();
        process::set_no_new_privileges().unwrap();
        let wrong = seccomp::load_filter(&[], 0).map(drop);
        let listener = seccomp::load_filter(&filter(ERRNO | 77), 0).unwrap();
        // The raw call's -1 for the refused getppid.
        let parent = process::parent_pid().as_raw();
        format!("{before} {} {} {parent} {}", line(wrong), listener.is_none(), status("Seccomp"))
    });
    assert_eq!(said, format!("0 seccomp {} true -1 2", libc::EINVAL));
}

#[test]
fn a_filter_needs_no_new_privileges_or_the_right_to_do_without() {
    needs!(gate::root(), gate::alone());
    let said = child_says(NOBODY, || {
        drop_root();
        line(seccomp::load_filter(&filter(ERRNO), 0))
    });
    assert_eq!(said, format!("seccomp {}", libc::EACCES));
}

#[test]
fn a_listener_answers_for_the_call() {
    needs!(gate::alone());
    let (ours, theirs) = socket::seqpacket_pair().unwrap();
    let child = process::spawn(&process::CloneRequest::default(), || {
        process::set_no_new_privileges().unwrap();
        let flags = seccomp::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let listener = seccomp::load_filter(&filter(NOTIFY), flags).unwrap().unwrap();
        socket::send_with_fds(theirs.as_fd(), b"l", &[listener.as_fd()]).unwrap();
        process::exit_now(process::parent_pid().as_raw())
    })
    .unwrap();
    let mut got = socket::recv_with_fds(ours.as_fd(), &mut [0; 1], 1).unwrap();
    let listener = got.fds.pop().unwrap();
    let call = seccomp::receive_notification(listener.as_fd()).unwrap();
    assert_eq!((call.number, call.pid), (libc::SYS_getppid as i32, child.pid.as_raw() as u32));
    let answer = NotificationAnswer { id: call.id, value: 42, ..NotificationAnswer::default() };
    seccomp::send_notification_answer(listener.as_fd(), &answer).unwrap();
    assert_eq!(process::wait(child.pidfd.as_fd()).unwrap().code(), 42);
    assert!(seccomp::send_notification_answer(listener.as_fd(), &answer).unwrap_err().is(libc::ENOENT));
}

#[test]
fn actions_and_flags_that_no_kernel_knows_are_not_available() {
    for action in [0, 0x8000_0000, ERRNO, ALLOW, NOTIFY] {
        assert!(seccomp::action_available(action), "{action:#x}");
    }
    assert!(!seccomp::action_available(0x1234_0000));
    for flag in [seccomp::SECCOMP_FILTER_FLAG_TSYNC, seccomp::SECCOMP_FILTER_FLAG_LOG] {
        assert!(seccomp::flag_available(flag), "{flag}");
    }
    assert!(!seccomp::flag_available(1 << 30));
    assert_eq!(seccomp::current_mode().unwrap(), 0, "asking loads nothing");
}

#[test]
fn a_new_session_keyring_has_its_name_and_permissions() {
    needs!(gate::alone());
    let said = child_says(NOBODY, || {
        let key = match keyring::join_session_keyring("_hull.test") {
            Ok(key) => key,
            Err(error) if error.is_unknown_call() => return "skip".into(),
            Err(error) => return error.to_string(),
        };
        let mask = keyring::permissions(key).unwrap() | 0x0008_0000;
        keyring::set_permissions(key, mask).unwrap();
        let kept = keyring::permissions(key).unwrap() == mask;
        format!("{kept} {}", keyring::describe(key).unwrap())
    });
    needs!(known(&said, "needs a kernel with keys"));
    assert!(said.starts_with("true keyring;") && said.ends_with(";_hull.test"), "{said}");
}

#[test]
fn limits_are_lowered_and_not_raised_without_the_right() {
    needs!(gate::root(), gate::alone());
    let resource = libc::RLIMIT_NOFILE as u32;
    let said = child_says(NOBODY, || {
        limits::set_rlimit(resource, 64, 128).unwrap();
        drop_root();
        let raised = line(limits::set_rlimit(resource, 64, 129));
        format!("{:?} {raised}", limits::get_rlimit_of(process::effective_pid(), resource).unwrap())
    });
    assert_eq!(said, format!("(64, 128) prlimit {}", libc::EPERM));
    assert_ne!(limits::get_rlimit(resource).unwrap(), (64, 128), "ours are as they were");
}

#[test]
fn scheduler_io_priority_and_affinity_are_what_was_set() {
    needs!(gate::alone());
    let said = child_says(NOBODY, || {
        let wanted = SchedulerAttributes { policy: libc::SCHED_BATCH as u32, nice: 7, ..Default::default() };
        scheduling::set_scheduler(ME, &wanted).unwrap();
        let found = scheduling::get_scheduler(ME).unwrap();
        let wrong = SchedulerAttributes { policy: 99, ..wanted };
        let wrong = line(scheduling::set_scheduler(ME, &wrong));
        scheduling::set_io_priority(ME, 2 << 13 | 6).unwrap();
        let io = scheduling::get_io_priority(ME).unwrap();
        let allowed = scheduling::get_affinity(ME).unwrap();
        let (word, bits) = allowed.iter().enumerate().find(|(_, bits)| **bits != 0).unwrap();
        let mut one = vec![0; allowed.len()];
        one[word] = 1 << bits.trailing_zeros();
        scheduling::set_affinity(ME, &one).unwrap();
        let pinned = scheduling::get_affinity(ME).unwrap() == one;
        let nowhere = line(scheduling::set_affinity(ME, &[0]));
        format!("{} {} {wrong} {io:#x} {pinned} {nowhere}", found.policy, found.nice)
    });
    let invalid = libc::EINVAL;
    assert_eq!(said, format!("3 7 sched_setattr {invalid} 0x4006 true sched_setaffinity {invalid}"));
}

#[test]
fn the_memory_policy_names_the_nodes_that_were_set() {
    needs!(gate::alone());
    let said = child_says(NOBODY, || {
        const BIND: u32 = 2;
        match scheduling::set_memory_policy(BIND, &[1], 64) {
            Err(error) if error.is_unknown_call() => return "skip".into(),
            other => other.unwrap(),
        }
        let maps = std::fs::read_to_string("/proc/self/numa_maps").unwrap();
        let beyond = line(scheduling::set_memory_policy(BIND, &[1 << 63], 65));
        format!("{} {beyond}", maps.lines().all(|map| map.contains(" bind:0")))
    });
    needs!(known(&said, "needs a kernel with memory policies"));
    assert_eq!(said, format!("true set_mempolicy {}", libc::EINVAL));
}
