//! The facts about this host that the planner asks for.

use crate::error::{Context, Result};
use crate::files::read_text;
use hull_plan::HostFacts;
use hull_sys::{capability, identity};
use std::fs;
use std::path::Path;

/// Probes the host for the bundle at `bundle`.
pub fn probe(bundle: &Path, rootless: Option<bool>) -> Result<HostFacts> {
    let uid = identity::effective_uid();
    let in_user_namespace = in_user_namespace();
    let last_capability = capability::last_capability();
    Ok(HostFacts {
        rootless: rootless.unwrap_or(uid != 0 || in_user_namespace),
        in_user_namespace,
        uid,
        gid: identity::effective_gid(),
        bounding: bounding(last_capability).context(|| "read the bounding set")?,
        last_capability,
        apparmor: fs::read("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.first() == Some(&b'Y')),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        resctrl: Path::new("/sys/fs/resctrl/info").exists(),
        cgroup_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        bundle: bundle.to_string_lossy().into_owned(),
    })
}

/// True when the caller's user namespace does not map every id to itself (user_namespaces(7)).
fn in_user_namespace() -> bool {
    read_text("/proc/self/uid_map").is_ok_and(|map| {
        let mut fields = map.split_ascii_whitespace();
        (fields.next(), fields.next(), fields.next()) != (Some("0"), Some("0"), Some("4294967295"))
    })
}

/// The bounding set, from the status file: one read in place of a system call for each capability.
fn bounding(last: u8) -> hull_sys::Result<u64> {
    if let Some(bits) = read_text("/proc/self/status").ok().as_deref().and_then(parse_bounding) {
        return Ok(bits);
    }
    let mut bits = 0;
    for number in 0..=last {
        if capability::bounding_has(number)? {
            bits |= 1 << number;
        }
    }
    Ok(bits)
}

fn parse_bounding(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
