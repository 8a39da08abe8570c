//! `exec --cgroup [CONTROLLERS:]PATH`: a further process in a group below the container's.

use std::os::fd::{AsFd, BorrowedFd};

use hull_sys::SysError;
use hull_sys::fs::OFlags;

use crate::cgroup::{Cgroup, PROCS};
use crate::error::{CgroupError, Result};
use crate::hierarchies::{open_below, read_whole};
use crate::make::attach_hint;
use crate::node::{Node, write_file};

/// Where below the container's directories a further process goes: (controllers, path), where no controllers mean
/// every hierarchy. Paths are without slashes at their ends; empty means the container's own directory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SubPaths(Vec<(Option<String>, String)>);

impl SubPaths {
    /// Reads the values of `--cgroup`.
    ///
    /// # Errors
    /// A path with `..`; a controller that is named twice, or beside a value for all of them.
    pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Self> {
        let mut found: Vec<(Option<String>, String)> = Vec::new();
        for argument in arguments {
            let argument = argument.as_ref();
            let bad = || CgroupError::BadSubPath { path: argument.to_owned() };
            let (controllers, path) = match argument.split_once(':') {
                Some((list, path)) => (list.split(',').map(|name| Some(name.to_owned())).collect(), path),
                None => (vec![None], argument),
            };
            if path.split('/').any(|part| part == "..") || path.contains('\0') {
                return Err(bad());
            }
            for controller in controllers {
                let taken = found.iter().any(|(known, _)| *known == controller || known.is_none());
                if taken || controller.is_none() && !found.is_empty() || controller.as_deref() == Some("") {
                    return Err(bad());
                }
                found.push((controller, path.trim_matches('/').to_owned()));
            }
        }
        Ok(Self(found))
    }

    /// The path that was asked for in one hierarchy; none: nothing was asked there.
    fn of(&self, node: &Node) -> Option<&str> {
        let meant = |name: &Option<String>| name.as_deref().is_none_or(|name| node.place.has(name));
        self.0.iter().find(|(name, _)| meant(name)).map(|(_, path)| path.as_str())
    }
}

impl Cgroup {
    /// Puts a process into the given groups below the container's. Where none is given it goes into the container's own,
    /// or, if that is gone, to the first process `init`. A container of an ordinary user (`rootless`) may never have had
    /// a directory in some hierarchies: for it, one hierarchy where the group is will do.
    ///
    /// # Errors
    /// A controller that the container has no directory for; a group that does not exist, be it because the container's
    /// own is gone: any other place is not the one that was asked for.
    pub fn join_sub(&self, pid: i32, paths: &SubPaths, init: i32, rootless: bool) -> Result<()> {
        for controller in paths.0.iter().filter_map(|(name, _)| name.as_deref()) {
            if !self.nodes.iter().any(|node| node.place.has(controller)) {
                return Err(CgroupError::UnknownController { controller: controller.to_owned() });
            }
        }
        let (mut joined, mut missing) = (false, None);
        for node in &self.nodes {
            match (node.dir()?, paths.of(node)) {
                (Some(dir), path) => {
                    put(pid, node, dir, path.unwrap_or_default())?;
                    joined |= path.is_some();
                }
                (None, Some(path)) => {
                    missing.get_or_insert((node, path));
                }
                (None, None) => match follow_in(node, pid, init) {
                    Err(_) if rootless => {}
                    followed => followed?,
                },
            }
        }
        match missing {
            Some((node, path)) if !(rootless && joined) => {
                Err(refused(pid, node, path)(SysError::new("openat2", libc::ENOENT)))
            }
            _ => Ok(()),
        }
    }

    /// Puts a process where the container's first process `init` is: as [`Cgroup::attach`], but when a version 2
    /// directory takes no processes because the container hands out controllers below it (as systemd does), the
    /// process goes into the group that `init` is in.
    ///
    /// # Errors
    /// As [`Cgroup::attach`].
    pub fn attach_beside(&mut self, pid: i32, init: i32) -> Result<()> {
        match self.attach(pid) {
            Err(CgroupError::Attach { source, .. }) if source.is(libc::EBUSY) => {}
            other => return other,
        }
        let Some(node) = self.v2() else { return Ok(()) };
        let own = group_of(init, node);
        let below = own.as_deref().map_or("", |own| below_in(own, &node.place.path));
        for node in &self.nodes {
            let Some(dir) = node.dir()? else { continue };
            // The other hierarchies of a hybrid host know nothing of groups below this one's.
            put(pid, node, dir, if node.is_v2() { below } else { "" })?;
        }
        Ok(())
    }

    /// Puts a process into the group that `init` is in, in every hierarchy where the container's own directory is gone:
    /// somebody moved `init`, and systemd removes what is empty. The process would stay in its caller's group.
    ///
    /// # Errors
    /// That group cannot be found, or the kernel refuses: the first such refusal, after the other hierarchies had their
    /// turn.
    pub fn follow(&self, pid: i32, init: i32) -> Result<()> {
        let gone = |node: &Node| node.dir().map(|dir| dir.is_none());
        let follow = |node| if gone(node)? { follow_in(node, pid, init) } else { Ok(()) };
        self.nodes.iter().map(follow).fold(Ok(()), Result::and)
    }
}

/// What comes after the container's own path in the one of a group of it; nothing where that is not in there. In front may
/// be what lies above the mount point, which only the caller's cgroup namespace leaves out.
fn below_in<'a>(group: &'a str, own: &str) -> &'a str {
    let after = |(at, found): (usize, &str)| &group[at + found.len()..];
    let mut rests = group.match_indices(own).map(after);
    rests.find(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or_default().trim_matches('/')
}

/// Puts a process into the group `path` below the container's directory; empty: into that one.
fn put(pid: i32, node: &Node, dir: BorrowedFd<'_>, path: &str) -> Result<()> {
    let text = pid.to_string();
    let written = match path {
        "" => write_file(dir, PROCS, &text),
        path => open_below(dir, path, OFlags::DIRECTORY | OFlags::PATH)
            .and_then(|sub| write_file(sub.as_fd(), PROCS, &text)),
    };
    written.map_err(refused(pid, node, path))
}

fn refused(pid: i32, node: &Node, path: &str) -> impl FnOnce(SysError) -> CgroupError {
    let path = node.path_of(path).trim_end_matches('/').to_owned();
    move |source| CgroupError::Attach { pid, path, hint: attach_hint(&source), source }
}

/// Puts a process into the group that `init` is in.
fn follow_in(node: &Node, pid: i32, init: i32) -> Result<()> {
    let path = group_of(init, node).unwrap_or_else(|| node.place.path.clone());
    let below = path.trim_start_matches('/');
    let below = if below.is_empty() { "." } else { below };
    open_below(node.root()?, below, OFlags::DIRECTORY | OFlags::PATH)
        .and_then(|group| write_file(group.as_fd(), PROCS, &pid.to_string()))
        .map_err(|source| {
            let path = format!("{}{path}", node.place.mount_point.trim_end_matches('/'));
            CgroupError::Attach { pid, path, hint: attach_hint(&source), source }
        })
}

/// The group of a process in a node's hierarchy (cgroups(7), "/proc files").
fn group_of(process: i32, node: &Node) -> Option<String> {
    let text = read_whole(hull_sys::CWD, &format!("/proc/{process}/cgroup")).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    lines.find(|(hierarchy, _)| *hierarchy == node.place.hierarchy).map(|(_, path)| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> std::result::Result<SubPaths, String> {
        SubPaths::parse(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_paths_for_all_or_for_some_controllers() {
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(parse(&["/a/b/"]), Ok(SubPaths(vec![(None, "a/b".to_owned())])));
        assert_eq!(
            parse(&["cpu,pids:x", "memory:/"]),
            Ok(SubPaths(vec![
                (some("cpu"), "x".into()),
                (some("pids"), "x".into()),
                (some("memory"), "".into())
            ]))
        );
    }

    #[test]
    fn the_group_below_the_containers_own_is_found_by_whole_names() {
        let cases = [
            ("/a", "/a", ""),
            ("/a/b/c", "/a", "b/c"),
            ("/above/x/a/b", "/a", "b"),
            ("/above/pods/a", "/pods/a", ""),
            ("/other", "/a", ""),
            ("/ab", "/a", ""),
        ];
        for (group, own, below) in cases {
            assert_eq!(below_in(group, own), below, "{group} {own}");
        }
    }

    #[test]
    fn ambiguous_and_climbing_values_are_refused() {
        for bad in [
            &[".."][..],
            &["a/../b"],
            &["cpu:../.."],
            &["a", "b"],
            &["cpu:a", "cpu:b"],
            &["cpu:a", "b"],
            &[":a"],
        ] {
            let text = parse(bad).unwrap_err();
            assert_eq!(text, format!("bad sub cgroup path: {}", bad[bad.len() - 1]));
        }
    }
}
