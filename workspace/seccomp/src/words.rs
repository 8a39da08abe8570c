//! Numbers of the kernel's seccomp interface (`linux/seccomp.h`).

/// Ends the process (`SECCOMP_RET_KILL_PROCESS`).
pub const KILL_PROCESS: u32 = 0x8000_0000;
/// Ends the thread (`SECCOMP_RET_KILL_THREAD`).
pub const KILL_THREAD: u32 = 0;
/// Sends SIGSYS (`SECCOMP_RET_TRAP`).
pub const TRAP: u32 = 0x0003_0000;
/// Fails the call with the errno in the low 16 bits (`SECCOMP_RET_ERRNO`).
pub const ERRNO: u32 = 0x0005_0000;
/// Asks the listener (`SECCOMP_RET_USER_NOTIF`).
pub const NOTIFY: u32 = 0x7fc0_0000;
/// Asks the tracer, with the message in the low 16 bits (`SECCOMP_RET_TRACE`).
pub const TRACE: u32 = 0x7ff0_0000;
/// Logs the call and lets it pass (`SECCOMP_RET_LOG`).
pub const LOG: u32 = 0x7ffc_0000;
/// Lets the call pass (`SECCOMP_RET_ALLOW`).
pub const ALLOW: u32 = 0x7fff_0000;

/// `SECCOMP_FILTER_FLAG_LOG`: the kernel logs every action but allow.
pub const FLAG_LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: no speculative store bypass mitigation.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: `seccomp(2)` returns the listener's descriptor.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: a call that the listener has read can only be ended by a fatal signal.
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Instructions the kernel takes in one program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// The part of an action word that is not data (`SECCOMP_RET_ACTION_FULL`).
pub(crate) const ACTION: u32 = 0xffff_0000;
pub(crate) const EPERM: u32 = 1;
pub(crate) const ENOSYS: u32 = 38;

/// Returns the stricter of two action words, as the kernel ranks them between filters (`seccomp(2)`, "Seccomp filter").
pub(crate) fn stricter(one: u32, other: u32) -> u32 {
    // The rank is the action part as a signed number: kill process is the smallest one.
    let rank = |word: u32| (word & ACTION).cast_signed();
    if rank(other) < rank(one) { other } else { one }
}
