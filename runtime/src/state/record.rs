//! The record of a container, and its form on disk.

use super::{ContainerId, ProcessIdentity};
use crate::error::{Code, Error, Result};
use crate::resctrl::Places;
use hull_plan::NamespaceKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Version of the record's format; a newer one is refused, never guessed at.
pub const VERSION: u32 = 1;

/// What is known of a container. Written before the first effect (the intent), and again when it is created.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// Container id.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// Who created it.
    pub owner: u32,
    /// The first process; none: create has not got that far.
    #[serde(default)]
    pub init: Option<ProcessIdentity>,
    /// `CLONE_NEW*` flags of the namespaces that it does not share with the runtime.
    pub namespaces: u64,
    /// Its pid namespace was there before, and joined.
    #[serde(default)]
    pub joins_pids: bool,
    /// Where its control groups are.
    pub cgroup: hull_cgroup::SavedPaths,
    /// `start` has something to run.
    pub has_process: bool,
    /// `delete` has hooks to run: there are some, and they have not run yet.
    pub has_poststop: bool,
    /// `create` is not done: the process below, if there is one, is not the container's program yet.
    #[serde(default)]
    pub creating: bool,
    /// The hooks of the runtime's side run: the container counts as created for them, but its process has not entered the
    /// root yet, so that whoever joined it now would be on the host's.
    #[serde(default)]
    pub in_hooks: bool,
    /// Directories of the resctrl file system.
    #[serde(default)]
    pub resctrl: Places,
    /// Mounts made on the host because the container has no mount namespace of its own, in the order they were made.
    #[serde(default)]
    pub host_mounts: Vec<PathBuf>,
    /// The container has the session keyring of its caller (`--no-new-keyring`), and so has what `exec` starts.
    #[serde(default)]
    pub keeps_keyring: bool,
    /// What was on the standard streams of the caller, as the kernel names it; empty with a terminal.
    #[serde(default)]
    pub streams: Vec<String>,
    /// Annotations, unchanged.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

const PREFIX: &str = "{\"checksum\":\"crc32:";
const MIDDLE: &str = "\",\"record\":";

impl Record {
    /// True when the kernel ends every process of the container with the first one (pid_namespaces(7)): in a namespace that
    /// was made for it. In the host's, and in another container's, they live on.
    pub fn ends_with_first(&self) -> bool {
        self.namespaces & NamespaceKind::Pid.clone_flag() != 0 && !self.joins_pids
    }

    /// The file's bytes: a JSON object of the checksum and the record it covers.
    pub fn encode(&self) -> Result<String> {
        let record = serde_json::to_string(self)
            .map_err(|error| Error::new(Code::StateDamaged, format!("write the record: {error}")))?;
        Ok(format!("{PREFIX}{:08x}{MIDDLE}{record}}}\n", crc32(record.as_bytes())))
    }

    /// Reads the file's bytes and proves that they are whole.
    pub fn decode(bytes: &[u8], id: &ContainerId) -> Result<Self> {
        let damaged = |why: String| {
            Error::new(Code::StateDamaged, format!("state of container {id} is damaged: {why}"))
                .hint("'delete --force' removes what is left of it")
        };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("not UTF-8".into()))?;
        let (checksum, record) = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once(MIDDLE))
            .and_then(|(sum, rest)| Some((u32::from_str_radix(sum, 16).ok()?, rest.strip_suffix("}\n")?)))
            .ok_or_else(|| damaged("cut short or overwritten".into()))?;
        if checksum != crc32(record.as_bytes()) {
            return Err(damaged("the checksum does not match".into()));
        }
        let record: Self = serde_json::from_str(record).map_err(|error| damaged(error.to_string()))?;
        if record.version != VERSION {
            return Err(damaged(format!("version {} of the format is not known here", record.version)));
        }
        Ok(record)
    }
}

/// CRC-32 (IEEE 802.3), by a table: with many annotations the record has megabytes.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(u32::MAX, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            version: VERSION,
            oci_version: "1.0.2".into(),
            id: "c1".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-01T00:00:00Z".into(),
            owner: 0,
            init: None,
            namespaces: 0,
            joins_pids: false,
            cgroup: hull_cgroup::SavedPaths {
                layout: hull_cgroup::Layout::V1,
                places: Vec::new(),
                unit: None,
            },
            has_process: true,
            has_poststop: false,
            creating: false,
            in_hooks: false,
            resctrl: Places::default(),
            host_mounts: Vec::new(),
            keeps_keyring: false,
            streams: Vec::new(),
            annotations: BTreeMap::from([("k".into(), "v".into())]),
        }
    }

    #[test]
    fn crc32_has_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_record_round_trips_and_is_plain_json() {
        let text = record().encode().expect("encode");
        let id = ContainerId::parse("c1").expect("id");
        let back = Record::decode(text.as_bytes(), &id).expect("decode");
        assert_eq!(back.annotations, record().annotations);
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["record"]["id"], "c1");
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let text = record().encode().expect("encode").into_bytes();
        let id = ContainerId::parse("c1").expect("id");
        for length in 0..text.len() {
            assert!(Record::decode(&text[..length], &id).is_err(), "cut at {length} was taken");
        }
        for at in 0..text.len() {
            let mut flipped = text.clone();
            flipped[at] ^= 1;
            assert!(Record::decode(&flipped, &id).is_err(), "flip at {at} was taken");
        }
    }
}
