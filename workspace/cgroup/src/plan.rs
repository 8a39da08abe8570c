//! The container's control group as a value: where its directories are and what is written (pure).

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxResources;

use crate::place::{Place, places};
use crate::resources::{Write, left_out, writes_of};
use crate::{DeviceRules, Facts, Layout, Refusal, Unit, systemd};

/// What the configuration and the command line say.
#[derive(Debug, Clone, Copy)]
pub struct CgroupSpec<'a> {
    /// `linux.cgroupsPath`.
    pub path: Option<&'a str>,
    /// The container's id.
    pub id: &'a str,
    /// `linux.resources`.
    pub resources: Option<&'a LinuxResources>,
    /// The caller is not privileged: missing permission is no error as long as nothing was asked for.
    pub rootless: bool,
    /// Who makes the directory.
    pub manager: Manager,
    /// `annotations`: those of systemd's properties are read where systemd makes the directory.
    pub annotations: &'a BTreeMap<String, String>,
}

/// Who makes a container's control group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manager {
    /// The runtime, in the file system.
    #[default]
    Files,
    /// systemd; `cgroupsPath` is `slice:prefix:name`.
    Systemd,
    /// Nobody: the container stays in its caller's, without limits and device rules.
    Disabled,
}

/// What [`plan`] decided; carried out by `Cgroup::make`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupPlan {
    /// The container's id.
    pub id: String,
    /// The systemd unit, with that driver.
    pub unit: Option<Unit>,
    /// Properties that the configuration asks for beside its limits.
    pub(crate) properties: Vec<systemd::Property>,
    /// How the host is laid out.
    pub layout: Layout,
    /// The container's directory in each hierarchy, in the order of [`Facts::hierarchies`].
    pub places: Vec<Place>,
    /// The limits, in order.
    pub writes: Vec<Write>,
    /// What of the limits is left out, and why.
    pub left_out: Option<&'static str>,
    /// Which devices may be used; without a control group of its own the container is not asked.
    pub devices: Option<DeviceRules>,
    /// Controllers of the version 2 tree, to be enabled down to the container's directory.
    pub enable: Vec<String>,
    /// The caller is not privileged.
    pub rootless: bool,
    /// The configuration names the path itself.
    pub explicit: bool,
}

/// Decides directories and limits.
///
/// # Errors
/// Names the first field that is out of range or cannot be had on this host.
pub fn plan(spec: &CgroupSpec<'_>, facts: &Facts) -> Result<CgroupPlan, Refusal> {
    let Some(layout) = facts.layout() else {
        return Err(Refusal::new(
            "/linux/cgroupsPath",
            "no cgroup file system is mounted (mount one at /sys/fs/cgroup)",
        ));
    };
    let nothing = LinuxResources::default();
    if spec.manager == Manager::Disabled {
        return Ok(CgroupPlan {
            id: spec.id.to_owned(),
            unit: None,
            properties: Vec::new(),
            layout,
            places: Vec::new(),
            writes: Vec::new(),
            left_out: None,
            devices: None,
            enable: Vec::new(),
            rootless: spec.rootless,
            explicit: false,
        });
    }
    let writes = writes_of(spec.resources.unwrap_or(&nothing), &nothing, facts)?;
    let rules = spec.resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    let unit = (spec.manager == Manager::Systemd)
        .then(|| Unit::read(spec.path, spec.id, spec.rootless))
        .transpose()?;
    let places = match &unit {
        Some(unit) => places(Some(&unit.directory(facts)?), spec.id, false, facts)?,
        None => places(spec.path, spec.id, spec.rootless, facts)?,
    };
    Ok(CgroupPlan {
        layout,
        id: spec.id.to_owned(),
        properties: unit.as_ref().map_or(Ok(Vec::new()), |_| systemd::asked_for(spec.annotations))?,
        unit,
        devices: Some(DeviceRules::read(rules, facts.index_of("devices").is_some())?),
        places,
        enable: facts.v2().map(|tree| facts.hierarchies[tree].controllers.clone()).unwrap_or_default(),
        writes,
        left_out: left_out(spec.resources.unwrap_or(&nothing), facts),
        rootless: spec.rootless,
        explicit: spec.path.is_some_and(|path| !path.is_empty()),
    })
}
