//! What the host's control groups look like: pure parsing of mountinfo and /proc/self/cgroup (cgroups(7), proc(5)).

use serde::{Deserialize, Serialize};

use crate::Place;

/// How the host's control groups are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Version 1 hierarchies only.
    V1,
    /// Version 1 hierarchies with controllers, and a version 2 tree beside them.
    Hybrid,
    /// One version 2 tree.
    V2,
}

/// Interface version of one hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// `cgroup` file system.
    V1,
    /// `cgroup2` file system.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Interface version.
    pub version: Version,
    /// Kernel's name: `cpu,cpuacct`, `name=systemd`; empty for version 2. As in /proc/self/cgroup.
    pub name: String,
    /// Controllers that can be used there.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount_point: String,
    /// The caller's own group, below the mount point; `None` when it lies outside of what is mounted.
    pub own: Option<String>,
}

/// Everything the plan needs to know about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Each hierarchy once, in mount order.
    pub hierarchies: Vec<Hierarchy>,
    /// The control group of the caller's own systemd user manager; see [`crate::Hierarchies::ask_user_manager`].
    pub user_manager: Option<String>,
}

impl Facts {
    /// Reads the hierarchies from the text of /proc/self/mountinfo and /proc/self/cgroup. Version 2 controllers are
    /// not in there: see [`Facts::set_v2_controllers`].
    pub fn parse(mountinfo: &str, self_cgroup: &str) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            let Some(own) = own_group(&mount, self_cgroup) else { continue };
            let name = own.0;
            if hierarchies.iter().any(|known| known.name == name && known.version == mount.version) {
                continue;
            }
            hierarchies.push(Hierarchy {
                version: mount.version,
                controllers: controllers_in(&name, mount.version),
                name,
                mount_point: mount.point,
                own: below(&mount.root, &own.1),
            });
        }
        Self { hierarchies, user_manager: None }
    }

    /// The hierarchies that a container has directories in; of version 2 without controllers.
    pub(crate) fn of_places<'a>(places: impl Iterator<Item = &'a Place>) -> Self {
        let hierarchy = |place: &Place| Hierarchy {
            version: place.version,
            name: place.hierarchy.clone(),
            controllers: controllers_in(&place.hierarchy, place.version),
            mount_point: place.mount_point.clone(),
            own: None,
        };
        Self { hierarchies: places.map(hierarchy).collect(), user_manager: None }
    }

    /// Stores the text of the version 2 tree's `cgroup.controllers`.
    pub fn set_v2_controllers(&mut self, text: &str) {
        for hierarchy in self.hierarchies.iter_mut().filter(|h| h.version == Version::V2) {
            hierarchy.controllers = text.split_ascii_whitespace().map(str::to_owned).collect();
        }
    }

    /// The layout; `None` when no control groups are mounted.
    pub fn layout(&self) -> Option<Layout> {
        let v1 = self.hierarchies.iter().any(|h| h.version == Version::V1 && !h.controllers.is_empty());
        let v2 = self.hierarchies.iter().any(|h| h.version == Version::V2);
        match (v1, v2) {
            (true, true) => Some(Layout::Hybrid),
            (true, false) => Some(Layout::V1),
            (false, true) => Some(Layout::V2),
            (false, false) => None,
        }
    }

    /// Index of the hierarchy that has `controller`, version 1 first (a controller is in one of them only).
    pub fn index_of(&self, controller: &str) -> Option<usize> {
        self.hierarchies.iter().position(|h| h.controllers.iter().any(|c| c == controller))
    }

    /// Index of the version 2 tree.
    pub fn v2(&self) -> Option<usize> {
        self.hierarchies.iter().position(|h| h.version == Version::V2)
    }
}

/// A line of mountinfo that mounts control groups.
struct Mount {
    version: Version,
    root: String,
    point: String,
    options: Vec<String>,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut back = back.split(' ');
        let version = match back.next()? {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => return None,
        };
        let options = back.nth(1)?.split(',').map(str::to_owned).collect();
        let mut front = front.split(' ').skip(3);
        Some(Self { version, root: unescape(front.next()?), point: unescape(front.next()?), options })
    }
}

/// Undoes mountinfo's octal escapes (`\040` for a blank).
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Finds the line of /proc/self/cgroup that belongs to `mount`: (name of the hierarchy, path of the caller's group).
fn own_group(mount: &Mount, self_cgroup: &str) -> Option<(String, String)> {
    self_cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, name, path) = (fields.next()?, fields.next()?, fields.next()?);
        let matches = match mount.version {
            Version::V2 => id == "0" && name.is_empty(),
            Version::V1 => !name.is_empty() && name.split(',').all(|c| mount.options.iter().any(|o| o == c)),
        };
        matches.then(|| (name.to_owned(), path.to_owned()))
    })
}

fn controllers_in(name: &str, version: Version) -> Vec<String> {
    match version {
        Version::V2 => Vec::new(),
        Version::V1 => name.split(',').filter(|c| !c.starts_with("name=")).map(str::to_owned).collect(),
    }
}

/// The caller's group as seen below a mount of `root`: inside a container that shares the host's cgroup namespace,
/// only the container's own subtree is mounted.
fn below(root: &str, own: &str) -> Option<String> {
    if own.split('/').any(|part| part == "..") {
        return None;
    }
    let rest = if root == "/" { own } else { own.strip_prefix(root)? };
    match rest {
        "" => Some("/".to_owned()),
        rest if rest.starts_with('/') => Some(rest.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/a,name=systemd
35 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate
36 31 0:32 / /mnt/second\\040memory rw - cgroup cgroup rw,memory
";
    const HYBRID_OWN: &str = "4:name=systemd:/\n3:memory:/limited/job\n2:cpu,cpuacct:/\n0::/side\n";

    fn hybrid() -> Facts {
        let mut facts = Facts::parse(HYBRID_MOUNTS, HYBRID_OWN);
        facts.set_v2_controllers("hugetlb\n");
        facts
    }

    #[test]
    fn each_hierarchy_is_found_once_with_the_callers_group() {
        let found: Vec<_> = hybrid()
            .hierarchies
            .into_iter()
            .map(|h| (h.name, h.mount_point, h.own.unwrap_or_default()))
            .collect();
        let expected = [
            ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/"),
            ("memory", "/sys/fs/cgroup/memory", "/limited/job"),
            ("name=systemd", "/sys/fs/cgroup/systemd", "/"),
            ("", "/sys/fs/cgroup/unified", "/side"),
        ];
        assert_eq!(found, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    }

    #[test]
    fn controllers_are_looked_up_in_their_hierarchy() {
        let facts = hybrid();
        let found =
            ["cpu", "cpuacct", "memory", "hugetlb", "net_cls", "name=systemd"].map(|c| facts.index_of(c));
        assert_eq!(found, [Some(0), Some(0), Some(1), Some(3), None, None]);
        assert_eq!(facts.v2(), Some(3));
    }

    #[test]
    fn layout_follows_from_the_mounts() {
        let v2 = "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let v1 = "30 1 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let named = "31 1 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let own = "3:name=systemd:/\n2:pids:/\n0::/\n";
        let layout = |mounts: &str| Facts::parse(mounts, own).layout();
        assert_eq!(layout(v2), Some(Layout::V2));
        assert_eq!(layout(v1), Some(Layout::V1));
        assert_eq!(layout(&format!("{v1}{v2}")), Some(Layout::Hybrid));
        assert_eq!(layout(&format!("{named}{v2}")), Some(Layout::V2));
        assert_eq!(layout(""), None);
    }

    #[test]
    fn a_mounted_subtree_shows_the_callers_group_from_its_root() {
        let cases = [
            ("/", "/a", Some("/a")),
            ("/docker/id", "/docker/id", Some("/")),
            ("/docker/id", "/docker/id/sub", Some("/sub")),
            ("/docker/id", "/docker/idle", None),
            ("/docker/id", "/other", None),
            ("/", "/../outside", None),
        ];
        for (root, own, expected) in cases {
            assert_eq!(below(root, own).as_deref(), expected, "{root} {own}");
        }
    }

    #[test]
    fn escapes_in_mount_points_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\04"), r"/a\04");
    }
}
