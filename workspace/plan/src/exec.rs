//! A further process in a container (`exec`): what it takes from the container and what the caller asks for.

use crate::build::has_cpuset;
use crate::capabilities::number;
use crate::plan::{HostFacts, MemoryPolicyPlan, ProcessPlan, Warning};
use crate::process::{self, Surroundings};
use crate::refusal::Refusal;
use crate::{entry, host_parts, schedule};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxSeccomp, Process, Spec};

/// What the caller of `exec` asks for.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// A whole process (`--process FILE`); every other member is ignored then, as the peers do.
    pub process: Option<Process>,
    /// The words after the container id.
    pub args: Vec<String>,
    /// Added to the container's own (`--env`).
    pub env: Vec<String>,
    /// In place of the container's own (`--cwd`).
    pub cwd: Option<String>,
    /// `UID[:GID]` (`--user`); see [`parse_user`].
    pub user: Option<String>,
    /// Group ids (`--additional-gids`).
    pub additional_gids: Vec<String>,
    /// Names of capabilities to be added (`--cap`).
    pub capabilities: Vec<String>,
    /// `--apparmor`.
    pub apparmor_profile: Option<String>,
    /// `--process-label`.
    pub selinux_label: Option<String>,
    /// `--no-new-privs`, when it was given.
    pub no_new_privileges: Option<bool>,
    /// `--tty`.
    pub terminal: bool,
}

/// A further process, ready to be carried out.
#[derive(Debug, Clone)]
pub struct ExecPlan {
    /// The program.
    pub process: ProcessPlan,
    /// The container's profile, as configured: it holds for every process.
    pub seccomp: Option<LinuxSeccomp>,
    /// The container's personality(2).
    pub personality: Option<u64>,
    /// The container's set_mempolicy(2).
    pub memory_policy: Option<MemoryPolicyPlan>,
    /// What the user should know; none of it changes the outcome.
    pub warnings: Vec<Warning>,
}

/// Plans a process for a running container whose configuration is `spec`.
///
/// Capabilities, labels, limits, scheduling and umask are the container's unless `request` names its own; a process
/// never has more than the container without being asked for by name.
///
/// # Errors
/// As [`crate::Plan::build`] for the process. Fields of a `--process` document are relative to it; what comes from an
/// option has the option's name as its field.
pub fn exec_process(spec: &Spec, request: &ExecRequest, facts: &HostFacts) -> Result<ExecPlan, Refusal> {
    let linux = spec.linux().as_ref();
    let mut warnings = Vec::new();
    let (process, pointer) = match &request.process {
        Some(process) => (completed(process, spec.process().as_ref()), ""),
        None => (requested(spec, request, &mut warnings)?, "/process"),
    };
    // The container exists, so what its namespaces would be warned of has been said.
    let entry = entry::plan(linux, facts, &mut Vec::new())?;
    let around = Surroundings { pointer, entry: &entry, facts, has_cpuset: has_cpuset(linux) };
    let memory_policy = linux.and_then(|linux| linux.memory_policy().as_ref());
    Ok(ExecPlan {
        process: process::plan(&process, &around, &mut warnings)?,
        seccomp: linux.and_then(|linux| linux.seccomp().clone()),
        personality: host_parts::personality(linux)?,
        memory_policy: memory_policy.map(schedule::memory_policy).transpose()?,
        warnings,
    })
}

/// A `--process` document with what it leaves to the container.
fn completed(process: &Process, container: Option<&Process>) -> Process {
    let mut process = process.clone();
    let Some(container) = container else { return process };
    if process.capabilities().is_none() {
        process.set_capabilities(container.capabilities().clone());
    }
    if process.apparmor_profile().as_deref().is_none_or(str::is_empty) {
        process.set_apparmor_profile(container.apparmor_profile().clone());
    }
    if process.selinux_label().as_deref().is_none_or(str::is_empty) {
        process.set_selinux_label(container.selinux_label().clone());
    }
    if process.rlimits().as_deref().is_none_or(<[_]>::is_empty) {
        process.set_rlimits(container.rlimits().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*container.io_priority());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(container.scheduler().clone());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(container.exec_cpu_affinity().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(container.oom_score_adj());
    }
    if process.user().umask().is_none() {
        process.user_mut().set_umask(container.user().umask());
    }
    process
}

/// The container's own process with what the options change.
fn requested(spec: &Spec, request: &ExecRequest, warnings: &mut Vec<Warning>) -> Result<Process, Refusal> {
    if request.args.is_empty() {
        return Err(Refusal::new("", "exec args cannot be empty"));
    }
    let container = spec.process().as_ref();
    let mut process = container.cloned().ok_or_else(|| Refusal::new("", "the container has no process"))?;
    process.set_args(Some(request.args.clone()));
    process.set_terminal(Some(request.terminal));
    let mut env = process::environment(process.env().as_deref().unwrap_or_default(), "/process/env")?;
    env.extend(process::environment(&request.env, "--env")?);
    process.set_env(Some(env));
    if let Some(cwd) = request.cwd.as_ref().filter(|cwd| !cwd.is_empty()) {
        if !cwd.starts_with('/') {
            return Err(Refusal::new("--cwd", format!("cwd {cwd:?} is not an absolute path")));
        }
        process.set_cwd(cwd.into());
    }
    if let Some(profile) = request.apparmor_profile.as_ref().filter(|profile| !profile.is_empty()) {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = request.selinux_label.as_ref().filter(|label| !label.is_empty()) {
        process.set_selinux_label(Some(label.clone()));
    }
    if request.no_new_privileges.is_some() {
        process.set_no_new_privileges(request.no_new_privileges);
    }
    user(&mut process, request)?;
    if !request.capabilities.is_empty() {
        let sets = with_capabilities(process.capabilities().as_ref(), &request.capabilities, warnings);
        process.set_capabilities(Some(sets));
    }
    Ok(process)
}

fn user(process: &mut Process, request: &ExecRequest) -> Result<(), Refusal> {
    let user = process.user_mut();
    if let Some(text) = &request.user {
        let (uid, gid) = parse_user(text)?;
        user.set_uid(uid);
        user.set_gid(gid.unwrap_or(user.gid()));
    }
    if !request.additional_gids.is_empty() {
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        for text in &request.additional_gids {
            let refusal = || Refusal::new("--additional-gids", format!("{text:?} is not a group id"));
            gids.push(id(text).ok_or_else(refusal)?);
        }
        user.set_additional_gids(Some(gids));
    }
    Ok(())
}

/// Reads `UID[:GID]`: decimal numbers below 4294967295 without sign, blanks or leading zeros, the whole string.
///
/// # Errors
/// Anything else; nothing is ever read as 0 (CVE-2026-30892).
pub fn parse_user(text: &str) -> Result<(u32, Option<u32>), Refusal> {
    let refusal = |part: &str, kind: &str| {
        Refusal::new("--user", format!("bad {kind}: {part:?} is not a number from 0 to {}", u32::MAX - 1))
            .hint("names are not looked up: give UID or UID:GID")
    };
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let gid = gid.map(|gid| id(gid).ok_or_else(|| refusal(gid, "gid"))).transpose()?;
    Ok((id(uid).ok_or_else(|| refusal(uid, "uid"))?, gid))
}

fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|id| digits && plain && *id != u32::MAX)
}

/// The container's sets with `names` in bounding, effective and permitted; in ambient as well when the container has
/// an inheritable set, because ambient means nothing without it.
fn with_capabilities(
    sets: Option<&LinuxCapabilities>,
    names: &[String],
    warnings: &mut Vec<Warning>,
) -> LinuxCapabilities {
    let mut asked = Vec::new();
    for name in names {
        match known(name) {
            Some(capability) => asked.push(capability),
            None => {
                let text = format!("ignoring unknown capability {name:?}");
                warnings.push(Warning { field: "--cap".to_string(), text });
            }
        }
    }
    let more = |set: Option<&Capabilities>| {
        set.into_iter().flatten().chain(&asked).copied().collect::<Capabilities>()
    };
    let own = |set: fn(&LinuxCapabilities) -> &Option<Capabilities>| sets.and_then(|sets| set(sets).as_ref());
    let mut result = sets.cloned().unwrap_or_else(no_capabilities);
    result.set_bounding(Some(more(own(LinuxCapabilities::bounding))));
    result.set_effective(Some(more(own(LinuxCapabilities::effective))));
    result.set_permitted(Some(more(own(LinuxCapabilities::permitted))));
    if own(LinuxCapabilities::inheritable).is_some() {
        result.set_ambient(Some(more(own(LinuxCapabilities::ambient))));
    }
    result
}

fn known(name: &str) -> Option<Capability> {
    number(name)?;
    name.strip_prefix("CAP_")?.parse().ok()
}

/// The crate's own default grants three capabilities.
fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None);
    none.set_effective(None);
    none.set_permitted(None);
    none.set_inheritable(None);
    none.set_ambient(None);
    none
}
