//! The parent's part of the conversation during `create`, until the container's process is ready.

use crate::enter::{self, Entry};
use crate::error::{Code, Context, Error, Result};
use crate::groups::Remaining;
use crate::link::{Link, ToChild, ToParent};
use crate::log::Log;
use crate::root::{mounts, sources};
use crate::seal::{self, Seal};
use crate::state::{ProcessIdentity, Record, StateDir, Status};
use crate::step::Step;
use crate::{document, groups, hooks};
use hull_cgroup::{Cgroup, DeviceRules};
use hull_plan::{HostFacts, Plan};
use hull_sys::process::{Child, WaitStatus, pidfd_pid, wait, wait_until};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long the container's process may take for one step.
const STEP_DEADLINE: Duration = Duration::from_secs(60);

/// A call that the filter kills for (seccomp(2)).
const SIGSYS: i32 = 31;

/// Who takes part, and what the parent acts on.
pub struct Conversation<'a> {
    /// The parent's end.
    pub link: &'a Link,
    /// For the child's remarks.
    pub log: &'a Log,
    /// What is carried out.
    pub plan: &'a Plan,
    /// Facts about the host.
    pub facts: &'a HostFacts,
    /// The way in.
    pub entry: &'a Entry<'a>,
    /// The container's control groups.
    pub cgroup: &'a mut Cgroup,
    /// What the process does not enter itself.
    pub remaining: Remaining,
    /// Which devices may be used.
    pub devices: Option<&'a DeviceRules>,
    /// The compiled profile.
    pub seal: Option<&'a Seal>,
    /// Completed on the way.
    pub record: &'a mut Record,
    /// Where the record is kept.
    pub directory: &'a StateDir,
}

/// Holds the conversation with `child`; returns the container's process, which is another one after a relay.
pub fn hold(talk: &mut Conversation<'_>, child: Child) -> (Child, Result<()>) {
    let (child, placed) = place(talk, child);
    let outcome = placed.and_then(|()| listen(talk, &child));
    (child, outcome)
}

/// Maps, control groups, identity: what the child cannot do for itself.
fn place(talk: &mut Conversation<'_>, child: Child) -> (Child, Result<()>) {
    let child = if talk.entry.uses_relay() {
        match await_relayed(talk, &child) {
            Ok(process) => process,
            Err(error) => return (child, Err(error)),
        }
    } else {
        child
    };
    let outcome = (|| {
        talk.record.init = Some(ProcessIdentity::of(child.pid)?);
        // Before it is in any control group: delete takes nobody else's processes for the container's.
        talk.directory.write(talk.record)?;
        if let Some(maps) = &talk.plan.entry.id_maps {
            enter::write_id_maps(child.pid, maps, talk.facts).map_err(|error| error.step(Step::MapIds))?;
        }
        groups::attach(talk.cgroup, child.pid, talk.remaining)?;
        groups::give_away(talk.cgroup, talk.plan, talk.facts)?;
        talk.record.resctrl.join(child.pid.as_raw())?;
        if talk.remaining == Remaining::All {
            groups::allow_all_cpus(child.pid);
        }
        crate::network::move_interfaces(&talk.plan.net_devices, talk.entry, &child)?;
        talk.link.order(ToChild::Proceed)
    })();
    (child, outcome)
}

/// The relay announces the container's process and ends.
fn await_relayed(talk: &Conversation<'_>, relay: &Child) -> Result<Child> {
    let pidfd = match next(talk, relay)? {
        ToParent::InitPid(pidfd) => pidfd,
        other => return Err(unexpected(&other)),
    };
    wait(relay.pidfd.as_fd()).context(|| "reap the relay")?;
    let pid = pidfd_pid(pidfd.as_fd()).context(|| "read the pid of the container's process")?;
    let pid = pid.ok_or_else(|| Error::new(Code::InitDied, "the container's process is gone"))?;
    Ok(Child { pid, pidfd })
}

/// Hooks when the root is ready, the listener of the filter, until nothing is left to be said.
fn listen(talk: &mut Conversation<'_>, child: &Child) -> Result<()> {
    loop {
        match next(talk, child)? {
            ToParent::MapIds(index, tree) => {
                map_ids(talk, index, &tree).map_err(|error| error.step(Step::Mounts))?;
                talk.link.order(ToChild::IdsMapped)?;
            }
            ToParent::RootReady => {
                run_hooks(talk).map_err(|error| error.step(Step::RuntimeHooks))?;
                talk.link.order(ToChild::HooksDone)?;
            }
            ToParent::Ready if !talk.seal.is_some_and(|seal| seal.may_report) => return Ok(()),
            ToParent::Ready => {}
            ToParent::Sealed => return Ok(()),
            ToParent::SeccompFd(fd) => {
                let Some(listener) = talk.seal.and_then(|seal| seal.listener.as_ref()) else { return Ok(()) };
                let state = document::state_value(talk.record, Status::Creating);
                return seal::hand_over(listener, &fd, &state, child.pid.as_raw());
            }
            other @ (ToParent::InitPid(_) | ToParent::Log(..) | ToParent::Failed(_)) => {
                return Err(unexpected(&other));
            }
        }
    }
}

/// The kernel lets only who rules the file system's own user namespace map ids, which a container with another has not.
fn map_ids(talk: &Conversation<'_>, index: usize, tree: &OwnedFd) -> Result<()> {
    let mount = talk.plan.mounts.get(index);
    let mount = mount.ok_or_else(|| Error::new(Code::InitDied, format!("there is no mount {index}")))?;
    sources::map_ids(talk.plan, mount, talk.facts, tree).map_err(|error| mounts::named(mount, error))
}

fn run_hooks(talk: &mut Conversation<'_>) -> Result<()> {
    // The device policy comes after the nodes are made, and before any program of the container's can run.
    if let Some(rules) = talk.devices {
        talk.cgroup.apply_devices(rules, talk.facts.rootless)?;
    }
    let plan = talk.plan;
    if plan.hooks.prestart.is_empty() && plan.hooks.create_runtime.is_empty() {
        return Ok(());
    }
    // A hook may ask for the state.
    talk.record.in_hooks = true;
    talk.directory.write(talk.record)?;
    // The runtime environment exists, so the container counts as created for its hooks (and every peer but one).
    let state = document::state(talk.record, Status::Created);
    hooks::before_entering(&plan.hooks, &state, talk.directory)
}

/// The next message that is no remark; failure and death of the child are errors.
fn next(talk: &Conversation<'_>, child: &Child) -> Result<ToParent> {
    let longest = hooks::longest(&talk.plan.hooks.create_container);
    let deadline = Instant::now() + STEP_DEADLINE + longest;
    loop {
        match talk.link.hear(deadline)? {
            Some(ToParent::Log(level, text)) => talk.log.write(level, &text),
            Some(ToParent::Failed(error)) => return Err(error.of_init()),
            Some(message) => return Ok(message),
            None => return Err(died(child)),
        }
    }
}

/// The end of the conversation without a reason: how the container's first process ended says more.
pub fn died(child: &Child) -> Error {
    died_as("container init", child)
}

/// The same of a process with another name.
pub fn died_as(who: &str, child: &Child) -> Error {
    let status = wait_until(child.pidfd.as_fd(), Instant::now() + Duration::from_secs(2));
    let how = match status {
        Ok(Some(WaitStatus::Exited(code))) => format!("exited with status {code}"),
        Ok(Some(WaitStatus::Signaled(signal))) => format!("was killed by signal {signal}"),
        _ => "went away".to_owned(),
    };
    let error = Error::new(Code::InitDied, format!("{who} {how} before it was ready"));
    match status {
        Ok(Some(WaitStatus::Signaled(SIGSYS))) => error
            .field("/linux/seccomp")
            .hint("the profile kills a call that comes after it is loaded; execve is always among them"),
        _ => error,
    }
}

fn unexpected(message: &ToParent) -> Error {
    Error::new(
        Code::InitDied,
        format!("the container's process said {message:?} to the runtime, which did not wait for that"),
    )
}
