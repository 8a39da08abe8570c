//! What a container has from outside, in CRIU's words: mounts, namespaces, streams, control groups.
//!
//! The names of things are those that runc gives them, so that the images of one can be restored by the other.

use super::messages::{CgroupRoot, JoinNamespace};
use crate::error::{Error, Result};
use crate::files;
use crate::root::cgroups::MountEntry as CgroupEntry;
use hull_plan::{MountSource, NamespaceKind, Plan};
use hull_rooted::{Root, mountinfo::MountEntry};
use hull_sys::fs::FileType;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// What a masked file shows.
const NULL: &str = "/dev/null";

/// Majors of devices that no mount of the container is asked about: memory devices, such as the null device.
const MEMORY: u32 = 1;

/// Where things are in the container: targets of the configuration may lead through links of the image.
pub struct Places<'a> {
    /// The root file system on the host.
    pub rootfs: &'a str,
    /// Its handle.
    pub root: &'a Root,
}

impl Places<'_> {
    /// The path that the kernel shows for `target`.
    fn of(&self, target: &str) -> String {
        let Ok(Some(found)) = self.root.find(target) else { return target.to_owned() };
        let link = hull_rooted::Proc::open(hull_rooted::View::Processes)
            .and_then(|proc| proc.fd_link(found.as_fd()));
        let below = link.ok().and_then(|path| hull_plan::path_below(path.to_str()?, self.rootfs));
        below.filter(|path| path.starts_with('/')).unwrap_or_else(|| target.to_owned())
    }
}

/// Mounts of a running container that are not its own, by its table of mounts.
pub fn dumped_mounts(plan: &Plan, places: &Places<'_>, table: &[MountEntry]) -> Vec<String> {
    let shown = |path: &str| table.iter().any(|entry| entry.mount_point == Path::new(path));
    let place = |target: &str| if shown(target) { target.to_owned() } else { places.of(target) };
    let own = |path: String| format!("mnt[{path}]:{path}");
    let mut external = Vec::new();
    for mount in &plan.mounts {
        match &mount.source {
            MountSource::Bind { .. } => {
                external.extend(Some(place(&mount.target)).filter(|path| shown(path)).map(own))
            }
            MountSource::Cgroup if !plan.entry.has_own(NamespaceKind::Cgroup) => {
                external.extend(hierarchies_below(&place(&mount.target), table).map(own));
            }
            _ => {}
        }
    }
    let masked = plan.masked_paths.iter().map(|path| place(path)).filter(|path| is_null(path, table));
    external.extend(masked.map(|path| format!("mnt[{path}]:{NULL}")));
    let bound = plan.devices.iter().map(|device| device.path.clone()).filter(|path| shown(path));
    external.extend(bound.map(own));
    external.dedup();
    external
}

fn hierarchies_below(target: &str, table: &[MountEntry]) -> impl Iterator<Item = String> {
    table
        .iter()
        .filter(move |entry| entry.fs_type.starts_with("cgroup") && entry.mount_point.starts_with(target))
        .map(|entry| entry.mount_point.display().to_string())
}

fn is_null(path: &str, table: &[MountEntry]) -> bool {
    table.iter().any(|entry| entry.mount_point == Path::new(path) && entry.root.ends_with("null"))
}

/// Where they are found at a restore.
pub fn restored_mounts(plan: &Plan, places: &Places<'_>, cgroups: &[CgroupEntry]) -> Vec<String> {
    let mut external = vec![format!("mnt[{NULL}]:{NULL}")];
    let mut add = |target: &str, source: &str| {
        external.push(format!("mnt[{target}]:{source}"));
        let place = places.of(target);
        if place != target {
            external.push(format!("mnt[{place}]:{source}"));
        }
    };
    for mount in &plan.mounts {
        match &mount.source {
            MountSource::Bind { path, .. } => add(&mount.target, path),
            MountSource::Cgroup if !plan.entry.has_own(NamespaceKind::Cgroup) => {
                cgroups.iter().for_each(|entry| add(&entry.target_below(&mount.target), entry.host_path()));
            }
            _ => {}
        }
    }
    plan.devices.iter().for_each(|device| add(&device.path, &device.path));
    external
}

/// The name of a namespace that a dump leaves to the outside, and a restore is given.
pub const fn outside_name(kind: NamespaceKind) -> Option<&'static str> {
    match kind {
        NamespaceKind::Network => Some("extRootNetNS"),
        NamespaceKind::Pid => Some("extRootPidNS"),
        _ => None,
    }
}

/// Joined namespaces that stay out of a dump: `inode_of` gives the number of the container's.
pub fn dumped_namespaces(
    plan: &Plan,
    inode_of: impl Fn(NamespaceKind) -> Result<u64>,
) -> Result<Vec<String>> {
    let outside = plan.entry.join.iter().filter_map(|join| Some((join.kind, outside_name(join.kind)?)));
    outside.map(|(kind, name)| Ok(format!("{}[{}]:{name}", kind.proc_name(), inode_of(kind)?))).collect()
}

/// Namespaces that CRIU joins by itself.
pub fn joined_namespaces(plan: &Plan) -> Result<Vec<JoinNamespace>> {
    let joined = plan.entry.join.iter().filter(|join| outside_name(join.kind).is_none());
    joined
        .map(|join| match join.kind {
            NamespaceKind::Cgroup => {
                Err(Error::new(crate::error::Code::Unsupported, "criu cannot join a cgroup namespace")
                    .field(format!("{}/path", join.field)))
            }
            kind => Ok(JoinNamespace { kind: kind.proc_name().to_owned(), path: join.path.clone() }),
        })
        .collect()
}

/// What the standard streams of the first process are, from outside: the pipes that it was created with, and files that
/// no mount of the container shows. A stream that is neither has an empty name.
pub fn dumped_streams(pid: i32, created_with: &[String], table: &[MountEntry]) -> Vec<String> {
    (0..=2).map(|number| stream(pid, number, created_with, table).unwrap_or_default()).collect()
}

fn stream(pid: i32, number: i32, created_with: &[String], table: &[MountEntry]) -> Option<String> {
    let path = PathBuf::from(format!("/proc/{pid}/fd/{number}"));
    let link = std::fs::read_link(&path).ok()?.into_os_string().into_string().ok()?;
    if link.starts_with("pipe:") {
        return created_with.contains(&link).then_some(link);
    }
    let file = files::open_place(path.as_path()).ok()?;
    let stat = hull_sys::fs::fstat(file.as_fd()).ok()?;
    let nameable = match files::file_type(&stat) {
        FileType::RegularFile | FileType::Fifo => true,
        FileType::CharacterDevice => files::numbers(stat.st_rdev).0 == MEMORY,
        _ => false,
    };
    let information = files::read_text(format!("/proc/{pid}/fdinfo/{number}").as_str()).ok()?;
    let mount: u64 =
        information.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    let inside = table.iter().any(|entry| entry.id == mount);
    (nameable && !inside).then(|| format!("file[{mount:x}:{:x}]", stat.st_ino))
}

/// The control groups of a process (`/proc/PID/cgroup`, cgroups(7)), one entry for each controller.
pub fn cgroup_roots(table: &str) -> Vec<CgroupRoot> {
    let lines = table.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    lines
        .flat_map(|(controllers, path)| {
            controllers.split(',').map(|controller| CgroupRoot {
                controller: Some(controller.to_owned()),
                path: path.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_has_its_path_and_version_2_an_empty_name() {
        let roots = cgroup_roots("4:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/d\n");
        let found: Vec<_> = roots
            .iter()
            .map(|root| (root.controller.as_deref().unwrap_or("?"), root.path.as_str()))
            .collect();
        assert_eq!(found, [("cpu", "/a"), ("cpuacct", "/a"), ("name=systemd", "/b:c"), ("", "/d")]);
    }
}
