//! The network namespace: its loopback interface, and interfaces of the host that move in.

use crate::enter::Entry;
use crate::error::{Context, Error, Result};
use crate::netlink::Netlink;
use crate::step::Step;
use hull_plan::{EntryScript, NamespaceKind, NetDevice};
use hull_rooted::{Entry as ProcEntry, Proc, View};
use hull_sys::SysError;
use hull_sys::errno::EEXIST;
use hull_sys::fs::OFlags;
use hull_sys::namespace::{CloneFlags, setns};
use hull_sys::process::Child;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Brings `lo` up in a new network namespace, as every peer does.
pub fn bring_up_loopback(entry: &EntryScript) -> Result<()> {
    if entry.create.has(NamespaceKind::Network) {
        hull_sys::network::bring_up("lo").context(|| "bring up lo")?;
    }
    Ok(())
}

/// Moves interfaces of the host into the container's network namespace, with their addresses, and brings them up
/// (config-linux.md "Network Devices"). They never come back by our doing.
pub fn move_interfaces(devices: &[NetDevice], entry: &Entry<'_>, child: &Child) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let move_all = || {
        let own = File::open("/proc/self/ns/net").context(|| "open the runtime's network namespace")?;
        let namespace = container_namespace(entry, child)?;
        let outside = Netlink::open().context(|| "open route netlink")?;
        let inside = visit(own.as_fd(), namespace.as_fd())?;
        devices.iter().try_for_each(|device| move_one(device, &outside, &inside, namespace.as_fd()))
    };
    move_all().map_err(|error: Error| error.step(Step::Network))
}

/// After CRIU made the network namespace anew, empty: what `create` had put in there.
pub fn refit(devices: &[NetDevice], script: &EntryScript, child: &Child) -> Result<()> {
    if !script.create.has(NamespaceKind::Network) {
        return Ok(());
    }
    let refit = || {
        let own = File::open("/proc/self/ns/net").context(|| "open the runtime's network namespace")?;
        let namespace = namespace_of(child)?;
        let outside = Netlink::open().context(|| "open route netlink")?;
        let inside = visit(own.as_fd(), namespace.as_fd())?;
        let loopback = inside.index_of("lo").and_then(|index| inside.bring_up(index));
        loopback.context(|| "bring up lo")?;
        devices.iter().try_for_each(|device| move_one(device, &outside, &inside, namespace.as_fd()))
    };
    refit().map_err(|error: Error| error.step(Step::Network))
}

/// The joined namespace as it was opened before the clone; else the new one that the child was born in.
fn container_namespace(entry: &Entry<'_>, child: &Child) -> Result<OwnedFd> {
    if let Some(joined) = entry.joined(NamespaceKind::Network) {
        return joined.try_clone_to_owned().context(|| "open the joined network namespace");
    }
    namespace_of(child)
}

fn namespace_of(child: &Child) -> Result<OwnedFd> {
    Proc::open(View::Processes)
        .and_then(|proc| proc.open_link(ProcEntry::Of(child.pid, "ns/net"), OFlags::RDONLY))
        .context(|| "open the container's network namespace")
}

/// A netlink socket of the other namespace; it stays there when the runtime is back.
fn visit(own: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<Netlink> {
    setns(other, CloneFlags::NEWNET).context(|| "enter the container's network namespace")?;
    let socket = Netlink::open().context(|| "open route netlink in the container");
    setns(own, CloneFlags::NEWNET).context(|| "leave the container's network namespace")?;
    socket
}

fn move_one(
    device: &NetDevice,
    outside: &Netlink,
    inside: &Netlink,
    namespace: BorrowedFd<'_>,
) -> Result<()> {
    let done = || -> hull_sys::Result<()> {
        let index = outside.index_of(&device.host)?;
        let addresses = outside.addresses(index)?;
        // The kernel moves first and renames then: under a name that is taken the device would be inside already, and
        // end with the namespace of a create that failed.
        if !device.name.contains('%') && inside.index_of(&device.name).is_ok() {
            return Err(SysError::new("netlink", EEXIST));
        }
        outside.move_into(index, namespace.as_raw_fd(), &device.name)?;
        // A template has become a name that only the index leads to.
        let index = if device.name.contains('%') { index } else { inside.index_of(&device.name)? };
        addresses.iter().try_for_each(|address| inside.add_address(index, address))?;
        inside.bring_up(index)
    };
    done()
        .context(|| format!("move network device {} into the container as {}", device.host, device.name))
        .map_err(|error| error.field(device.field.clone()).object(device.host.clone()))
}
