//! What the error of a create or restore says where the kernel has killed a process for the memory limit.

use crate::error::{Code, Error};
use hull_cgroup::Cgroup;
use std::fs;

/// Names the limit as the cause, where the kernel has killed `who` for it.
pub fn explain(error: Error, cgroup: &Cgroup, who: &str) -> Error {
    if !had_oom_kill(cgroup) {
        return error;
    }
    let limit = memory_limit(cgroup).map_or_else(String::new, |bytes| format!(" of {bytes} bytes"));
    error
        .code(Code::OutOfMemory)
        .within(format!("{who} was OOM-killed (memory limit{limit} too low?)"))
        .field("/linux/resources/memory/limit")
        .hint("a static program needs about 1 MiB to start")
}

/// True when the kernel killed a process of the container for its memory limit (v1 `memory.oom_control`, 4.13; v2
/// `memory.events`).
fn had_oom_kill(cgroup: &Cgroup) -> bool {
    let count = |file: &str| {
        read(cgroup, file)?
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
    };
    count("memory.oom_control").or_else(|| count("memory.events")).is_some_and(|kills| kills > 0)
}

/// The memory limit in bytes.
fn memory_limit(cgroup: &Cgroup) -> Option<u64> {
    let text = read(cgroup, "memory.limit_in_bytes").or_else(|| read(cgroup, "memory.max"))?;
    text.trim().parse().ok()
}

fn read(cgroup: &Cgroup, file: &str) -> Option<String> {
    let paths = cgroup.saved_paths();
    let place = paths.places.iter().find(|place| place.has("memory") || place.hierarchy.is_empty())?;
    fs::read_to_string(format!("{}/{file}", place.host_path())).ok()
}
