//! Where a process is in the control groups of this machine, and what their files say.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Version 1 hierarchies only.
    V1,
    /// Version 1 hierarchies, with a version 2 tree beside them.
    Hybrid,
    /// Version 2 only.
    V2,
    /// Not at all.
    None,
}

impl fmt::Display for Layout {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str(match self {
            Self::V1 => "cgroup v1",
            Self::Hybrid => "cgroup hybrid",
            Self::V2 => "cgroup v2",
            Self::None => "no cgroup",
        })
    }
}

impl Layout {
    /// Looks at the mounts of this process.
    #[must_use]
    pub fn here() -> Self {
        let one = mounts().iter().any(|mount| mount.controllers.is_some());
        let two = mounts().iter().any(|mount| mount.controllers.is_none());
        match (one, two) {
            (true, true) => Self::Hybrid,
            (true, false) => Self::V1,
            (false, true) => Self::V2,
            (false, false) => Self::None,
        }
    }
}

/// A mounted hierarchy; version 2 has no list of controllers.
struct Mount {
    target: PathBuf,
    root: String,
    controllers: Option<Vec<String>>,
}

fn mounts() -> Vec<Mount> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let (front, back): (Vec<&str>, Vec<&str>) = (front.split(' ').collect(), back.split(' ').collect());
    let controllers = match *back.first()? {
        "cgroup2" => None,
        "cgroup" => Some(back.get(2)?.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some(Mount { target: front.get(4)?.into(), root: (*front.get(3)?).to_owned(), controllers })
}

/// The directory of a process in the hierarchy of `controller`: version 1's if there is one, else version 2's when it
/// has the controller.
#[must_use]
pub fn directory(pid: i32, controller: &str) -> Option<PathBuf> {
    let own =
        |mount: &Mount| mount.controllers.as_ref().is_some_and(|all| all.iter().any(|one| one == controller));
    let (old, new): (Vec<Mount>, Vec<Mount>) =
        mounts().into_iter().partition(|mount| mount.controllers.is_some());
    if let Some(mount) = old.iter().find(|mount| own(mount)) {
        return below(mount, &membership(pid, |field| field.split(',').any(|one| one == controller))?);
    }
    let unified = below(new.first()?, &membership(pid, str::is_empty)?)?;
    let offered = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
    let core = ["cgroup", "devices", "freezer"].contains(&controller);
    (core || offered.split_whitespace().any(|one| one == controller)).then_some(unified)
}

/// Whether the machine has a controller, and in which version.
#[must_use]
pub fn version(controller: &str) -> Option<u8> {
    let all = mounts();
    if all
        .iter()
        .any(|mount| mount.controllers.as_ref().is_some_and(|list| list.iter().any(|one| one == controller)))
    {
        return Some(1);
    }
    let unified = all.iter().find(|mount| mount.controllers.is_none())?;
    let offered = fs::read_to_string(unified.target.join("cgroup.controllers")).unwrap_or_default();
    offered.split_whitespace().any(|one| one == controller).then_some(2)
}

/// The path of a process in the hierarchy whose controllers `fits`.
fn membership(pid: i32, fits: impl Fn(&str) -> bool) -> Option<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let line = table.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    line.filter(|line| line.len() == 3).find(|line| fits(line[1])).map(|line| line[2].to_owned())
}

fn below(mount: &Mount, path: &str) -> Option<PathBuf> {
    let rest = if mount.root == "/" { path } else { path.strip_prefix(&mount.root)? };
    Some(mount.target.join(rest.trim_start_matches('/')))
}

/// The control groups that carry exactly this name, or systemd's form of it, in every hierarchy.
#[must_use]
pub fn named(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for mount in mounts() {
        search(&mount.target, id, 0, &mut found);
    }
    found
}

fn search(directory: &Path, id: &str, depth: u8, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == id || name == format!("conformance-{id}.scope") {
            found.push(entry.path());
        } else if depth < 2 {
            search(&entry.path(), id, depth + 1, found);
        }
    }
}

/// A directory of this name above the hierarchies, where no path of a control group may lead.
#[must_use]
pub fn outside(name: &str) -> Option<PathBuf> {
    let above = ["/sys/fs/cgroup", "/sys/fs"].map(|parent| Path::new(parent).join(name));
    // On version 2 the first of them is in the hierarchy itself.
    above.into_iter().find(|path| path.exists() && !in_hierarchy(path))
}

/// Whether the kernel makes the files of a directory; a runtime may have written some of these names elsewhere.
fn in_hierarchy(path: &Path) -> bool {
    mounts().iter().any(|mount| path.starts_with(&mount.target))
}

/// Removes what a runtime has left of a container's control groups, and what it took for one outside of them.
pub fn remove_named(id: &str) {
    // Nothing but what this suite has named is ever removed.
    if id.contains(crate::lab::PREFIX) {
        named(id).iter().for_each(|directory| remove_tree(directory));
        // What stays here is on a file system of the machine, and its name tells whose it is.
        let _ = outside(id).map(fs::remove_dir_all);
    }
}

fn remove_tree(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // One that is busy stays, and the next case's names differ.
    let _ = fs::remove_dir(directory);
}
