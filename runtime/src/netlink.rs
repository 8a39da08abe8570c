//! Route netlink (rtnetlink(7)), as much as moving an interface takes: requests as bytes, answers parsed by length.

use hull_sys::errno::EIO;
use hull_sys::{Result, SysError, io};
use std::os::fd::{AsFd, OwnedFd};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFF_UP: u32 = 1;
const IFA_F_PERMANENT: u8 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;

/// A route netlink socket, bound to the namespace it was made in.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
}

/// An address of an interface, with its attributes as the kernel gave them.
#[derive(Debug, Clone)]
pub struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<u8>,
}

impl Netlink {
    /// Opens a socket in the current network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: hull_sys::network::route_socket()? })
    }

    /// The index of the interface `name`; `ENODEV` when there is none.
    pub fn index_of(&self, name: &str) -> Result<u32> {
        let request =
            message(RTM_GETLINK, NLM_F_REQUEST, &[&link(0, 0, 0), &attribute(IFLA_IFNAME, &c_text(name))]);
        let mut index = None;
        self.ask(&request, |kind, body| {
            if kind == RTM_NEWLINK {
                index = word(body, 4);
            }
        })?;
        index.ok_or(SysError::new("netlink", EIO))
    }

    /// The permanent global addresses of interface `index` (D12).
    pub fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let request = message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &[&[0; 8]]);
        let mut found = Vec::new();
        self.ask(&request, |kind, body| {
            let wanted = kind == RTM_NEWADDR
                && word(body, 4) == Some(index)
                && body.get(2).is_some_and(|flags| flags & IFA_F_PERMANENT != 0)
                && body.get(3) == Some(&RT_SCOPE_UNIVERSE);
            if wanted {
                found.push(Address {
                    family: body[0],
                    prefix: body[1],
                    attributes: kept_attributes(&body[8..]),
                });
            }
        })?;
        Ok(found)
    }

    /// Moves interface `index` into the namespace `namespace` under `name`, which may be a template with `%d`.
    pub fn move_into(&self, index: u32, namespace: i32, name: &str) -> Result<()> {
        let request = message(
            RTM_NEWLINK,
            NLM_F_REQUEST | NLM_F_ACK,
            &[
                &link(index, 0, 0),
                &attribute(IFLA_NET_NS_FD, &namespace.to_ne_bytes()),
                &attribute(IFLA_IFNAME, &c_text(name)),
            ],
        );
        self.ask(&request, |_, _| {})
    }

    /// Gives interface `index` an address again.
    pub fn add_address(&self, index: u32, address: &Address) -> Result<()> {
        let mut head = vec![address.family, address.prefix, IFA_F_PERMANENT, RT_SCOPE_UNIVERSE];
        head.extend(index.to_ne_bytes());
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.ask(&message(RTM_NEWADDR, flags, &[&head, &address.attributes]), |_, _| {})
    }

    /// Brings interface `index` up (D13).
    pub fn bring_up(&self, index: u32) -> Result<()> {
        self.ask(&message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &[&link(index, IFF_UP, IFF_UP)]), |_, _| {})
    }

    /// Sends a request and hands every message of the answer to `each`, until the acknowledgement or the end of a dump.
    fn ask(&self, request: &[u8], mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        io::write_all(self.socket.as_fd(), request)?;
        let dump = half(request, 6).is_some_and(|flags| flags & NLM_F_DUMP == NLM_F_DUMP);
        let acknowledged = half(request, 6).is_some_and(|flags| flags & NLM_F_ACK != 0);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = io::read(self.socket.as_fd(), &mut buffer)?;
            let mut rest = &buffer[..count];
            while let Some((kind, body, after)) = split(rest) {
                match kind {
                    NLMSG_ERROR => return outcome(body),
                    NLMSG_DONE => return Ok(()),
                    _ => each(kind, body),
                }
                rest = after;
            }
            if !dump && !acknowledged {
                return Ok(());
            }
        }
    }
}

/// An error message carries a negative errno, or 0 as the acknowledgement.
fn outcome(body: &[u8]) -> Result<()> {
    match word(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(SysError::new("netlink", -code)),
        None => Err(SysError::new("netlink", EIO)),
    }
}

/// The first message: its type, its body, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = word(bytes, 0)? as usize;
    let body = bytes.get(16..length)?;
    Some((half(bytes, 4)?, body, bytes.get(aligned(length)..).unwrap_or_default()))
}

fn message(kind: u16, flags: u16, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    for part in parts {
        bytes.extend_from_slice(part);
        bytes.resize(aligned(bytes.len()), 0);
    }
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(0);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes
}

/// Everything but the cache information and the flags, which the kernel makes anew.
fn kept_attributes(mut bytes: &[u8]) -> Vec<u8> {
    const IFA_CACHEINFO: u16 = 6;
    const IFA_FLAGS: u16 = 8;
    let mut kept = Vec::new();
    while let (Some(length), Some(kind)) = (half(bytes, 0), half(bytes, 2)) {
        let length = usize::from(length);
        let Some(whole) = bytes.get(..length).filter(|whole| whole.len() >= 4) else { break };
        if kind != IFA_CACHEINFO && kind != IFA_FLAGS {
            kept.extend_from_slice(whole);
            kept.resize(aligned(kept.len()), 0);
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    kept
}

fn c_text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_number_one_and_a_missing_one_is_an_error() {
        let netlink = Netlink::open().expect("socket");
        assert_eq!(netlink.index_of("lo"), Ok(1));
        assert_eq!(netlink.index_of("no-such-if").expect_err("missing").errno, 19);
    }

    #[test]
    fn attributes_that_the_kernel_makes_itself_are_left_out() {
        let bytes = [attribute(6, &[0; 16]), attribute(2, &[10, 0, 0, 1]), attribute(8, &[0; 4])].concat();
        assert_eq!(kept_attributes(&bytes), attribute(2, &[10, 0, 0, 1]));
        assert!(kept_attributes(&[255, 255, 2]).is_empty(), "a length beyond the end ends it");
    }
}
