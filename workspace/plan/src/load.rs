//! Bytes of a configuration become a [`Spec`]; every refusal names the field or the byte.
//!
//! `mend` works round what the types of `oci-spec` 0.10 get wrong, before they see the document:
//!
//! | gap of the types | what is done |
//! |---|---|
//! | an unknown capability name is an error; `sys_admin` without prefix or in small letters is a known one | names that are not exactly a known one are dropped with a warning (spec 1.3, config.md) |
//! | `SCHED_FLAG_RESET_ON_FORK` and `SCHED_FLAG_DL_OVERRUN` have other names | renamed; the crate's own spellings are refused |
//! | `pids.limit` missing or null means 0 | `pids` is dropped |
//! | `CPU` or `pagesize` in the resources, which callers of runc also write, are not `cpu` and `pageSize` | `any_case` gives them their names |
//! | a hugepage limit above 2^63 is an error | lowered to 2^63 - 1, which the kernel rounds down as well |
//! | `user` of a process is required | added, the ids are 0 |
//! | `null` is refused where the member has no `Option` | a null member is a member that is not there |
//! | missing numbers of rlimits, id mappings and devices are 0; a missing io priority class is BE | refused |
//! | `execCPUAffinity` refuses blanks and empty strings | lists are rewritten in the plain form, empty ones are dropped |
//! | `seccomp: {}` is refused | dropped: no filter, as the peers read it |
//! | derived types take an array in place of an object, and an object in place of a name | `strict` refuses both |
//! | a missing `ociVersion` is accepted | refused, with everything that is not 1.x.y |
//! | sections of other platforms are type checked; id mappings at the top are taken for known | not read |
//! | an unknown memory policy mode or flag gets a general message | refused with the words that callers look for |

use crate::plan::Warning;
use crate::refusal::Refusal;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

mod any_case;
mod mend;
mod strict;
mod tree;
mod version;
mod words;

use tree::Node;

pub(crate) use mend::{MEMORY_FLAGS, MEMORY_MODES, SCHEDULER_FLAGS};

/// Members of a configuration that are read on Linux; the sections of other platforms are not even built.
const MEMBERS: [&str; 9] =
    ["ociVersion", "process", "root", "hostname", "domainname", "mounts", "hooks", "linux", "annotations"];

/// A configuration that is well formed.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration in the types of `oci-spec`.
    pub spec: Spec,
    /// What was dropped or changed on the way.
    pub warnings: Vec<Warning>,
}

/// A `process.json` that is well formed (`exec --process`).
#[derive(Debug, Clone)]
pub struct LoadedProcess {
    /// The process in the types of `oci-spec`.
    pub process: Process,
    /// What was dropped or changed on the way.
    pub warnings: Vec<Warning>,
}

/// Reads a `config.json`.
///
/// # Errors
/// Invalid JSON (byte, line and column in the reason), a member name twice in one object, a wrong type, an unknown
/// value of a closed set, an `ociVersion` that is not 1.x.y, a NUL byte in a string that is used.
pub fn load(bytes: &[u8]) -> Result<Loaded, Refusal> {
    let document = object(bytes, &MEMBERS)?;
    version::check(&document)?;
    configuration(document, may_contain_nul(bytes))
}

fn configuration(mut document: Node, may_contain_nul: bool) -> Result<Loaded, Refusal> {
    if let Some(resources) = document.get_mut("linux").and_then(|linux| linux.get_mut("resources")) {
        any_case::respell(resources, "/linux/resources")?;
    }
    let mut warnings = Vec::new();
    mend::spec(&mut document, &mut warnings)?;
    let spec: Spec = typed(document)?;
    if may_contain_nul {
        refuse_nul(&serde_json::to_value(&spec).map_err(|error| Refusal::new("", error.to_string()))?)?;
    }
    Ok(Loaded { spec, warnings })
}

/// Reads a `process.json`; pointers are relative to that document.
///
/// # Errors
/// As [`load`].
pub fn parse_process(bytes: &[u8]) -> Result<LoadedProcess, Refusal> {
    let mut document = object(bytes, &[])?;
    let mut warnings = Vec::new();
    mend::process_document(&mut document, &mut warnings)?;
    let process: Process = typed(document)?;
    if may_contain_nul(bytes) {
        refuse_nul(&serde_json::to_value(&process).map_err(|error| Refusal::new("", error.to_string()))?)?;
    }
    Ok(LoadedProcess { process, warnings })
}

/// Reads the resources of `update`, by the same rules as those of a configuration; pointers are relative to that document.
///
/// # Errors
/// As [`load`].
pub fn parse_resources(bytes: &[u8]) -> Result<LinuxResources, Refusal> {
    let resources = object(bytes, &[])?;
    let linux = Node::Object(vec![("resources".into(), resources)]);
    let whole =
        Node::Object(vec![("ociVersion".into(), Node::Text("1.0.0".into())), ("linux".into(), linux)]);
    let loaded = configuration(whole, may_contain_nul(bytes)).map_err(|refusal| {
        let field = refusal.field.strip_prefix("/linux/resources").unwrap_or_default().to_string();
        Refusal::new(field, refusal.reason)
    })?;
    Ok(loaded.spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default())
}

fn object<'t>(bytes: &'t [u8], read: &[&str]) -> Result<Node<'t>, Refusal> {
    let document = tree::parse(bytes, read)?;
    if document.members().is_some() {
        Ok(document)
    } else {
        Err(Refusal::new("", "the document is not a JSON object"))
    }
}

fn typed<T: DeserializeOwned>(document: Node) -> Result<T, Refusal> {
    strict::read(document).map_err(|(pointer, reason)| Refusal::new(pointer, words::friendly(&reason)))
}

/// Pointer of the member `name` of the object at `parent` (RFC 6901 section 3).
pub(crate) fn child(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A NUL byte can only come in as an escape: the parser refuses control bytes in strings.
fn may_contain_nul(bytes: &[u8]) -> bool {
    bytes.windows(6).any(|window| window == b"\\u0000")
}

/// Refuses a NUL byte in any string that is used: the kernel would cut the string there.
fn refuse_nul(document: &Value) -> Result<(), Refusal> {
    fn walk(value: &Value, pointer: &str) -> Result<(), Refusal> {
        let refusal = || Refusal::new(pointer, "contains a NUL byte");
        match value {
            Value::String(text) if text.contains('\0') => Err(refusal()),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| walk(item, &format!("{pointer}/{index}"))),
            Value::Object(members) => members.iter().try_for_each(|(name, item)| {
                if name.contains('\0') { Err(refusal()) } else { walk(item, &child(pointer, name)) }
            }),
            _ => Ok(()),
        }
    }
    walk(document, "")
}
