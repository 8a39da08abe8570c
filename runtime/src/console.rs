//! The terminal: a pair from the container's own devpts, proved and handled by descriptors only (R4, CVE-2025-52565).

use crate::error::{Code, Context, Error, Result};
use crate::peer;
use hull_rooted::Root;
use hull_sys::fd::dup_onto;
use hull_sys::fs::{self, DEVPTS_SUPER_MAGIC, OFlags};
use hull_sys::mount::{move_mount, open_tree_fd};
use hull_sys::tty;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Where the terminal's master goes.
#[derive(Debug)]
pub struct Destination {
    /// A connected socket.
    pub socket: OwnedFd,
    /// The runtime itself is at its other end, in the foreground.
    pub ours: bool,
    /// How large the caller's terminal is.
    size: Option<tty::WindowSize>,
}

impl Destination {
    /// The runtime itself, which has the other end of `socket`, shows it on the caller's terminal.
    pub fn ourselves(socket: OwnedFd) -> Self {
        Self { socket, ours: true, size: tty::window_size(std::io::stdin().as_fd()).ok() }
    }
}

/// A pseudo-terminal pair.
#[derive(Debug)]
pub struct Console {
    master: OwnedFd,
    slave: OwnedFd,
    number: u32,
}

impl Console {
    /// Opens a pair on the devpts below `root`, with the container's user as owner.
    pub fn open(root: &Root, owner: u32, size: Option<(u16, u16)>) -> Result<Self> {
        let failed = |error: Error| error.code(Code::Console);
        let path = "/dev/pts/ptmx";
        let master = root
            .open_with(path, OFlags::RDWR | OFlags::NOCTTY)
            .context(|| "open /dev/pts/ptmx in the container")
            .map_err(|error| failed(error).hint("the configuration needs a devpts mount on /dev/pts"))?;
        let kind = fs::fs_type(master.as_fd()).context(|| "look at /dev/pts/ptmx").map_err(failed)?;
        if kind != DEVPTS_SUPER_MAGIC {
            return Err(Error::new(
                Code::Console,
                "/dev/pts/ptmx in the container is not on a devpts file system",
            ));
        }
        let open = || -> hull_sys::Result<Self> {
            tty::unlock_pty(master.as_fd())?;
            let slave = tty::pty_peer(master.as_fd())?;
            let number = tty::pty_number(master.as_fd())?;
            // The slave is ours, proved above: the one thing whose owner may be changed.
            fs::fchown(slave.as_fd(), owner, u32::MAX)?;
            if let Some((rows, columns)) = size {
                tty::set_window_size(slave.as_fd(), tty::WindowSize { rows, columns })?;
            }
            Ok(Self { master, slave, number })
        };
        open().context(|| "set up the terminal").map_err(failed)
    }

    /// Binds the slave at /dev/console (D9).
    pub fn bind_at_dev_console(&self, root: &Root) -> Result<()> {
        let bind = |target: OwnedFd| -> hull_sys::Result<()> {
            let tree = open_tree_fd(self.slave.as_fd(), true, false)?;
            move_mount(tree.as_fd(), target.as_fd())
        };
        console_target(root)
            .and_then(|target| bind(target).context(|| "bind the terminal at /dev/console"))
            .map_err(|error| error.code(Code::Console))
    }

    /// Sends the master to whoever waits at `socket`, with its path in the container as the message, as runc does.
    ///
    /// In the foreground newlines are left as they are: the terminal of whoever looks turns them into line ends. That has
    /// to be so before the program writes its first line, and so has the size before it looks for it. A manager behind a
    /// console socket decides for itself.
    pub fn hand_over(&self, to: &Destination) -> Result<()> {
        let prepare = || -> hull_sys::Result<()> {
            if to.ours {
                tty::clear_onlcr(self.slave.as_fd())?;
            }
            to.size.map_or(Ok(()), |size| tty::set_window_size(self.slave.as_fd(), size))
        };
        prepare().context(|| "prepare the terminal").map_err(|error| error.code(Code::Console))?;
        let name = format!("/dev/pts/{}", self.number);
        send_master(to, name.as_bytes(), self.master.as_fd())
    }

    /// Makes the slave standard input, output and error, and the controlling terminal of the session.
    pub fn take_over(self) -> Result<()> {
        let take = || -> hull_sys::Result<()> {
            tty::make_controlling(self.slave.as_fd())?;
            (0..=2).try_for_each(|target| dup_onto(self.slave.as_fd(), target))
        };
        take().context(|| "make the terminal the controlling one").map_err(|error| error.code(Code::Console))
    }
}

/// `/dev/console` itself, made if it is not there. A link of the image could lead the terminal over a file that is to be
/// masked or read-only (CVE-2025-52565), so it is refused.
fn console_target(root: &Root) -> Result<OwnedFd> {
    const PATH: &str = "/dev/console";
    if root.kind_of(PATH).context(|| "look at /dev/console")?.is_none() {
        root.open_or_create_file(PATH).context(|| "make /dev/console")?;
    }
    let target = File::from(root.open_nofollow(PATH).context(|| "open /dev/console")?);
    if target.metadata().context(|| "look at /dev/console")?.is_symlink() {
        return Err(Error::new(Code::Console, "/dev/console of the container is a link")
            .hint("a tmpfs mount on /dev hides what the image has there"));
    }
    Ok(target.into())
}

/// Connects to `--console-socket`, before anything has been done.
pub fn connect(path: &Path) -> Result<Destination> {
    peer::connect(path, &format!("connect to console socket {}", path.display()))
        .map(|socket| Destination { socket, ours: false, size: None })
        .map_err(|error| error.code(Code::Console))
}

/// Sends a terminal's master, under the name that it has in the container.
pub fn send_master(to: &Destination, name: &[u8], master: BorrowedFd<'_>) -> Result<()> {
    peer::send(to.socket.as_fd(), name, &[master], "send the terminal to the console socket")
        .map_err(|error| error.code(Code::Console))
}
