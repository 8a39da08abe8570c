//! Version 2: handing controllers down the tree to the container's directory (cgroup-v2.rst, "controlling
//! controllers").

use std::os::fd::AsFd;

use hull_sys::SysError;
use hull_sys::fs::OFlags;

use crate::error::{CgroupError, RefusedLimit, Result};
use crate::hierarchies::{open_below, read_whole};
use crate::node::{Node, write_file};
use crate::{Layout, Write};

const SUBTREE: &str = "cgroup.subtree_control";

/// Enables what the limits need, and on a pure version 2 host everything else that is `offered`, for statistics.
///
/// # Errors
/// A controller that a limit needs does not arrive at the container's directory.
pub(crate) fn controllers(
    layout: Layout,
    offered: &[String],
    writes: &[Write],
    nodes: &[Node],
) -> Result<()> {
    let Some((index, node)) = nodes.iter().enumerate().find(|(_, node)| node.is_v2()) else { return Ok(()) };
    let Some(dir) = node.dir()? else { return Ok(()) };
    let writes = writes.iter().filter(|write| write.place == index && write.controller != "cgroup");
    let needed: Vec<_> = writes.map(|write| (write.controller.as_str(), write.field.as_str())).collect();
    let wanted: Vec<&str> = match layout {
        Layout::V2 => offered.iter().map(String::as_str).collect(),
        Layout::V1 | Layout::Hybrid => needed.iter().map(|(controller, _)| *controller).collect(),
    };
    let missing = absent(&wanted, &available(dir, node)?);
    if missing.is_empty() {
        return Ok(());
    }
    let refused = hand_down(node, &missing)?;
    let still = absent(&missing, &available(dir, node)?);
    match needed.iter().find(|(controller, _)| still.contains(controller)) {
        None => Ok(()),
        Some((controller, field)) => Err(explain(controller, field, node, refused)),
    }
}

fn available(dir: std::os::fd::BorrowedFd<'_>, node: &Node) -> Result<String> {
    let file = "cgroup.controllers";
    let name = |source| CgroupError::File { action: "read", path: node.path_of(file), source };
    read_whole(dir, file).map_err(name)
}

fn absent<'a>(wanted: &[&'a str], available: &str) -> Vec<&'a str> {
    let there = |name: &str| available.split_ascii_whitespace().any(|found| found == name);
    wanted.iter().copied().filter(|name| !there(name)).collect()
}

/// The first refusal met on the way down: the directory's path, and why.
type Refused = Option<(String, SysError)>;

/// Writes to every directory from the mount point to the parent. What is refused may be enabled there already, or
/// not be needed: the outcome decides, not the answers.
fn hand_down(node: &Node, controllers: &[&str]) -> Result<Refused> {
    let all: Vec<_> = controllers.iter().map(|name| format!("+{name}")).collect();
    let path = node.below_root();
    let parents = std::iter::once("").chain(path.match_indices('/').map(|(end, _)| &path[..end]));
    let mut refused = None;
    for parent in parents {
        let opened;
        let dir = if parent.is_empty() {
            node.root()?
        } else {
            let name = |source| CgroupError::File { action: "open", path: node.place.host_path(), source };
            opened = open_below(node.root()?, parent, OFlags::PATH | OFlags::DIRECTORY).map_err(name)?;
            opened.as_fd()
        };
        if write_file(dir, SUBTREE, &all.join(" ")).is_ok() {
            continue;
        }
        // All or nothing: one that cannot be had must not take the others with it.
        for one in &all {
            if let Err(error) = write_file(dir, SUBTREE, one) {
                refused.get_or_insert((format!("{}/{parent}", node.place.mount_point), error));
            }
        }
    }
    Ok(refused)
}

fn explain(controller: &str, field: &str, node: &Node, refused: Refused) -> CgroupError {
    let (dir, source) =
        refused.unwrap_or_else(|| (node.place.host_path(), SysError::new("write", libc::ENOENT)));
    let hint = match source.errno {
        libc::EBUSY => {
            " (processes in that group stand in the way: only groups without any can hand out controllers)"
        }
        libc::EOPNOTSUPP => " (the group is threaded; a container needs a domain group)",
        libc::ENOENT => " (no parent hands the controller down)",
        libc::EACCES | libc::EPERM | libc::EROFS => {
            " (the controller must be delegated: Delegate= of the unit)"
        }
        _ => "",
    };
    CgroupError::Limit(Box::new(RefusedLimit {
        controller: controller.to_owned(),
        file: format!("{}/{SUBTREE}", dir.trim_end_matches('/')),
        value: format!("+{controller}"),
        field: field.to_owned(),
        hint: hint.to_owned(),
        source,
    }))
}
