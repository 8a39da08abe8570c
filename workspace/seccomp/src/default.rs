//! hull's own profile: what a program in a container needs, and nothing that opens the kernel to it.
//!
//! Everything not named here fails with `EPERM` (newer calls: `ENOSYS`). Left out for everyone: the key ring (not
//! namespaced), `userfaultfd` and `io_uring_*` (large attack surfaces; io_uring also gets around this filter), `kexec_*`,
//! `swapon`, `nfsservctl`, `_sysctl`, `uselib`, `ustat`, `vm86` and other relics, `move_pages`, `migrate_pages` (memory of
//! others). A name that an ABI lacks has no effect there, so one table serves all of them.

use alloc::{string::ToString, vec, vec::Vec};

use oci_spec::runtime::{
    Capability, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArgBuilder,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use crate::{
    arch::Arch,
    words::{ENOSYS, EPERM},
};

mod table;

/// Flags of `clone(2)` that make namespaces (`CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`,
/// `NEWNET`).
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Execution domains that change nothing a program could use against the kernel: Linux, its 32-bit uname, either with
/// `UNAME26`, and the question which one it is (`personality(2)`).
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Socket families as masks and values of the low word, which is all the kernel reads: 0 to 47 without 38 (`AF_ALG`, the
/// kernel's crypto) and 40 (`AF_VSOCK`, which reaches the hypervisor and is not namespaced). A greater-than comparison
/// would let 38 pass with a bit set in the high word.
const SOCKET_FAMILIES: [(u64, u64); 7] = [
    (0xffff_ffe0, 0),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
];

/// `SYS_SOCKET`, the first argument of `socketcall(2)` that makes a socket.
const SOCKETCALL_SOCKET: u64 = 1;

/// Returns the default profile for a container whose capabilities are those that `holds` says.
///
/// It means the same to every runtime: no two of its rules overlap with different actions.
pub fn default_profile(holds: impl Fn(Capability) -> bool, native: Arch) -> LinuxSeccomp {
    let mut rules: Vec<LinuxSyscall> = table::ALWAYS.iter().map(|(_, names)| allow(names)).collect();
    rules.extend(PERSONALITIES.iter().map(|value| allow_if("personality", Operator::ScmpCmpEq, *value, 0)));
    rules.extend(
        SOCKET_FAMILIES
            .iter()
            .map(|(mask, family)| allow_if("socket", Operator::ScmpCmpMaskedEq, *mask, *family)),
    );
    // Its arguments are out of sight: the calls on sockets pass, making one does not.
    rules.push(allow_if("socketcall", Operator::ScmpCmpNe, SOCKETCALL_SOCKET, 0));
    rules.extend(threads(holds(Capability::SysAdmin)));
    let granted = table::BY_CAPABILITY.iter().filter(|(capability, _, _)| holds(*capability));
    rules.extend(granted.map(|(_, _, names)| allow(names)));

    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(Action::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(native.family().iter().map(|abi| abi.name()).collect()))
        .set_flags(None)
        .set_listener_path(None)
        .set_listener_metadata(None)
        .set_syscalls(Some(rules));
    profile
}

/// Lets 32-bit x86 programs make sockets through `socketcall(2)`, of any family.
///
/// Programs of 32-bit distributions whose C library supports kernels before 4.3 know no other way, so an image for
/// that platform needs it; for all others it would be a hole in the rule about socket families.
pub fn allow_socketcall(profile: &mut LinuxSeccomp) {
    let mut rules = profile.syscalls().clone().unwrap_or_default();
    rules.push(allow("socketcall"));
    profile.set_syscalls(Some(rules));
}

/// Returns the rules for `clone` and `clone3`: without the capability no namespaces.
///
/// A filter cannot see the flags of `clone3`. C libraries take `ENOSYS` as a sign to use `clone`.
fn threads(admin: bool) -> Vec<LinuxSyscall> {
    if admin {
        return vec![allow("clone clone3")];
    }
    let mut clone3 = rule("clone3", Action::ScmpActErrno);
    clone3.set_errno_ret(Some(ENOSYS));
    vec![allow_if("clone", Operator::ScmpCmpMaskedEq, NEW_NAMESPACES, 0), clone3]
}

fn allow(names: &str) -> LinuxSyscall {
    rule(names, Action::ScmpActAllow)
}

/// Allows a call when its first argument compares so.
fn allow_if(name: &str, operator: Operator, value: u64, second: u64) -> LinuxSyscall {
    let argument =
        LinuxSeccompArgBuilder::default().index(0_usize).value(value).value_two(second).op(operator);
    let mut rule = allow(name);
    rule.set_args(Some(vec![argument.build().expect("every member has a value")]));
    rule
}

fn rule(names: &str, action: Action) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split(' ').map(ToString::to_string).collect())
        .set_action(action)
        .set_errno_ret(None)
        .set_args(None);
    rule
}
