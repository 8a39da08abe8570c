//! State documents: for hooks, `state` and `list` (runtime.md "State").

use crate::state::{Record, Status};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The members that the specification names, in its order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a std::path::Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

fn document(record: &Record, status: Status, pid: Option<i32>) -> Document<'_> {
    Document {
        oci_version: &record.oci_version,
        id: &record.id,
        status: status.name(),
        pid,
        bundle: &record.bundle,
        annotations: &record.annotations,
    }
}

/// The state for hooks on the runtime's side.
pub fn state(record: &Record, status: Status) -> String {
    state_value(record, status).to_string()
}

/// The same as a value.
pub fn state_value(record: &Record, status: Status) -> Value {
    let pid = record.init.as_ref().filter(|_| status != Status::Stopped).map(|init| init.pid);
    // A struct of strings and numbers always serialises.
    serde_json::to_value(document(record, status, pid)).unwrap_or_default()
}

/// The state for hooks inside, made by the container's process: its pid is the one that they see, which is 1 only in a pid
/// namespace of the container's own.
pub fn state_inside(record: &Record, status: Status) -> String {
    let pid = hull_sys::process::effective_pid().as_raw();
    serde_json::to_string(&document(record, status, Some(pid))).unwrap_or_default()
}

/// What `state` and `list` print: the document with runc's extra members, in runc's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'a str,
    bundle: &'a std::path::Path,
    rootfs: &'a std::path::Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: String,
}

impl<'a> Listing<'a> {
    /// The listing of a container.
    pub fn of(record: &'a Record, status: Status) -> Self {
        Self {
            oci_version: &record.oci_version,
            id: &record.id,
            pid: record.init.as_ref().filter(|_| status != Status::Stopped).map_or(0, |init| init.pid),
            status: status.name(),
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner: owner_name(record.owner),
        }
    }
}

impl Listing<'_> {
    /// The columns of `list`.
    pub fn columns(&self) -> [String; 6] {
        [
            self.id.to_owned(),
            self.pid.to_string(),
            self.status.to_owned(),
            self.bundle.display().to_string(),
            self.created.to_owned(),
            self.owner.clone(),
        ]
    }
}

/// The state as `state` prints it.
pub fn listing(record: &Record, status: Status) -> String {
    serde_json::to_string_pretty(&Listing::of(record, status)).unwrap_or_default()
}

/// The owner's name from the host's passwd, or nothing.
fn owner_name(uid: u32) -> String {
    let Ok(passwd) = std::fs::read_to_string("/etc/passwd") else { return String::new() };
    let wanted = uid.to_string();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == wanted).then(|| name.to_owned())
    });
    name.unwrap_or_default()
}
