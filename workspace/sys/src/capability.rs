//! Capability sets of the calling thread (capabilities(7)).

use crate::Result;
use crate::raw::{check_unit, prctl};

/// Three of the five sets, bit N for capability N.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// Those the kernel checks.
    pub effective: u64,
    /// Those that may be made effective.
    pub permitted: u64,
    /// Those kept over execve by files that ask for them, and by the ambient set.
    pub inheritable: u64,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two halves.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The calling thread's sets.
pub fn get() -> Result<CapabilitySets> {
    let header = Header { version: VERSION, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: version 3 means two halves, which is what the second pointer has room for.
    let returned = unsafe { libc::syscall(libc::SYS_capget, &raw const header, halves.as_mut_ptr()) };
    check_unit("capget", returned)?;
    let whole = |part: fn(&Half) -> u32| u64::from(part(&halves[0])) | u64::from(part(&halves[1])) << 32;
    Ok(CapabilitySets {
        effective: whole(|half| half.effective),
        permitted: whole(|half| half.permitted),
        inheritable: whole(|half| half.inheritable),
    })
}

/// Replaces the calling thread's sets; `EPERM` for what is neither permitted nor bounded.
pub fn set(sets: &CapabilitySets) -> Result<()> {
    let header = Header { version: VERSION, pid: 0 };
    let halves = [0u32, 32].map(|shift| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    });
    // SAFETY: version 3 means two halves, which is what the second pointer is to.
    let returned = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
    check_unit("capset", returned)
}

/// True when the bounding set has `cap`; `EINVAL` for a number the kernel does not know.
pub fn bounding_has(cap: u8) -> Result<bool> {
    Ok(prctl(libc::PR_CAPBSET_READ, [cap.into(), 0, 0, 0])? == 1)
}

/// Takes `cap` out of the bounding set, for good; needs `CAP_SETPCAP`.
pub fn bounding_drop(cap: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, [cap.into(), 0, 0, 0]).map(drop)
}

/// The highest capability number this kernel knows.
pub fn last_capability() -> u8 {
    // The search starts at the newest one that was ever added (5.9): most kernels answer in two calls.
    const NEWEST: u8 = 40;
    let known = |cap: &u8| bounding_has(*cap).is_ok();
    if known(&NEWEST) {
        // 63 is the most the structure can hold.
        return (NEWEST..64).take_while(|cap| *cap == NEWEST || known(cap)).last().unwrap_or(NEWEST);
    }
    // Every kernel knows number 0.
    (0..NEWEST).rev().find(known).unwrap_or(0)
}

/// Adds `cap` to the ambient set; `EPERM` unless it is permitted and inheritable.
pub fn ambient_raise(cap: u8) -> Result<()> {
    let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
    prctl(libc::PR_CAP_AMBIENT, [raise, cap.into(), 0, 0]).map(drop)
}

/// True when the ambient set has `cap`.
pub fn ambient_has(cap: u8) -> Result<bool> {
    let is_set = libc::PR_CAP_AMBIENT_IS_SET as libc::c_ulong;
    Ok(prctl(libc::PR_CAP_AMBIENT, [is_set, cap.into(), 0, 0])? == 1)
}

/// Empties the ambient set.
pub fn ambient_clear() -> Result<()> {
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    prctl(libc::PR_CAP_AMBIENT, [clear, 0, 0, 0]).map(drop)
}
