//! sd_notify(3) for the container's program. It cannot reach the caller's socket, so it gets one of its own; what comes
//! through is that it is ready, with the pid that the caller knows it by.

use crate::error::{Context, Result};
use crate::globals::Globals;
use crate::log::Level;
use crate::state::StateDir;
use hull_plan::{Attributes, MountPlan, MountSource, Plan};
use hull_sys::fs::{OFlags, openat, unlinkat};
use hull_sys::mount::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use hull_sys::poll::wait_any_readable;
use hull_sys::process::Pid;
use hull_sys::socket::{bind_public_datagram_at, send_datagram};
use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Below the state directory, and the name of the socket in there.
const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify.sock";

/// Where the directory is mounted inside.
const INSIDE: &str = "/run/notify";

const VARIABLE: &str = "NOTIFY_SOCKET";

fn callers_socket() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// At create, for a caller that has a socket: a directory for the program's own, mounted in the container and named in
/// its environment.
pub fn prepare(plan: &mut Plan, directory: &StateDir) -> Result<()> {
    let (Some(_), Some(process)) = (callers_socket(), &mut plan.process) else { return Ok(()) };
    let path = directory.path().join(DIRECTORY);
    DirBuilder::new().mode(0o755).create(&path).context(|| format!("make {}", path.display()))?;
    set_variable(&mut process.env, VARIABLE, &format!("{INSIDE}/{SOCKET}"));
    plan.mounts.push(mount_of(&path));
    Ok(())
}

/// For a checkpoint of a container that was given a socket at create: the mount is not in its configuration.
pub fn prepare_again(plan: &mut Plan, directory: &StateDir) {
    let path = directory.path().join(DIRECTORY);
    if path.is_dir() {
        plan.mounts.push(mount_of(&path));
    }
}

/// For a restore: whether the container had a socket when it was saved is not known, so there is a place for one.
/// Nothing listens in there, as the program has been ready long since.
pub fn prepare_place(directory: &StateDir) -> Result<(&'static str, PathBuf)> {
    let path = directory.path().join(DIRECTORY);
    DirBuilder::new().mode(0o755).create(&path).context(|| format!("make {}", path.display()))?;
    Ok((INSIDE, path))
}

fn mount_of(path: &Path) -> MountPlan {
    MountPlan {
        field: "/process/env".to_owned(),
        target: INSIDE.to_owned(),
        source: MountSource::Bind { path: path.display().to_string(), recursive: false },
        attributes: Attributes {
            set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
            clear: 0,
        },
        recursive_attributes: Attributes::default(),
        propagation: Vec::new(),
        copy_up: false,
        id_map: None,
        options: Vec::new(),
    }
}

/// Sets a variable of an environment, in the place of one of that name.
pub fn set_variable(env: &mut Vec<String>, name: &str, value: &str) {
    env.retain(|entry| entry.split_once('=').is_none_or(|(known, _)| known != name));
    env.push(format!("{name}={value}"));
}

/// The program's socket, before it starts.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    caller: PathBuf,
}

impl Listener {
    /// Binds the socket that [`prepare`] announced; none when there was no caller's socket then, or there is none now.
    pub fn bind(directory: &StateDir) -> Result<Option<Self>> {
        let Some(caller) = callers_socket() else { return Ok(None) };
        let Ok(parent) = openat(
            directory.handle().as_fd(),
            DIRECTORY,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW,
            hull_sys::fs::Mode::empty(),
        ) else {
            return Ok(None);
        };
        // What a start left that was killed before it opened the gate.
        let _none = unlinkat(parent.as_fd(), SOCKET);
        // For whoever the program runs as; only the container sees the directory.
        let socket = bind_public_datagram_at(parent.as_fd(), SOCKET).context(|| "make the notify socket")?;
        Ok(Some(Self { socket, caller }))
    }

    /// The socket, to be waited for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads one message; true when the program is ready and the caller was told.
    pub fn hear(&self, pid: Pid) -> Result<bool> {
        let mut message = [0; 4 << 10];
        let length = hull_sys::io::read(self.socket.as_fd(), &mut message)
            .context(|| "read from the notify socket")?;
        if !message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(false);
        }
        let told = format!("READY=1\nMAINPID={}\n", pid.as_raw());
        send_datagram(&self.caller, told.as_bytes())
            .context(|| format!("notify {}", self.caller.display()))?;
        Ok(true)
    }

    /// Waits until the program is ready or has ended. A caller that cannot be told does not end its container.
    pub fn wait(&self, init: BorrowedFd<'_>, pid: Pid, globals: &Globals) {
        let wait = || -> Result<()> {
            loop {
                match wait_any_readable(&[self.fd(), init], None).context(|| "wait for the program")? {
                    Some(0) if !self.hear(pid)? => {}
                    _ => return Ok(()),
                }
            }
        };
        if let Err(error) = wait() {
            globals.log.write(Level::Warning, &error.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::set_variable;

    #[test]
    fn a_variable_is_there_once() {
        let mut env = vec!["A=1".to_owned(), "NOTIFY_SOCKET=/x".to_owned(), "NOTIFY_SOCKETS=2".to_owned()];
        set_variable(&mut env, "NOTIFY_SOCKET", "/y");
        assert_eq!(env, ["A=1", "NOTIFY_SOCKETS=2", "NOTIFY_SOCKET=/y"]);
    }
}
