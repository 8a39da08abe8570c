//! The device programs of a cgroup v2 directory: bpf(2), linux/bpf.h.

use crate::raw::{check, check_fd, check_unit};
use crate::{Result, SysError};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;
/// The kernel attaches at most 64 programs to a directory.
const MOST_PROGRAMS: usize = 64;

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The start of `union bpf_attr` for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// The start of `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// The start of `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// Calls bpf(2) with one of the structures above.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> libc::c_long {
    // SAFETY: the pointer and the size are those of one whole structure of ours, laid out as the command wants it;
    // the callers below keep what its addresses point to alive until the call is over.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) }
}

/// Loads a program (each instruction a `struct bpf_insn` as one number) that decides on accesses to devices.
pub fn load_device_program(instructions: &[u64]) -> Result<OwnedFd> {
    let mut attributes = Load {
        kind: TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len())
            .map_err(|_| SysError::new("bpf", libc::E2BIG))?,
        instructions: instructions.as_ptr().expose_provenance() as u64,
        license: c"Apache-2.0".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    check_fd("bpf", bpf(PROG_LOAD, &mut attributes))
}

/// Attaches a device program to a cgroup v2 directory, beside others or in the place of `replaced`.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attributes = Attach {
        target: number(cgroup),
        program: number(program),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI | replaced.map_or(0, |_| REPLACE),
        replaced: replaced.map_or(0, number),
    };
    check_unit("bpf", bpf(PROG_ATTACH, &mut attributes))
}

/// Detaches a device program from a cgroup v2 directory.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attributes = Attach {
        target: number(cgroup),
        program: number(program),
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
        replaced: 0,
    };
    check_unit("bpf", bpf(PROG_DETACH, &mut attributes))
}

/// Ids of the device programs that are attached to a cgroup v2 directory itself.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut ids = vec![0_u32; MOST_PROGRAMS];
    let mut attributes = Query {
        target: number(cgroup),
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: MOST_PROGRAMS as u32,
        padding: 0,
    };
    check("bpf", bpf(PROG_QUERY, &mut attributes))?;
    ids.truncate(attributes.count as usize);
    Ok(ids)
}

/// The program with this id.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    check_fd("bpf", bpf(PROG_GET_FD_BY_ID, &mut ById { id, next: 0, flags: 0 }))
}

/// An fd as the kernel's structures want it.
fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}
