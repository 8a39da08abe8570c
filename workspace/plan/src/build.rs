//! The planner: reads top to bottom as the list of what is decided.

use crate::plan::{HostFacts, NamespaceKind, Plan};
use crate::refusal::Refusal;
use crate::{devices, entry, hooks, host_parts, mounts, process, root, schedule, sysctl};
use alloc::string::ToString;
use alloc::vec::Vec;
use oci_spec::runtime::{Linux, Spec};

impl Plan {
    /// Decides everything about a container, or refuses its configuration.
    ///
    /// `spec` comes from [`crate::load`], whose warnings are not repeated here.
    ///
    /// # Errors
    /// The first field that cannot be carried out; nothing has been done.
    pub fn build(spec: &Spec, facts: &HostFacts) -> Result<Self, Refusal> {
        let linux = spec.linux().as_ref();
        let mut warnings = Vec::new();
        let entry = entry::plan(linux, facts, &mut warnings)?;
        let root = root::plan(spec, facts)?;
        let mount_label = process::label(
            linux.and_then(|linux| linux.mount_label().as_deref()),
            facts,
            "/linux/mountLabel",
        )?;
        let around =
            mounts::Surroundings { entry: &entry, facts, root: &root.path, label: mount_label.as_deref() };
        let mounts = mounts::plan(spec.mounts().as_deref().unwrap_or_default(), &around, &mut warnings)?;
        let own_dev = !mounts::bring_host_dev(&mounts);
        let configured = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
        let devices = devices::plan(configured, &entry, facts)?;
        let (masked_paths, readonly_paths) = root::guarded_paths(linux, &entry)?;
        let around = process::Surroundings {
            pointer: "/process",
            entry: &entry,
            facts,
            has_cpuset: has_cpuset(linux),
        };
        let process = spec.process().as_ref();
        let process = process.map(|process| process::plan(process, &around, &mut warnings)).transpose()?;
        let memory_policy = linux.and_then(|linux| linux.memory_policy().as_ref());
        Ok(Self {
            oci_version: spec.version().clone(),
            root,
            mounts,
            devices: if own_dev { devices } else { Vec::new() },
            default_dev_links: own_dev,
            masked_paths,
            readonly_paths,
            sysctl: sysctl::plan(linux, &entry)?,
            hostname: host_parts::uts_name(spec.hostname().as_deref(), "hostname", &entry)?,
            domainname: host_parts::uts_name(spec.domainname().as_deref(), "domainname", &entry)?,
            process,
            hooks: hooks::plan(spec.hooks().as_ref())?,
            resources: linux.and_then(|linux| linux.resources().clone()),
            cgroups_path: cgroups_path(linux),
            seccomp: linux.and_then(|linux| linux.seccomp().clone()),
            personality: host_parts::personality(linux)?,
            memory_policy: memory_policy.map(schedule::memory_policy).transpose()?,
            net_devices: host_parts::net_devices(linux, &entry, facts)?,
            intel_rdt: host_parts::intel_rdt(linux, facts)?,
            mount_label,
            annotations: host_parts::annotations(spec)?,
            warnings,
            entry,
        })
    }

    /// True when the container does not share `kind` with the runtime.
    pub fn has_own(&self, kind: NamespaceKind) -> bool {
        self.entry.has_own(kind)
    }

    /// Refuses what would be done to the host where the namespace of `kind` that is joined by its path is the host's. Only
    /// who opens the path can tell.
    ///
    /// # Errors
    /// A kernel parameter, a name or an interface that would be the host's.
    pub fn refuse_in_hosts(&self, kind: NamespaceKind) -> Result<(), Refusal> {
        sysctl::refuse_in_hosts(&self.sysctl, kind)?;
        match kind {
            NamespaceKind::Uts if self.hostname.is_some() => Err(host_parts::without_own_uts("hostname")),
            NamespaceKind::Uts if self.domainname.is_some() => Err(host_parts::without_own_uts("domainname")),
            NamespaceKind::Network if !self.net_devices.is_empty() => Err(host_parts::without_own_network()),
            _ => Ok(()),
        }
    }
}

/// True when the container is bound to certain processors.
pub(crate) fn has_cpuset(linux: Option<&Linux>) -> bool {
    let cpu =
        linux.and_then(|linux| linux.resources().as_ref()).and_then(|resources| resources.cpu().as_ref());
    cpu.and_then(|cpu| cpu.cpus().as_deref()).is_some_and(|cpus| !cpus.is_empty())
}

fn cgroups_path(linux: Option<&Linux>) -> Option<alloc::string::String> {
    let path = linux.and_then(|linux| linux.cgroups_path().as_ref())?;
    path.to_str().filter(|path| !path.is_empty()).map(ToString::to_string)
}
