//! hull's own profile: what it lets pass and what not, and how it compares with that of others.

mod common;

use common::answer;
use hull_seccomp::{
    ALLOW, Arch, ERRNO, Filter, allow_socketcall, compile, default_profile, evaluate, number_of,
};
use hull_testkit::{gate, needs};
use oci_spec::runtime::Capability;
use serde_json::Value;
use std::{collections::BTreeSet, fs};

const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

fn filter(capabilities: &[Capability], native: Arch) -> Filter {
    let profile = default_profile(|capability| capabilities.contains(&capability), native);
    compile(&profile, native).expect("the default profile is good")
}

/// What nobody gets without a capability, or at all.
const REFUSED: &str = "\
        add_key keyctl request_key bpf perf_event_open mount umount2 pivot_root fsopen fsmount open_tree \
        open_tree_attr move_mount mount_setattr setns unshare kexec_load kexec_file_load init_module \
        finit_module delete_module userfaultfd io_uring_setup io_uring_enter io_uring_register reboot \
        swapon swapoff settimeofday clock_settime stime iopl ioperm acct quotactl syslog open_by_handle_at \
        kcmp pidfd_getfd chroot move_pages migrate_pages mbind vhangup nfsservctl vm86 uselib sethostname \
        lookup_dcookie";

#[test]
fn refused_calls_are_refused_on_every_abi() {
    for native in [Arch::X86_64, Arch::Aarch64, Arch::Riscv64] {
        let filter = filter(&[], native);
        assert_eq!(filter.warnings, Vec::<String>::new());
        for abi in native.family() {
            for name in REFUSED.split(' ').filter(|name| number_of(*abi, name).is_some()) {
                assert_eq!(answer(&filter, *abi, name, &[]), EPERM, "{name} on {abi:?}");
            }
            assert_eq!(answer(&filter, *abi, "clone3", &[]), ENOSYS);
            // Calls of x32 alone have numbers above those that all share.
            let newer = if *abi == Arch::X32 { EPERM } else { ENOSYS };
            assert_eq!(answer(&filter, *abi, "listns", &[]), newer, "newer than the profile");
            assert_eq!(answer(&filter, *abi, "openat", &[]), ALLOW);
        }
    }
}

#[test]
fn capability_opens_its_calls() {
    let table = [
        (Capability::SysAdmin, "mount"),
        (Capability::SysAdmin, "unshare"),
        (Capability::SysAdmin, "clone3"),
        (Capability::SysAdmin, "bpf"),
        (Capability::DacReadSearch, "open_by_handle_at"),
        (Capability::SysBoot, "reboot"),
        (Capability::SysChroot, "chroot"),
        (Capability::SysModule, "finit_module"),
        (Capability::SysPacct, "acct"),
        (Capability::SysPtrace, "pidfd_getfd"),
        (Capability::SysRawio, "iopl"),
        (Capability::SysTime, "clock_settime"),
        (Capability::SysTtyConfig, "vhangup"),
        (Capability::SysNice, "mbind"),
        (Capability::Syslog, "syslog"),
        (Capability::Bpf, "bpf"),
        (Capability::Perfmon, "perf_event_open"),
    ];
    for (capability, name) in table {
        assert_ne!(answer(&filter(&[], Arch::X86_64), Arch::X86_64, name, &[]), ALLOW, "{name}");
        assert_eq!(answer(&filter(&[capability], Arch::X86_64), Arch::X86_64, name, &[]), ALLOW, "{name}");
    }
}

#[test]
fn clone_makes_no_namespace_without_the_capability() {
    let plain = filter(&[], Arch::X86_64);
    let admin = filter(&[Capability::SysAdmin], Arch::X86_64);
    // CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET.
    for bit in [17, 25, 26, 27, 28, 29, 30] {
        let flags = [(1 << bit) | 17];
        for abi in [Arch::X86_64, Arch::X86, Arch::X32] {
            assert_eq!(answer(&plain, abi, "clone", &flags), EPERM, "{bit} on {abi:?}");
            assert_eq!(answer(&admin, abi, "clone", &flags), ALLOW);
        }
    }
    // CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS | PARENT_SETTID | CHILD_CLEARTID, a thread.
    assert_eq!(answer(&plain, Arch::X86_64, "clone", &[0x3d_0f00]), ALLOW);
}

#[test]
fn sockets_of_two_families_are_refused_whatever_the_high_word() {
    let filter = filter(&[], Arch::X86_64);
    for abi in [Arch::X86_64, Arch::X86, Arch::X32] {
        for family in 0..48_u64 {
            let word = if family == 38 || family == 40 { EPERM } else { ALLOW };
            assert_eq!(answer(&filter, abi, "socket", &[family]), word, "{family} on {abi:?}");
            assert_eq!(answer(&filter, abi, "socket", &[family | 1 << 32]), word, "{family} on {abi:?}");
        }
        assert_eq!(answer(&filter, abi, "socket", &[48]), EPERM);
    }
}

#[test]
fn socketcall_makes_no_socket_unless_opened() {
    let strict = filter(&[], Arch::X86_64);
    let mut profile = default_profile(|_| false, Arch::X86_64);
    allow_socketcall(&mut profile);
    let open = compile(&profile, Arch::X86_64).unwrap();
    for (selector, word) in [(1, EPERM), (2, ALLOW), (3, ALLOW), (8, ALLOW), (18, ALLOW)] {
        assert_eq!(answer(&strict, Arch::X86, "socketcall", &[selector]), word, "{selector}");
        assert_eq!(answer(&open, Arch::X86, "socketcall", &[selector]), ALLOW, "{selector}");
    }
}

#[test]
fn five_execution_domains_pass() {
    let filter = filter(&[], Arch::X86_64);
    for (persona, word) in [
        (0, ALLOW),
        (8, ALLOW),
        (0x2_0000, ALLOW),
        (0x2_0008, ALLOW),
        (0xffff_ffff, ALLOW),
        (0x4_0000, EPERM),
        (1, EPERM),
        (u64::MAX, EPERM),
    ] {
        assert_eq!(answer(&filter, Arch::X86_64, "personality", &[persona]), word, "{persona:#x}");
    }
}

#[test]
fn every_name_is_known_and_stands_once() {
    let profile = default_profile(|_| true, Arch::X86_64);
    let mut seen = BTreeSet::new();
    for entry in profile.syscalls().as_ref().unwrap().iter().filter(|entry| entry.args().is_none()) {
        for name in entry.names() {
            assert!(Arch::ALL.into_iter().any(|arch| number_of(arch, name).is_some()), "{name}");
            // These come with a capability of their own as well.
            let twice = ["bpf", "perf_event_open", "syslog"].contains(&name.as_str());
            assert!(seen.insert(name.clone()) || twice, "{name}");
        }
    }
    assert!(seen.len() > 380, "{}", seen.len());
}

#[test]
fn program_is_small() {
    let filter = filter(&[], Arch::X86_64);
    assert!(filter.program.len() < 500, "{}", filter.program.len());
    // A call costs a look at the architecture and a search tree.
    let read = [0; 6];
    assert_eq!(evaluate(&filter.program, Arch::X86_64.audit(), 0, &read), ALLOW);
}

/// Returns the names that a profile of an engine's own form allows whatever the arguments and capabilities.
fn allowed_by(path: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(path).expect("read the profile");
    let profile: Value = serde_json::from_str(&text).expect("JSON");
    let entries = profile["syscalls"].as_array().expect("a list");
    let plain = |entry: &&Value| {
        let empty = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
        entry["action"] == "SCMP_ACT_ALLOW" && empty(&entry["args"]) && empty(&entry["includes"]["caps"])
    };
    let names = |entry: &Value| serde_json::from_value::<Vec<String>>(entry["names"].clone()).expect("names");
    entries.iter().filter(plain).flat_map(names).collect()
}

#[test]
fn allowed_calls_are_those_of_the_engines_but_for_known_ones() {
    let path = "/usr/share/containers/seccomp.json";
    needs!(gate::path(path));
    let filter = filter(&[], Arch::X86_64);
    let passes = |name: &str| {
        [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm, Arch::Riscv64].into_iter().find_map(|arch| {
            let native = [Arch::X86_64, Arch::Aarch64, Arch::Riscv64]
                .into_iter()
                .find(|one| one.family().contains(&arch))?;
            let filter = if native == Arch::X86_64 { filter.clone() } else { self::filter(&[], native) };
            number_of(arch, name).map(|_| answer(&filter, arch, name, &[]) == ALLOW)
        })
    };
    let refused: Vec<String> =
        allowed_by(path).into_iter().filter(|name| passes(name) == Some(false)).collect();
    // That package lets namespaces and mounts through (the kernel asks for a capability), the key ring, and the placing
    // of memory; clone3 gets ENOSYS here.
    let on_purpose = [
        "clone3",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "get_mempolicy",
        "keyctl",
        "mbind",
        "mount",
        "mount_setattr",
        "move_mount",
        "open_tree",
        "pidfd_getfd",
        "pivot_root",
        "reboot",
        "set_mempolicy",
        "setns",
        "syslog",
        "umount",
        "umount2",
        "unshare",
    ];
    let surprising: Vec<&String> =
        refused.iter().filter(|name| !on_purpose.contains(&name.as_str())).collect();
    assert_eq!(surprising, Vec::<&String>::new());
}
