//! Network interfaces of the calling process's network namespace.

use crate::raw::check_unit;
use crate::{Result, SysError};
use std::os::fd::AsRawFd;

/// Brings the interface `name` up (netdevice(7), `SIOCSIFFLAGS`).
pub fn bring_up(name: &str) -> Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(SysError::from_rustix("socket"))?;
    if name.len() >= libc::IFNAMSIZ {
        return Err(SysError::new("ioctl", libc::ENAMETOOLONG));
    }
    // SAFETY: ifreq is plain old data for which all zero bytes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    // SAFETY: `request` is an ifreq with a NUL-terminated name that outlives the call; the kernel fills the flags.
    let got =
        unsafe { libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    check_unit("ioctl", got)?;
    // SAFETY: SIOCGIFFLAGS filled the flags member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    #[allow(clippy::cast_possible_truncation)]
    let up = libc::IFF_UP as libc::c_short;
    request.ifr_ifru.ifru_flags = flags | up;
    // SAFETY: as for SIOCGIFFLAGS; the kernel only reads it.
    let set =
        unsafe { libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check_unit("ioctl", set)
}

/// A socket for route netlink (rtnetlink(7)) of the network namespace that the process is in now. Requests are written
/// and answers read as they are: the kernel is the peer of an unconnected socket.
pub fn route_socket() -> Result<std::os::fd::OwnedFd> {
    rustix::net::socket_with(
        rustix::net::AddressFamily::NETLINK,
        rustix::net::SocketType::RAW,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(SysError::from_rustix("socket"))
}
