//! Local sockets, and fds sent over them.

use crate::process::Pid;
use crate::raw::uninterrupted;
use crate::{Result, SysError, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, acceptfrom_with, bind, connect,
    listen, recvmsg, sendmsg, sendto, socket_with, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Mode of a socket that is its user's alone.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The most fds that one message may carry (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// A pair of connected sockets that keep message borders and tell of the other end's closing.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::SEQPACKET)
}

/// A pair of connected stream sockets.
pub fn stream_pair() -> Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::STREAM)
}

fn pair(kind: SocketType) -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(SysError::from_rustix("socketpair"))
}

/// Sends `bytes` as one message with `fds`, at most [`MAX_FDS`] (else `EINVAL`), and gives how many bytes went. A
/// peer that is gone is `EPIPE`, without a signal.
pub fn send_with_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
    if fds.len() > MAX_FDS {
        return Err(SysError::new("sendmsg", libc::EINVAL));
    }
    let message = SendAncillaryMessage::ScmRights(fds);
    let mut space = vec![MaybeUninit::uninit(); if fds.is_empty() { 0 } else { message.size() }];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(message) {
        return Err(SysError::new("sendmsg", libc::EINVAL));
    }
    uninterrupted(|| {
        sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
            .map_err(SysError::from_rustix("sendmsg"))
    })
}

/// What [`recv_with_fds`] got.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the message that are in the buffer now; 0 is the end.
    pub len: usize,
    /// The fds that came with it, CLOEXEC, in the sender's order.
    pub fds: Vec<OwnedFd>,
    /// Bytes or fds did not fit and are lost.
    pub truncated: bool,
}

/// Waits for one message of at most `buffer.len()` bytes and `max_fds` fds.
pub fn recv_with_fds(socket: BorrowedFd<'_>, buffer: &mut [u8], max_fds: usize) -> Result<Received> {
    // As if by cmsg_space!(ScmRights(max_fds)), which wants a constant.
    let none: [BorrowedFd<'_>; 0] = [];
    let header = SendAncillaryMessage::ScmRights(&none).size();
    let size = header + (max_fds.min(MAX_FDS) * size_of::<i32>()).next_multiple_of(size_of::<usize>());
    let mut space = vec![MaybeUninit::uninit(); if max_fds == 0 { 0 } else { size }];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = uninterrupted(|| {
        recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .map_err(SysError::from_rustix("recvmsg"))
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    // The kernel's padding may let in one more than was asked for.
    let too_many = fds.len() > max_fds;
    fds.truncate(max_fds);
    let truncated = too_many || received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Received { len: received.bytes, fds, truncated })
}

/// A listening `SOCK_SEQPACKET` socket at `name` under `dirfd`, mode 0600; `EADDRINUSE` when something is there. Only
/// the name's own length is limited, not the directory's path.
pub fn listen_seqpacket_at(dirfd: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    listen_at(dirfd, name, SocketType::SEQPACKET)
}

/// The same with a stream socket.
pub fn listen_stream_at(dirfd: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    listen_at(dirfd, name, SocketType::STREAM)
}

fn listen_at(dirfd: BorrowedFd<'_>, name: &str, kind: SocketType) -> Result<OwnedFd> {
    let socket = bound_at(dirfd, name, kind)?;
    listen(&socket, 16).map_err(SysError::from_rustix("listen"))?;
    Ok(socket)
}

/// A datagram socket bound at `name` under `dirfd`, for any user who reaches the directory, whatever the umask.
pub fn bind_public_datagram_at(dirfd: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let socket = bound_at(dirfd, name, SocketType::DGRAM)?;
    // By what lies there, were it a link.
    let file = crate::fs::openat(dirfd, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::chmod(path, Mode::from_raw_mode(0o777)).map_err(SysError::from_rustix("chmod"))?;
    Ok(socket)
}

fn bound_at(dirfd: BorrowedFd<'_>, name: &str, kind: SocketType) -> Result<OwnedFd> {
    let socket = unconnected(kind)?;
    // The file gets the mode of the socket's own inode, so it never exists with a wider one.
    rustix::fs::fchmod(&socket, PRIVATE).map_err(SysError::from_rustix("fchmod"))?;
    bind(&socket, &address_at("bind", dirfd, name)?).map_err(SysError::from_rustix("bind"))?;
    Ok(socket)
}

/// Connects to the `SOCK_SEQPACKET` socket at `name` under `dirfd`; `ECONNREFUSED` when nobody listens any more, `EAGAIN`
/// when the listener has not taken the connections that wait already.
pub fn connect_seqpacket_at(dirfd: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let address = address_at("connect", dirfd, name)?;
    let socket = unconnected(SocketType::SEQPACKET)?;
    crate::fd::set_nonblocking(socket.as_fd(), true)?;
    uninterrupted(|| connect(&socket, &address).map_err(SysError::from_rustix("connect")))?;
    crate::fd::set_nonblocking(socket.as_fd(), false)?;
    Ok(socket)
}

/// Connects to the stream socket at `name` under `dirfd`.
pub fn connect_stream_at(dirfd: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let address = address_at("connect", dirfd, name)?;
    connected(SocketType::STREAM, &address)
}

/// Connects to the stream socket at a path of the caller's own choice; `ENAMETOOLONG` beyond 107 bytes, see
/// [`connect_stream_at`] then.
pub fn connect_stream(path: &Path) -> Result<OwnedFd> {
    let address = SocketAddrUnix::new(path).map_err(SysError::from_rustix("connect"))?;
    connected(SocketType::STREAM, &address)
}

/// The same for a peer that may be stuck: neither the connect nor any later send waits longer than `patience`, `EAGAIN`
/// then. A listener that takes nobody holds up whoever connects once its queue is full.
pub fn connect_stream_within(path: &Path, patience: Duration) -> Result<OwnedFd> {
    let address = SocketAddrUnix::new(path).map_err(SysError::from_rustix("connect"))?;
    let socket = unconnected(SocketType::STREAM)?;
    // For sockets of this family it limits the connect as well (socket(7), SO_SNDTIMEO).
    set_socket_timeout(&socket, Timeout::Send, Some(patience))
        .map_err(SysError::from_rustix("setsockopt"))?;
    uninterrupted(|| connect(&socket, &address).map_err(SysError::from_rustix("connect")))?;
    Ok(socket)
}

fn connected(kind: SocketType, address: &SocketAddrUnix) -> Result<OwnedFd> {
    let socket = unconnected(kind)?;
    uninterrupted(|| connect(&socket, address).map_err(SysError::from_rustix("connect")))?;
    Ok(socket)
}

/// Sends one datagram to the socket at `path`, as sd_notify(3) does; a path that begins with `@` is an abstract name.
pub fn send_datagram(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let address = match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
        _ => SocketAddrUnix::new(path),
    };
    let address = address.map_err(SysError::from_rustix("sendto"))?;
    let socket = unconnected(SocketType::DGRAM)?;
    // A full queue of a peer that does not read must not stop us.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendto(&socket, bytes, flags, &address).map_err(SysError::from_rustix("sendto"))?;
    Ok(())
}

fn unconnected(kind: SocketType) -> Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(SysError::from_rustix("socket"))
}

/// The address of `name` under `dirfd` by way of procfs, since sun_path holds 108 bytes only.
fn address_at(call: &'static str, dirfd: BorrowedFd<'_>, name: &str) -> Result<SocketAddrUnix> {
    if name.is_empty() || name.contains('/') {
        return Err(SysError::new(call, libc::EINVAL));
    }
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dirfd.as_raw_fd()))
        .map_err(SysError::from_rustix(call))
}

/// Takes the next connection of a listening socket, CLOEXEC.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    uninterrupted(|| {
        acceptfrom_with(listener, SocketFlags::CLOEXEC)
            .map(|(socket, _)| socket)
            .map_err(SysError::from_rustix("accept4"))
    })
}

/// Who the peer of a connected local socket was when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Its process id here; none when it is not visible in this pid namespace.
    pub pid: Option<Pid>,
    /// Its effective user id, as this user namespace sees it.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

/// Asks the kernel who the peer is (`SO_PEERCRED`).
pub fn peer_credentials(socket: BorrowedFd<'_>) -> Result<PeerCredentials> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: `found` has room for the `len` bytes we say; both live until the call is over.
    let returned =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut found).cast(), &raw mut len) };
    crate::raw::check_unit("getsockopt(SO_PEERCRED)", returned.into())?;
    let pid = (found.pid > 0).then(|| Pid::from_raw(found.pid));
    Ok(PeerCredentials { pid, uid: found.uid, gid: found.gid })
}

/// Waits until `fd` has something to read or is at its end; false when `deadline` passes first.
pub fn poll_in(fd: BorrowedFd<'_>, deadline: Instant) -> Result<bool> {
    poll::wait_readable(fd.as_fd(), Some(deadline))
}
