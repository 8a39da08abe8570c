//! The network namespace: its loopback interface, and interfaces of the host that move in.

use crate::error::{Code, Context, Error, Result};
use hull_plan::{EntryScript, NamespaceKind, NetDevice};
use hull_sys::process::Child;

/// Brings `lo` up in a new network namespace, as every peer does.
pub fn bring_up_loopback(entry: &EntryScript) -> Result<()> {
    if entry.create.has(NamespaceKind::Network) {
        hull_sys::network::bring_up("lo").context(|| "bring up lo")?;
    }
    Ok(())
}

/// Moves interfaces of the host into the container's network namespace.
pub fn move_interfaces(devices: &[NetDevice], _child: &Child) -> Result<()> {
    match devices.first() {
        None => Ok(()),
        Some(device) => {
            Err(Error::new(Code::Unsupported, "moving network interfaces is not supported by this build")
                .field(device.field.clone()))
        }
    }
}
