//! Device nodes: the configured ones, then the ones every container has (config-linux.md, devices).

use crate::entry::is_mapped;
use crate::paths;
use crate::plan::{DeviceKind, DevicePlan, EntryScript, HostFacts, NamespaceKind};
use crate::refusal::Refusal;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

/// Name, major and minor number (config-linux.md, default devices; the kernel's devices.txt).
const DEFAULTS: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const DEFAULT_MODE: u32 = 0o666;
/// Largest numbers of the kernel's 32 bit dev_t.
const LARGEST_MAJOR: i64 = (1 << 12) - 1;
const LARGEST_MINOR: i64 = (1 << 20) - 1;

/// Plans all nodes.
pub(crate) fn plan(
    configured: &[LinuxDevice],
    entry: &EntryScript,
    facts: &HostFacts,
) -> Result<Vec<DevicePlan>, Refusal> {
    let bind = facts.in_user_namespace || entry.has_own(NamespaceKind::User);
    let mut devices = Vec::new();
    for (index, device) in configured.iter().enumerate() {
        let planned = one(device, format!("/linux/devices/{index}"), bind)?;
        owner_is_mapped(&planned, entry)?;
        // Always the container's own: a link to its pts/ptmx.
        if planned.path != "/dev/ptmx" {
            devices.push(planned);
        }
    }
    for (name, major, minor) in DEFAULTS {
        let path = format!("/dev/{name}");
        if !devices.iter().any(|device| device.path == path) {
            devices.push(DevicePlan {
                field: String::new(),
                path,
                kind: DeviceKind::Character,
                major,
                minor,
                mode: DEFAULT_MODE,
                uid: 0,
                gid: 0,
                bind,
            });
        }
    }
    Ok(devices)
}

fn one(device: &LinuxDevice, field: String, bind: bool) -> Result<DevicePlan, Refusal> {
    let kind = match device.typ() {
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Character,
        LinuxDeviceType::P => DeviceKind::Fifo,
        LinuxDeviceType::A => {
            return Err(Refusal::new(
                format!("{field}/type"),
                "type a is for rules, a node is one of c, b, u, p",
            ));
        }
    };
    let numbered = kind != DeviceKind::Fifo;
    let major = if numbered { number(device.major(), LARGEST_MAJOR, &field, "major")? } else { 0 };
    let minor = if numbered { number(device.minor(), LARGEST_MINOR, &field, "minor")? } else { 0 };
    Ok(DevicePlan {
        path: path(device, &field)?,
        kind,
        major,
        minor,
        mode: device.file_mode().map_or(DEFAULT_MODE, |mode| mode & 0o7777),
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        // A fifo needs no privilege.
        bind: bind && numbered,
        field,
    })
}

fn number(number: i64, largest: i64, field: &str, name: &str) -> Result<u32, Refusal> {
    u32::try_from(number).ok().filter(|_| number <= largest).ok_or_else(|| {
        Refusal::new(format!("{field}/{name}"), format!("{number} is not a number from 0 to {largest}"))
    })
}

fn path(device: &LinuxDevice, field: &str) -> Result<String, Refusal> {
    let path = device.path().to_str().unwrap_or_default();
    let refuse = |reason: &str| Err(Refusal::new(format!("{field}/path"), reason.to_string()));
    if !path.starts_with('/') {
        return refuse("the path is not absolute");
    }
    match paths::clean(path) {
        path if path == "/" => refuse("the root is not a device"),
        path if paths::is_within(&path, "/proc") => refuse("a device cannot lie inside /proc"),
        path => Ok(path),
    }
}

/// An owner that is not mapped has no id outside to be given to the node.
fn owner_is_mapped(device: &DevicePlan, entry: &EntryScript) -> Result<(), Refusal> {
    let Some(maps) = entry.id_maps.as_ref().filter(|_| !device.bind) else { return Ok(()) };
    for (id, map, name) in [(device.uid, &maps.uid, "uid"), (device.gid, &maps.gid, "gid")] {
        if !is_mapped(map, id) {
            return Err(Refusal::new(
                format!("{}/{name}", device.field),
                format!("{name} {id} is not mapped"),
            ));
        }
    }
    Ok(())
}
