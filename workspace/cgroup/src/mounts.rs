//! What a mount of type `cgroup` shows inside of the container (pure).

use crate::{CgroupPlan, Layout, Version};

/// One hierarchy to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMount {
    /// Interface version: `cgroup` or `cgroup2` is the file system's type.
    pub version: Version,
    /// Directory below the mount's target, as on the host (`cpu,cpuacct`, `systemd`); empty for version 2, which is
    /// mounted on the target itself.
    pub name: String,
    /// Version 1's mount option that picks the hierarchy: `cpu,cpuacct`, `name=systemd`. Empty for version 2.
    pub option: String,
    /// The container's own directory on the host, for a bind mount where the container shares the host's cgroup
    /// namespace.
    pub host_path: String,
    /// Names that link to `name`: the single controllers of hierarchies with several.
    pub links: Vec<String>,
}

/// Lists what to mount, in the host's order. A hybrid host shows its version 1 hierarchies, as runc does: a program
/// that finds them does not look for the version 2 tree.
pub fn mount_plan(plan: &CgroupPlan) -> Vec<CgroupMount> {
    let version = if plan.layout == Layout::V2 { Version::V2 } else { Version::V1 };
    plan.places.iter().filter(|place| place.version == version).map(mount).collect()
}

fn mount(place: &crate::Place) -> CgroupMount {
    let base = place.mount_point.rsplit('/').next().unwrap_or_default();
    let controllers: Vec<_> = place.hierarchy.split(',').collect();
    let several = place.version == Version::V1 && controllers.len() > 1;
    let links = if several {
        controllers.iter().filter(|name| **name != base).copied().collect()
    } else {
        Vec::new()
    };
    CgroupMount {
        version: place.version,
        name: if place.version == Version::V1 { base.to_owned() } else { String::new() },
        option: place.hierarchy.clone(),
        host_path: place.host_path(),
        links: links.into_iter().map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CgroupSpec, Facts, Manager, plan};

    fn planned(mounts: &str, own: &str) -> Vec<CgroupMount> {
        let spec = CgroupSpec {
            path: Some("/a"),
            id: "i",
            resources: None,
            rootless: false,
            manager: Manager::Files,
        };
        mount_plan(&plan(&spec, &Facts::parse(mounts, own)).unwrap())
    }

    #[test]
    fn version_1_hierarchies_are_mounted_with_links_for_their_controllers() {
        let mounts = planned(
            "1 0 0:1 / /cg/cpu,cpuacct rw - cgroup c rw,cpu,cpuacct\n2 0 0:2 / /cg/systemd rw - cgroup c rw,name=systemd\n\
             3 0 0:3 / /cg/unified rw - cgroup2 c rw\n",
            "2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n",
        );
        let found: Vec<_> = mounts
            .iter()
            .map(|m| (m.name.as_str(), m.option.as_str(), m.host_path.as_str(), m.links.len()))
            .collect();
        assert_eq!(
            found,
            [
                ("cpu,cpuacct", "cpu,cpuacct", "/cg/cpu,cpuacct/a", 2),
                ("systemd", "name=systemd", "/cg/systemd/a", 0)
            ]
        );
        assert_eq!(mounts[0].links, ["cpu", "cpuacct"]);
    }

    #[test]
    fn version_2_is_mounted_on_the_target() {
        let mounts = planned("3 0 0:3 / /cg rw - cgroup2 c rw\n", "0::/\n");
        let expected = CgroupMount {
            version: Version::V2,
            name: String::new(),
            option: String::new(),
            host_path: "/cg/a".to_owned(),
            links: Vec::new(),
        };
        assert_eq!(mounts, [expected]);
    }
}
