//! Masked and read-only paths (R5, S15, S16). Done before the root is switched: the host's /dev/null is proved and bound
//! by descriptor, the image's is never looked at (CVE-2025-31133).

use super::mounts::new_filesystem;
use crate::error::{Code, Context, Error, Result};
use crate::files::{is_dir, node, open_place};
use hull_plan::{Attributes, Plan};
use hull_rooted::Root;
use hull_sys::errno::{EACCES, ENOENT, ENOTDIR};
use hull_sys::fs::FileType;
use hull_sys::mount::{MOUNT_ATTR_RDONLY, MountAttr, mount_setattr, move_mount, open_tree_fd};
use std::os::fd::{AsFd, OwnedFd};

/// Applies all masks and read-only paths of `plan`.
pub fn apply(root: &Root, plan: &Plan) -> Result<()> {
    for (index, path) in plan.readonly_paths.iter().enumerate() {
        make_readonly(root, path).map_err(|error| {
            error.within(format!("read-only path {path}")).field(format!("/linux/readonlyPaths/{index}"))
        })?;
    }
    let mut covers = Covers::default();
    for (index, path) in plan.masked_paths.iter().enumerate() {
        if plan.masked_paths[..index].contains(path) {
            continue;
        }
        mask(root, path, &mut covers).map_err(|error| {
            error.within(format!("can't mask path {path:?}")).field(format!("/linux/maskedPaths/{index}"))
        })?;
    }
    Ok(())
}

/// What lies over masked paths, made when first needed.
#[derive(Default)]
struct Covers {
    directory: Option<OwnedFd>,
    null: Option<OwnedFd>,
}

fn mask(root: &Root, path: &str, covers: &mut Covers) -> Result<()> {
    let Some(target) = open_existing(root, path)? else { return Ok(()) };
    if is_dir(target.as_fd()).context(|| "look at it")? {
        return match &covers.directory {
            Some(attached) => {
                let cover =
                    open_tree_fd(attached.as_fd(), true, false).context(|| "clone the empty directory")?;
                move_mount(cover.as_fd(), target.as_fd()).context(|| "cover the directory")
            }
            None => {
                let cover = empty_directory()?;
                move_mount(cover.as_fd(), target.as_fd()).context(|| "cover the directory")?;
                // Only an attached mount can be cloned; this one serves for the others.
                covers.directory = Some(cover);
                Ok(())
            }
        };
    }
    let null = match &covers.null {
        Some(null) => null,
        None => covers.null.insert(proved_null()?),
    };
    let cover = open_tree_fd(null.as_fd(), true, false).context(|| "clone /dev/null")?;
    move_mount(cover.as_fd(), target.as_fd()).context(|| "cover the file")
}

fn empty_directory() -> Result<OwnedFd> {
    let options = [("nr_blocks", "1"), ("nr_inodes", "1")];
    let options = options.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    new_filesystem("tmpfs", Some("tmpfs"), &options, None, Attributes { set: MOUNT_ATTR_RDONLY, clear: 0 })
}

/// The host's /dev/null: a character device 1:3.
fn proved_null() -> Result<OwnedFd> {
    let null = open_place(c"/dev/null").context(|| "open /dev/null")?;
    match node(null.as_fd()).context(|| "look at /dev/null")? {
        (FileType::CharacterDevice, (1, 3)) => Ok(null),
        _ => Err(Error::new(Code::Unsupported, "/dev/null of the host is not the null device")),
    }
}

/// Covers the path with itself, read-only with everything below.
fn make_readonly(root: &Root, path: &str) -> Result<()> {
    let Some(target) = open_existing(root, path)? else { return Ok(()) };
    let tree = open_tree_fd(target.as_fd(), true, true).context(|| "clone it")?;
    let attr = MountAttr { set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), true, &attr).context(|| "make it read-only")?;
    move_mount(tree.as_fd(), target.as_fd()).context(|| "attach it")
}

/// Missing paths are skipped, as the specification says.
fn open_existing(root: &Root, path: &str) -> Result<Option<OwnedFd>> {
    match root.open(path) {
        Ok(target) => Ok(Some(target)),
        Err(error) if error.is(ENOENT) || error.is(ENOTDIR) || error.is(EACCES) => Ok(None),
        Err(error) => Err(error).context(|| "open it"),
    }
}
