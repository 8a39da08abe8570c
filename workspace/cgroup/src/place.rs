//! Where the container's directories are: pure path rules (config-linux.md, "cgroups path").

use serde::{Deserialize, Serialize};

use crate::{Facts, Hierarchy, Refusal, Version};

const FIELD: &str = "/linux/cgroupsPath";
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;

/// The container's directory in one hierarchy; what `state.json` and the journal keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Interface version of the hierarchy.
    pub version: Version,
    /// Kernel's name of the hierarchy: `cpu,cpuacct`, `name=systemd`; empty for version 2.
    pub hierarchy: String,
    /// Where the hierarchy is mounted.
    pub mount_point: String,
    /// The directory below the mount point: `/a/b`, never `/`, without `.`, `..` or empty parts.
    pub path: String,
}

impl Place {
    /// The directory's path on the host.
    pub fn host_path(&self) -> String {
        format!("{}{}", self.mount_point.trim_end_matches('/'), self.path)
    }

    /// True when the hierarchy has this controller (or is the version 2 tree, asked for by the empty name).
    pub fn has(&self, controller: &str) -> bool {
        self.hierarchy
            .split(',')
            .any(|name| name == controller || name.strip_prefix("name=") == Some(controller))
    }
}

/// Decides the directory of container `id` in each hierarchy.
///
/// - an absolute `path` is below the mount point;
/// - a relative one is below a place that does not depend on who calls as root: the mount point. A rootless caller
///   may write below its own group only, so that is the place then;
/// - without one the directory is named by `id`, beside or below the caller's own group (see [`home`]).
///
/// # Errors
/// A path with `..`, a NUL byte, a part longer than a file name, or nothing but slashes.
pub(crate) fn places(
    path: Option<&str>,
    id: &str,
    rootless: bool,
    facts: &Facts,
) -> Result<Vec<Place>, Refusal> {
    let wanted = path.filter(|path| !path.is_empty());
    let inner = normal(wanted.unwrap_or(id))?;
    let below_mount = wanted.is_some_and(|path| path.starts_with('/') || !rootless);
    Ok(facts
        .hierarchies
        .iter()
        .map(|hierarchy| Place {
            version: hierarchy.version,
            hierarchy: hierarchy.name.clone(),
            mount_point: hierarchy.mount_point.clone(),
            path: if below_mount { inner.clone() } else { format!("{}{inner}", home(hierarchy)) },
        })
        .collect())
}

/// The group below which a container without a path is put, without a slash at its end: the caller's own in version 1,
/// so that a limited caller cannot escape its limits; its parent in version 2, since a group with processes cannot
/// hand out controllers (cgroup-v2.rst, "no internal process").
fn home(hierarchy: &Hierarchy) -> &str {
    let own = hierarchy.own.as_deref().unwrap_or("/");
    match hierarchy.version {
        Version::V1 => own.trim_end_matches('/'),
        Version::V2 => own.rsplit_once('/').map_or("", |(parent, _)| parent),
    }
}

/// Brings a path to the form `/a/b`.
fn normal(path: &str) -> Result<String, Refusal> {
    let refuse = |reason: &str| Err(Refusal::new(FIELD, format!("{path:?}: {reason}")));
    let mut out = String::with_capacity(path.len() + 1);
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return refuse("\"..\" is not allowed in a cgroup path");
        }
        if part.len() > NAME_MAX || part.contains(['\0', '\n']) {
            return refuse("a part of it cannot be a directory name");
        }
        out.push('/');
        out.push_str(part);
    }
    match out.len() {
        0 => refuse("names the root of the hierarchy"),
        length if length > PATH_MAX => refuse("too long"),
        _ => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts::parse(
            "1 0 0:1 / /cg/memory rw - cgroup c rw,memory\n2 0 0:2 / /cg/unified rw - cgroup2 c rw\n",
            "2:memory:/own/m\n0::/own/u\n",
        )
    }

    #[test]
    fn the_directory_follows_from_path_and_id() {
        let cases = [
            (Some("/a/b"), false, ["/a/b", "/a/b"]),
            (Some("//a/./b/"), false, ["/a/b", "/a/b"]),
            (Some("/a"), true, ["/a", "/a"]),
            (Some("a/b"), false, ["/a/b", "/a/b"]),
            (Some("a/b"), true, ["/own/m/a/b", "/own/a/b"]),
            (None, false, ["/own/m/id", "/own/id"]),
            (Some(""), true, ["/own/m/id", "/own/id"]),
        ];
        for (path, rootless, expected) in cases {
            let found = places(path, "id", rootless, &facts()).unwrap();
            assert_eq!([&found[0].path, &found[1].path], expected, "{path:?} rootless={rootless}");
        }
    }

    #[test]
    fn a_path_cannot_climb_or_be_the_root() {
        let long = format!("/{}", "x".repeat(256));
        let cases = [
            ("/../a", "\"..\" is not allowed"),
            ("a/../../b", "\"..\" is not allowed"),
            ("..", "\"..\" is not allowed"),
            ("/", "root of the hierarchy"),
            ("/./", "root of the hierarchy"),
            ("/a\nb", "cannot be a directory name"),
            (long.as_str(), "cannot be a directory name"),
        ];
        for (path, reason) in cases {
            let refusal = places(Some(path), "id", false, &facts()).unwrap_err();
            assert_eq!(refusal.field, "/linux/cgroupsPath");
            assert!(refusal.reason.contains(reason), "{path:?}: {}", refusal.reason);
        }
    }

    #[test]
    fn a_place_knows_its_controllers_and_its_host_path() {
        let place = Place {
            version: Version::V1,
            hierarchy: "cpu,cpuacct".into(),
            mount_point: "/sys/fs/cgroup/cpu,cpuacct".into(),
            path: "/a".into(),
        };
        assert_eq!(place.host_path(), "/sys/fs/cgroup/cpu,cpuacct/a");
        assert_eq!(["cpu", "cpuacct", "memory", ""].map(|c| place.has(c)), [true, true, false, false]);
        let side = Place { version: Version::V2, hierarchy: String::new(), ..place };
        assert!(side.has(""));
    }
}
