//! The build's private place: a mount namespace of its own and in it a memory file system that nobody else sees.
//!
//! Mounts of steps, secrets and runtime configurations live there; the kernel takes all of it away when the process and
//! the guard of its steps have ended, however they end.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hull_image::Store;
use hull_sys::namespace::unshare;
use hull_sys::{CloneFlags, mount};

use crate::directory::open_directory;
use crate::error::{Error, Result};

/// The private place.
pub(crate) struct Workspace {
    directory: PathBuf,
    count: AtomicU64,
}

impl Workspace {
    /// Leaves the host's mount namespace; before any thread is started.
    pub(crate) fn enter() -> Result<()> {
        unshare(CloneFlags::NEWNS).map_err(Error::system("leave the mount namespace"))?;
        // Mounts that the host makes and takes away are still followed, ours stay here.
        mount::set_propagation_path("/", true, mount::MS_SLAVE).map_err(Error::system("keep mounts private"))
    }

    /// Mounts the memory file system below the store's temporary directory.
    pub(crate) fn make(store: &Store) -> Result<Self> {
        let directory = store.temporary_path();
        fs::create_dir(&directory).map_err(Error::io("make directory", &directory))?;
        let tmpfs = tmpfs("0700", Some(64 << 20))?;
        let place = open_directory(&directory)?;
        mount::move_mount(tmpfs.as_fd(), place.as_fd()).map_err(Error::system("mount the workspace"))?;
        let state = directory.join("state");
        fs::create_dir(&state).map_err(Error::io("make directory", &state))?;
        Ok(Self { directory, count: AtomicU64::new(0) })
    }

    /// A new directory in it.
    pub(crate) fn directory(&self) -> Result<PathBuf> {
        let path = self.directory.join(self.count.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path).map_err(Error::io("make directory", &path))?;
        Ok(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// Where the runtime keeps its state.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // The namespace ends with the process; what a failure leaves is collected with the store's temporary files.
        let _ = mount::unmount_detach(self.directory.as_path());
        drop(fs::remove_dir(&self.directory));
    }
}

/// A detached memory file system that is never swapped where the kernel can promise that.
pub(crate) fn tmpfs(mode: &str, size: Option<u64>) -> Result<OwnedFd> {
    let context = mount::fsopen("tmpfs").map_err(Error::system("open tmpfs"))?;
    let fd = context.as_fd();
    mount::fsconfig_string(fd, "mode", mode).map_err(Error::system("set the mode of tmpfs"))?;
    if let Some(size) = size {
        mount::fsconfig_string(fd, "size", size.to_string())
            .map_err(Error::system("set the size of tmpfs"))?;
    }
    // Since Linux 6.4; before, memory locked by limits is the best there is.
    let _ = mount::fsconfig_flag(fd, "noswap");
    mount::fsconfig_create(fd).map_err(Error::system("make tmpfs"))?;
    mount::fsmount(fd, 0).map_err(Error::system("mount tmpfs"))
}

/// Shows what `fd` stands for at `path`, which is made: a file or a directory as the source is.
pub(crate) fn attach(fd: BorrowedFd<'_>, is_directory: bool, path: &Path) -> Result<Attached> {
    match is_directory {
        true => fs::create_dir(path).map_err(Error::io("make directory", path))?,
        false => drop(fs::File::create_new(path).map_err(Error::io("create", path))?),
    }
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let place = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .map_err(|e| Error::io("open", path)(e.into()))?;
    match mount::open_tree_fd(fd, true, false) {
        Ok(tree) => mount::move_mount(tree.as_fd(), place.as_fd()),
        // Before Linux 6.15 a detached mount can't be copied, only moved to its place.
        Err(_) => mount::move_mount(fd, place.as_fd()),
    }
    .map_err(Error::system("attach a mount"))?;
    Ok(Attached { path: path.to_owned() })
}

/// A mount that is taken away when dropped.
pub(crate) struct Attached {
    path: PathBuf,
}

impl Attached {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // At worst the mount ends with the namespace.
        let _ = mount::unmount_detach(self.path.as_path());
    }
}
