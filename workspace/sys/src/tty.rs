//! Terminals and pseudo terminals.

use crate::raw::{check_fd, check_unit};
use crate::{Result, SysError};
use rustix::termios::{OptionalActions, OutputModes, Termios, Winsize, tcgetattr, tcsetattr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Lets the other end of the pseudo terminal be opened.
pub fn unlock_pty(master: BorrowedFd<'_>) -> Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: the argument is a pointer to an int that outlives the call.
    let returned =
        unsafe { libc::syscall(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    check_unit("ioctl(TIOCSPTLCK)", returned)
}

/// Opens the other end through the master alone, without any path (`TIOCGPTPEER`, 4.13), CLOEXEC and not as
/// controlling terminal.
pub fn pty_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::c_long::from(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
    // SAFETY: the argument is a number.
    let returned = unsafe { libc::syscall(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    check_fd("ioctl(TIOCGPTPEER)", returned)
}

/// The number N of `/dev/pts/N`; `ENOTTY` when `master` is no pseudo terminal's master.
pub fn pty_number(master: BorrowedFd<'_>) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the argument is a pointer to an unsigned int that outlives the call.
    let returned =
        unsafe { libc::syscall(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    check_unit("ioctl(TIOCGPTN)", returned)?;
    Ok(number)
}

/// Makes the terminal the controlling one of the caller's session, which it must lead.
pub fn make_controlling(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the argument is a number: 0, not to be taken from another session.
    let returned = unsafe { libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), libc::TIOCSCTTY, 0usize) };
    check_unit("ioctl(TIOCSCTTY)", returned)
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// The terminal's size.
pub fn window_size(terminal: BorrowedFd<'_>) -> Result<WindowSize> {
    let size = rustix::termios::tcgetwinsize(terminal).map_err(SysError::from_rustix("ioctl(TIOCGWINSZ)"))?;
    Ok(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Sets the terminal's size; its foreground process group gets SIGWINCH.
pub fn set_window_size(terminal: BorrowedFd<'_>, size: WindowSize) -> Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).map_err(SysError::from_rustix("ioctl(TIOCSWINSZ)"))
}

/// True when `fd` is a terminal.
pub fn is_tty(fd: BorrowedFd<'_>) -> bool {
    rustix::termios::isatty(fd)
}

/// Leaves newlines of the output as they are, as terminal managers expect from a container's terminal.
pub fn clear_onlcr(terminal: BorrowedFd<'_>) -> Result<()> {
    let mut settings = settings(terminal)?;
    settings.output_modes.remove(OutputModes::ONLCR);
    apply(terminal, &settings)
}

/// A terminal in raw mode; dropping it restores what was before.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

/// Puts the terminal into raw mode: no echo, no lines, no signals from keys. Its output is still processed, since
/// a relayed container leaves newlines as they are.
pub fn raw_mode(terminal: BorrowedFd<'_>) -> Result<RawMode> {
    let before = settings(terminal)?;
    let terminal = terminal.try_clone_to_owned().map_err(|error| {
        SysError::new("fcntl(F_DUPFD_CLOEXEC)", error.raw_os_error().unwrap_or(libc::EMFILE))
    })?;
    let mut raw = before.clone();
    raw.make_raw();
    raw.output_modes = before.output_modes;
    apply(std::os::fd::AsFd::as_fd(&terminal), &raw)?;
    Ok(RawMode { terminal, before })
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone away meanwhile has nothing to restore.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

fn settings(terminal: BorrowedFd<'_>) -> Result<Termios> {
    tcgetattr(terminal).map_err(SysError::from_rustix("tcgetattr"))
}

fn apply(terminal: BorrowedFd<'_>, settings: &Termios) -> Result<()> {
    tcsetattr(terminal, OptionalActions::Now, settings).map_err(SysError::from_rustix("tcsetattr"))
}
