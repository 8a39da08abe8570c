//! The socket on which the runtime hands over a container's terminal.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hull_sys::errno::{EAGAIN, ECONNREFUSED};
use hull_sys::event::{Epoll, EventFlags};
use hull_sys::{SysError, fd, socket};

/// Longest path that fits into a socket address, with its end mark.
const PATH_LIMIT: usize = 107;
/// The socket's name in its directory.
const NAME: &str = "s";

/// A listening socket in a directory that only we may enter; both go away with it.
#[derive(Debug)]
pub struct ConsoleSocket {
    /// Readable while something is to be done: holds the listener, or the one that has connected.
    poll: Epoll,
    listener: OwnedFd,
    /// A runtime that has connected and sent nothing yet.
    connection: Option<OwnedFd>,
    directory: PathBuf,
    opened: std::fs::File,
}

impl ConsoleSocket {
    /// Makes one under `base`, or under the system's run directory where there is no base.
    pub fn new(base: &Path, name: &str) -> Result<Self, std::io::Error> {
        let directory = if base.is_absolute() {
            make_anew(&base.join(format!("pty-{name}")))?
        } else {
            make_in_run(name)?
        };
        let made = Self::listen(&directory);
        if made.is_err() {
            // Empty and ours; the listener's own error is the one to report.
            let _ = std::fs::remove_dir(&directory);
        }
        let (opened, listener, poll) = made?;
        Ok(Self { poll, listener, connection: None, directory, opened })
    }

    fn listen(directory: &Path) -> Result<(std::fs::File, OwnedFd, Epoll), std::io::Error> {
        let opened = std::fs::File::open(directory)?;
        let listener = socket::listen_stream_at(opened.as_fd(), NAME)?;
        fd::set_nonblocking(listener.as_fd(), true)?;
        let poll = Epoll::new(1)?;
        poll.add(listener.as_fd(), 0, EventFlags::IN)?;
        Ok((opened, listener, poll))
    }

    /// Where the runtime connects to, while this lives. A bundle's path may be too long for the address of a socket (those of
    /// pods are): then it is by way of our descriptor.
    pub fn path(&self) -> PathBuf {
        let path = self.directory.join(NAME);
        if path.as_os_str().len() <= PATH_LIMIT {
            return path;
        }
        // Our number as procfs counts, whose pid namespace may be another.
        let own = std::fs::read_link("/proc/self").unwrap_or_else(|_| std::process::id().to_string().into());
        Path::new("/proc").join(own).join("fd").join(self.opened.as_raw_fd().to_string()).join(NAME)
    }

    /// What to wait on.
    pub fn readable(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }

    /// Takes the terminal's master from a runtime that has connected and sent it; `None` while none has. Waits for nobody.
    pub fn receive(&mut self) -> Result<Option<OwnedFd>, SysError> {
        loop {
            let connection = match self.connection.take() {
                Some(connection) => connection,
                None => match socket::accept(self.listener.as_fd()) {
                    Ok(connection) => self.turn_to(connection)?,
                    Err(error) if error.is(EAGAIN) => return Ok(None),
                    Err(error) => return Err(error),
                },
            };
            let mut name = [0; 4096];
            match socket::recv_with_fds(connection.as_fd(), &mut name, 1) {
                Ok(received) => {
                    if let Some(master) = received.fds.into_iter().next() {
                        fd::set_nonblocking(master.as_fd(), true)?;
                        return Ok(Some(master));
                    }
                }
                Err(error) if error.is(EAGAIN) => {
                    self.connection = Some(connection);
                    return Ok(None);
                }
                // It is gone, as is one that sent no terminal.
                Err(_) => {}
            }
            drop(connection);
            self.poll.add(self.listener.as_fd(), 0, EventFlags::IN)?;
        }
    }

    /// Waits for what a runtime sends, and for no other meanwhile.
    fn turn_to(&self, connection: OwnedFd) -> Result<OwnedFd, SysError> {
        fd::set_nonblocking(connection.as_fd(), true)?;
        self.poll.add(connection.as_fd(), 1, EventFlags::IN)?;
        self.poll.remove(self.listener.as_fd())?;
        Ok(connection)
    }
}

fn make(directory: &Path) -> Result<PathBuf, std::io::Error> {
    std::fs::DirBuilder::new().mode(0o700).create(directory)?;
    Ok(directory.to_owned())
}

/// Makes it in the place of one that is left of somebody who was killed.
fn make_anew(directory: &Path) -> Result<PathBuf, std::io::Error> {
    match make(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            remove_stale(directory)?;
            make(directory)
        }
        made => made,
    }
}

/// Removes a directory and the socket in it, unless somebody listens there.
fn remove_stale(directory: &Path) -> Result<(), std::io::Error> {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
    // A link would lead to a socket that is none of ours.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, directory, flags, Mode::empty())?;
    match socket::connect_stream_at(opened.as_fd(), NAME) {
        Ok(_) => return Err(std::io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.is(ECONNREFUSED) => unlinkat(&opened, NAME, AtFlags::empty())?,
        // There may be none; what else is there keeps the directory.
        Err(_) => {}
    }
    std::fs::remove_dir(directory)
}

/// Makes a directory that nobody else has; one that was killed may have left some under our number.
fn make_in_run(name: &str) -> Result<PathBuf, std::io::Error> {
    const TRIES: u32 = 1000;
    let base = run_directory();
    let own = std::process::id();
    let mut made = Err(std::io::ErrorKind::AlreadyExists.into());
    for number in 0..TRIES {
        made = make(&base.join(format!("hull-pty-{own}-{name}-{number}")));
        if !made.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists) {
            break;
        }
    }
    made
}

/// A directory with a short path in which we may make another.
fn run_directory() -> PathBuf {
    match std::env::var("XDG_RUNTIME_DIR") {
        Ok(directory) if directory.starts_with('/') && directory.len() < PATH_LIMIT / 2 => {
            PathBuf::from(directory)
        }
        _ if hull_sys::identity::effective_uid() == 0 => PathBuf::from("/run"),
        _ => PathBuf::from("/tmp"),
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // Ours alone; whatever cannot be removed lies in a private directory of the bundle.
        let _ = std::fs::remove_file(self.directory.join(NAME));
        let _ = std::fs::remove_dir(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    /// Hands a pipe's end over as a runtime does its terminal.
    fn hand_over(stream: &UnixStream) {
        let (read, _write) = fd::pipe().unwrap();
        socket::send_with_fds(stream.as_fd(), b"/dev/ptmx", &[read.as_fd()]).unwrap();
    }

    fn is_readable(console: &ConsoleSocket) -> bool {
        socket::poll_in(console.readable(), std::time::Instant::now()).unwrap()
    }

    #[test]
    fn runtime_that_sends_nothing_is_not_waited_for() {
        let place = std::env::temp_dir().join(format!("hull-console-{}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        let mut console = ConsoleSocket::new(&place, "init").unwrap();
        assert!(console.receive().unwrap().is_none() && !is_readable(&console));
        let silent = UnixStream::connect(console.path()).unwrap();
        let mut senseless = UnixStream::connect(console.path()).unwrap();
        assert!(is_readable(&console));
        assert!(console.receive().unwrap().is_none());
        assert!(!is_readable(&console), "it would be looked at again and again");
        drop(silent);
        senseless.write_all(b"no terminal").unwrap();
        assert!(is_readable(&console) && console.receive().unwrap().is_none());
        let runtime = UnixStream::connect(console.path()).unwrap();
        assert!(is_readable(&console) && console.receive().unwrap().is_none());
        hand_over(&runtime);
        assert!(is_readable(&console) && console.receive().unwrap().is_some());
        drop(console);
        std::fs::remove_dir(&place).unwrap();
    }

    #[test]
    fn bundles_with_long_paths_have_sockets_of_their_own() {
        let place = std::env::temp_dir().join(format!("hull-console-long-{}", std::process::id()));
        let bundles = ["a", "b"].map(|letter| place.join(letter.repeat(100)));
        let mut consoles = bundles.map(|bundle| {
            std::fs::create_dir_all(&bundle).unwrap();
            ConsoleSocket::new(&bundle, "init").unwrap()
        });
        let runtimes = consoles.each_ref().map(|console| {
            assert!(console.path().as_os_str().len() <= PATH_LIMIT);
            UnixStream::connect(console.path()).unwrap()
        });
        for (console, runtime) in consoles.iter_mut().zip(&runtimes).rev() {
            assert!(console.receive().unwrap().is_none());
            hand_over(runtime);
            assert!(console.receive().unwrap().is_some());
        }
        drop(consoles);
        // What is left is empty.
        for letter in ["a", "b"] {
            std::fs::remove_dir(place.join(letter.repeat(100))).unwrap();
        }
        std::fs::remove_dir(&place).unwrap();
    }

    #[test]
    fn socket_of_one_that_was_killed_is_replaced_and_one_that_is_listened_on_is_not() {
        let place = std::env::temp_dir().join(format!("hull-console-stale-{}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        let mut console = ConsoleSocket::new(&place, "init").unwrap();
        let second = ConsoleSocket::new(&place, "init");
        assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        assert!(console.receive().unwrap().is_none(), "it listens still");
        // Killed: the socket is closed, its file stays.
        let directory = console.directory.clone();
        console.directory = place.join("none");
        drop(console);
        assert!(directory.join(NAME).exists());
        let console = ConsoleSocket::new(&place, "init").unwrap();
        UnixStream::connect(console.path()).unwrap();
        drop(console);
        std::os::unix::fs::symlink("/", &directory).unwrap();
        assert!(ConsoleSocket::new(&place, "init").is_err());
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn sockets_without_a_bundle_are_told_apart() {
        let sockets = [(); 2].map(|()| ConsoleSocket::new(Path::new(""), "exec").unwrap());
        assert_ne!(sockets[0].path(), sockets[1].path());
        let paths = sockets.each_ref().map(ConsoleSocket::path);
        drop(sockets);
        assert!(!paths.iter().any(|path| path.parent().unwrap().exists()));
    }
}
