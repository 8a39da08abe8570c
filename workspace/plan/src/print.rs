//! A plan as text: JSON with names in place of bits (`plan`), and a few lines for people (`check`).

use crate::capabilities::names;
use crate::plan::{Attributes, CapabilityPlan, MountPlan, MountSource, NamespaceKind, NamespaceSet, Plan};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// `MOUNT_ATTR_*` by name (linux/mount.h); access times apart, they are one value.
const ATTRIBUTES: [(u64, &str); 6] = [
    (0x1, "ro"),
    (0x2, "nosuid"),
    (0x4, "nodev"),
    (0x8, "noexec"),
    (0x80, "nodiratime"),
    (0x20_0000, "nosymfollow"),
];
const ACCESS_TIME: u64 = 0x70;

impl Plan {
    /// The plan as JSON, members sorted: the same plan is the same bytes.
    pub fn to_json(&self) -> String {
        let sorted = serde_json::to_value(self).expect("every key of a plan is a string");
        format!("{sorted:#}")
    }

    /// A few lines that say what the container is; for people, not for programs.
    pub fn summary(&self) -> String {
        let mut lines = Vec::from([
            format!("root       {}{}", self.root.path, if self.root.readonly { " (read-only)" } else { "" }),
            format!("namespaces {}", listed(&self.namespace_words())),
        ]);
        if let Some(maps) = &self.entry.id_maps {
            let ranges = |map: &[crate::plan::IdMap]| {
                map.iter()
                    .map(|range| format!("{}={}+{}", range.inside, range.outside, range.size))
                    .collect::<Vec<_>>()
            };
            lines.push(format!(
                "ids        uid {}, gid {}",
                ranges(&maps.uid).join(" "),
                ranges(&maps.gid).join(" ")
            ));
        }
        lines.extend(self.mounts.iter().map(|mount| format!("mount      {}", mount_words(mount))));
        lines.push(format!(
            "paths      {} masked, {} read-only; {} devices; {} kernel parameters; {} hooks",
            self.masked_paths.len(),
            self.readonly_paths.len(),
            self.devices.len(),
            self.sysctl.len(),
            self.hooks.all().count(),
        ));
        lines.push(self.process_words());
        lines
            .push(format!("seccomp    {}", if self.seccomp.is_some() { "filtered" } else { "not filtered" }));
        let warnings =
            self.warnings.iter().map(|warning| format!("warning    {}: {}", warning.field, warning.text));
        lines.extend(warnings);
        lines.join("\n")
    }

    fn namespace_words(&self) -> Vec<String> {
        let new = kinds(self.entry.create).map(|kind| format!("new {kind}"));
        new.chain(self.entry.join.iter().map(|join| format!("{} of {}", join.kind.proc_name(), join.path)))
            .collect()
    }

    fn process_words(&self) -> String {
        let Some(process) = &self.process else {
            return "process    none: it can be created but not started".into();
        };
        let sets = process.capabilities.unwrap_or_default();
        let held: Vec<_> = names(sets.permitted).collect();
        let ids = format!("{}:{}", process.uid, process.gid);
        format!("process    {:?} as {ids} in {}, capabilities {}", process.args, process.cwd, listed(&held))
    }
}

impl crate::plan::HookPlan {
    /// All hooks, kind by kind.
    pub fn all(&self) -> impl Iterator<Item = &crate::plan::Hook> {
        let kinds = [
            &self.prestart,
            &self.create_runtime,
            &self.create_container,
            &self.start_container,
            &self.poststart,
            &self.poststop,
        ];
        kinds.into_iter().flatten()
    }
}

fn listed(words: &[impl AsRef<str>]) -> String {
    let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
    if words.is_empty() { "none".into() } else { words.join(", ") }
}

fn mount_words(mount: &MountPlan) -> String {
    let what = match &mount.source {
        MountSource::Bind { path, recursive: false } => format!("{path} bound"),
        MountSource::Bind { path, recursive: true } => format!("{path} bound with what lies on it"),
        MountSource::Filesystem { kind, .. } => format!("new {kind}"),
        MountSource::Cgroup => "own control groups".into(),
        MountSource::Remount { .. } => "mounted again".into(),
        MountSource::ChangeOnly => "changed".into(),
    };
    format!("{}: {what} [{}]", mount.target, mount.options.join(","))
}

fn kinds(set: NamespaceSet) -> impl Iterator<Item = &'static str> {
    NamespaceKind::ALL.into_iter().filter(move |kind| set.has(*kind)).map(NamespaceKind::proc_name)
}

impl Serialize for NamespaceSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(kinds(*self))
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let flags =
            |set: u64| ATTRIBUTES.into_iter().filter(move |(bit, _)| set & bit != 0).map(|(_, name)| name);
        let access_time = (self.clear & ACCESS_TIME != 0).then_some(match self.set & ACCESS_TIME {
            0x10 => "noatime",
            0x20 => "strictatime",
            _ => "relatime",
        });
        let mut attributes = serializer.serialize_struct("Attributes", 2)?;
        attributes.serialize_field("set", &flags(self.set).chain(access_time).collect::<Vec<_>>())?;
        attributes.serialize_field("clear", &flags(self.clear).collect::<Vec<_>>())?;
        attributes.end()
    }
}

impl Serialize for CapabilityPlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sets = serializer.serialize_struct("CapabilityPlan", 5)?;
        for (name, set) in [
            ("bounding", self.bounding),
            ("effective", self.effective),
            ("permitted", self.permitted),
            ("inheritable", self.inheritable),
            ("ambient", self.ambient),
        ] {
            sets.serialize_field(name, &names(set).collect::<Vec<_>>())?;
        }
        sets.end()
    }
}
