//! Where a process's cgroup is: one directory on v2, one for each controller on v1.

use std::collections::BTreeMap;
use std::io::Error;
use std::path::{Path, PathBuf};

use crate::bundle::read_limited;

const ROOT: &str = "/sys/fs/cgroup";
/// `f_type` of cgroup v2 (linux/magic.h).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The directories of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// By controller (`memory`, `cpuacct` ...).
    V1(BTreeMap<String, PathBuf>),
    /// The one directory.
    V2(PathBuf),
}

impl Place {
    /// Finds the cgroup of `pid`.
    pub fn of(pid: u32) -> Result<Self, Error> {
        let text = read_limited(Path::new(&format!("/proc/{pid}/cgroup")), 1 << 20)?;
        Ok(Self::parse(&String::from_utf8_lossy(&text), is_unified()))
    }

    /// Reads `/proc/PID/cgroup`; with `unified` only its v2 line counts, else only the others.
    fn parse(text: &str, unified: bool) -> Self {
        let mut controllers = BTreeMap::new();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (parts.next(), parts.next()) else { continue };
            let path = path.trim_start_matches('/');
            if names.is_empty() {
                if unified {
                    return Self::V2(Path::new(ROOT).join(path));
                }
                continue;
            }
            for name in names.split(',').filter(|name| !name.starts_with("name=")) {
                controllers.insert(name.to_owned(), Path::new(ROOT).join(name).join(path));
            }
        }
        Self::V1(controllers)
    }
}

fn is_unified() -> bool {
    rustix::fs::statfs(ROOT).is_ok_and(|found| u64::try_from(found.f_type) == Ok(CGROUP2_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_and_v2_lines_are_read_for_their_own_layout() {
        let text = "12:cpu,cpuacct:/a/b\n3:memory:/a/b\n2:name=systemd:/x\n0::/u\n";
        let Place::V1(found) = Place::parse(text, false) else { panic!("not v1") };
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["cpu", "cpuacct", "memory"]);
        assert_eq!(found["cpuacct"], Path::new("/sys/fs/cgroup/cpuacct/a/b"));
        assert_eq!(Place::parse(text, true), Place::V2("/sys/fs/cgroup/u".into()));
    }
}
