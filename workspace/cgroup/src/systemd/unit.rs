//! The container's unit as a value: its name, its slice, its directory, its properties (pure).

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::properties::limits;
use super::wire::{Property, Value};
use crate::{CgroupError, Facts, Layout, Place, Refusal, Write};

const FIELD: &str = "/linux/cgroupsPath";
/// Longest unit name (`UNIT_NAME_MAX` of systemd, with the final NUL).
const NAME_MAX: usize = 255;

/// A systemd unit that holds the container; what `state.json` keeps of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `prefix-name.scope`.
    pub name: String,
    /// The slice that it is in.
    pub slice: String,
    /// It is the user's own manager that runs it.
    pub user: bool,
}

impl Unit {
    /// Reads `slice:prefix:name`; without a path the container's id is the name.
    ///
    /// # Errors
    /// Another form; a name that systemd does not allow.
    pub(crate) fn read(path: Option<&str>, id: &str, user: bool) -> Result<Self, Refusal> {
        let refuse = |reason: String| Err(Refusal::new(FIELD, reason));
        let default = if user { "user.slice" } else { "system.slice" };
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return Self { name: format!("hull-{id}.scope"), slice: default.to_owned(), user }.checked();
        };
        let parts: Vec<_> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return refuse(format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
            ));
        };
        if name.ends_with(".slice") {
            return refuse(format!("{name:?} is a slice, which holds units and no processes"));
        }
        let name = format!("{prefix}-{name}.scope");
        Self { name, slice: if slice.is_empty() { default } else { slice }.to_owned(), user }.checked()
    }

    fn checked(self) -> Result<Self, Refusal> {
        for name in [&self.name, &self.slice] {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
            if name.len() > NAME_MAX || !name.bytes().all(allowed) || name.starts_with('.') {
                return Err(Refusal::new(FIELD, format!("{name:?} is no unit name")));
            }
        }
        slice_path(&self.slice).map(|_| self)
    }

    /// The unit's directory below the mount point.
    pub(crate) fn directory(&self, facts: &Facts) -> Result<String, Refusal> {
        let home = if self.user { facts.user_manager.as_deref().unwrap_or_default() } else { "" };
        let home = home.trim_end_matches('/');
        Ok(format!("{home}{}/{}", slice_path(&self.slice)?, self.name))
    }

    /// The error of a unit that was made and is not where it has to be.
    pub(crate) fn elsewhere(&self, place: &Place) -> CgroupError {
        let detail = format!("systemd did not make it at {}", place.host_path());
        CgroupError::Systemd { what: "find the group of", unit: self.name.clone(), detail }
    }

    /// What is asked of systemd when the unit is made for process `pid`.
    /// Those of `asked` come last and win.
    pub(crate) fn properties(
        &self,
        id: &str,
        pid: i32,
        layout: Layout,
        writes: &[Write],
        asked: &[Property],
    ) -> Vec<Property> {
        let mut properties = vec![
            ("Description", Value::Text(format!("hull container {id}"))),
            ("Slice", Value::Text(self.slice.clone())),
            delegated(layout),
            ("PIDs", Value::Pids(vec![pid.unsigned_abs()])),
            ("MemoryAccounting", Value::Flag(true)),
            ("CPUAccounting", Value::Flag(true)),
            ("IOAccounting", Value::Flag(true)),
            ("TasksAccounting", Value::Flag(true)),
            ("DefaultDependencies", Value::Flag(false)),
        ];
        properties.extend(limits(writes, &LinuxResources::default()));
        properties.retain(|(name, _)| !asked.iter().any(|(other, _)| other == name));
        properties.extend_from_slice(asked);
        properties
    }
}

/// What is handed to the container's own groups. On version 1 all but the devices controller: systemd would allow every
/// device of a unit that names none, at each reload.
fn delegated(layout: Layout) -> Property {
    const WITHOUT_DEVICES: [&str; 5] = ["cpu", "cpuacct", "blkio", "memory", "pids"];
    match layout {
        Layout::V2 => ("Delegate", Value::Flag(true)),
        Layout::V1 | Layout::Hybrid => {
            ("DelegateControllers", Value::Texts(WITHOUT_DEVICES.map(str::to_owned).to_vec()))
        }
    }
}

/// A slice's directory: `a-b.slice` is in `a.slice` (systemd.slice(5)).
fn slice_path(slice: &str) -> Result<String, Refusal> {
    let refuse = || Err(Refusal::new(FIELD, format!("invalid slice name: {slice:?}")));
    let Some(stem) = slice.strip_suffix(".slice") else { return refuse() };
    if stem == "-" {
        return Ok(String::new());
    }
    if stem.is_empty() || stem.split('-').any(str::is_empty) || stem.contains('/') {
        return refuse();
    }
    let ends = stem.match_indices('-').map(|(end, _)| end).chain([stem.len()]);
    Ok(ends.map(|end| format!("/{}.slice", &stem[..end])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let mut facts = Facts::parse("1 0 0:2 / /cg rw - cgroup2 c rw\n", "0::/a.scope\n");
        facts.user_manager = Some("/user.slice/user-1000.slice/user@1000.service".to_owned());
        facts
    }

    #[test]
    fn the_path_names_slice_prefix_and_name() {
        let cases = [
            (
                Some("machine-a-b.slice:pod:c1"),
                false,
                "/machine.slice/machine-a.slice/machine-a-b.slice/pod-c1.scope",
            ),
            (Some(":pod:c1"), false, "/system.slice/pod-c1.scope"),
            (Some("-.slice:pod:c1"), false, "/pod-c1.scope"),
            (None, false, "/system.slice/hull-id.scope"),
            (None, true, "/user.slice/user-1000.slice/user@1000.service/user.slice/hull-id.scope"),
        ];
        for (path, user, expected) in cases {
            let unit = Unit::read(path, "id", user).unwrap();
            assert_eq!(unit.directory(&facts()).unwrap(), expected, "{path:?}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let cases = [
            ("/a/b", "expected cgroupsPath to be of format \"slice:prefix:name\""),
            ("a:b", "slice:prefix:name"),
            ("a:b:c", "invalid slice name: \"a\""),
            ("a--b.slice:p:n", "invalid slice name"),
            ("-a.slice:p:n", "invalid slice name"),
            ("a.slice:p:n/../x", "is no unit name"),
            ("a.slice:p:n m", "is no unit name"),
            ("a.slice:p:a-b.slice", "is a slice"),
        ];
        for (path, reason) in cases {
            let refusal = Unit::read(Some(path), "id", false).unwrap_err();
            assert!(refusal.reason.contains(reason), "{path}: {}", refusal.reason);
            assert_eq!(refusal.field, "/linux/cgroupsPath");
        }
    }
}
