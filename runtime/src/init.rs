//! The container's side of `create`: from the clone to the exec of the program.
//!
//! Runs in a process that shares nothing with the runtime any more but the link, so every step that fails is told to the
//! parent (before [`ToParent::Ready`]) or to the caller of `start` (after it), and then the process ends.

use crate::console::{Console, Destination};
use crate::enter::Entry;
use crate::error::{Context, Error, Result};
use crate::gate::{Gate, Starter};
use crate::hooks::Moment;
use crate::last_mile::{self, Program, Walk, execve_error};
use crate::link::{Link, ToChild, ToParent};
use crate::root::cgroups::MountEntry;
use crate::root::sources::{self, Sources};
use crate::root::{self, devices, masks, mounts, pivot};
use crate::seal::Seal;
use crate::state::{Record, Status};
use crate::step::{Step, at};
use crate::{document, groups, network, streams, sysctl};
use hull_cgroup::Door;
use hull_plan::{Hook, HostFacts, NamespaceKind, Plan, ProcessPlan};
use hull_rooted::{Proc, Root, View};
use hull_sys::errno::ENOSYS;
use hull_sys::process::{Pid, execve, exit_now};
use hull_sys::signal;
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// Everything the child needs, made before the clone; it has the same plan in memory.
#[derive(Debug)]
pub struct Job<'a> {
    /// What to carry out.
    pub plan: &'a Plan,
    /// The program.
    pub process: Option<&'a ProcessPlan>,
    /// Facts about the host.
    pub facts: &'a HostFacts,
    /// The way in.
    pub entry: &'a Entry<'a>,
    /// Opened before the clone where the caller may.
    pub sources: Option<Sources>,
    /// The container's control groups, for `cgroup` mounts.
    pub cgroup_mounts: Vec<MountEntry>,
    /// By which the process enters its control groups itself; none: the parent puts it there.
    pub door: Option<Door>,
    /// Where a created container waits; none: `run`, which says [`ToChild::Start`] on the link.
    pub gate: Option<Gate>,
    /// The compiled profile.
    pub seal: Option<&'a Seal>,
    /// Connected; the terminal's master is sent here.
    pub console: Option<Destination>,
    /// How many descriptors from 3 up reach the program.
    pub preserve_fds: u32,
    /// Switch the root by chroot.
    pub no_pivot: bool,
    /// Name of the session keyring; none: the caller's stays.
    pub keyring: Option<String>,
    /// For the state that hooks inside are told.
    pub record: &'a Record,
}

impl Job<'_> {
    /// Numbers of the descriptors that the child uses.
    pub fn needed(&self, link: &Link) -> Vec<RawFd> {
        let mut fds = vec![link.fd().as_raw_fd()];
        fds.extend(self.entry.descriptors());
        fds.extend(self.door.iter().flat_map(Door::descriptors));
        fds.extend(self.gate.iter().map(Gate::descriptor));
        fds.extend(self.console.iter().map(|console| console.socket.as_raw_fd()));
        if let Some(sources) = &self.sources {
            fds.push(sources.root.as_raw_fd());
            fds.extend(sources.mounts.iter().flatten().map(AsRawFd::as_raw_fd));
        }
        fds.extend((0..self.preserve_fds).map(|index| 3 + index.cast_signed()));
        fds
    }
}

/// Runs the container's process; returns never.
pub fn run(mut job: Job<'_>, link: &Link) -> Infallible {
    let prepared = match become_container(&mut job, link) {
        Ok(prepared) => prepared,
        Err(error) => return give_up(link, error),
    };
    wait_and_execute(&job, link, &prepared)
}

/// What is left to be done at start.
struct Prepared {
    program: Program,
}

/// Tells the parent why, and ends.
pub fn give_up(link: &Link, error: Error) -> Infallible {
    // The parent is gone when this fails, and so will be this process.
    let _gone = link.tell(&ToParent::Failed(Box::new(error)));
    exit_now(1)
}

/// The steps of create, in order.
fn become_container(job: &mut Job<'_>, link: &Link) -> Result<Prepared> {
    let plan = job.plan;
    at(Step::Enter, || hide_from_neighbours(job))?;
    at(Step::Enter, || job.entry.join())?;
    at(Step::Enter, || link.await_order(ToChild::Proceed))?;
    at(Step::Cgroup, || enter_groups(job.door.take()))?;
    at(Step::Enter, || job.entry.finish())?;
    at(Step::Enter, || hull_sys::process::setsid().context(|| "setsid").map(drop))?;
    at(Step::Keyring, || join_keyring(job.keyring.as_deref()))?;
    at(Step::Network, || network::bring_up_loopback(&plan.entry))?;
    let mut sources = match job.sources.take() {
        Some(sources) => sources,
        None => at(Step::Root, || sources::open_all(plan, job.facts))?,
    };
    let own_mounts = plan.entry.has_own(NamespaceKind::Mount);
    let root = if own_mounts {
        root::attach(&plan.root, sources.root, job.no_pivot)
    } else {
        root::handle(sources.root)
    };
    let mut root = at(Step::Root, || root)?;
    let late = at(Step::Mounts, || {
        mounts::mount_all(&mut root, plan, job.facts, link, &mut sources.mounts, &job.cgroup_mounts)
    })?;
    at(Step::Devices, || devices::make_all(&root, plan))?;
    at(Step::RuntimeHooks, || link.tell(&ToParent::RootReady))?;
    at(Step::RuntimeHooks, || link.await_order(ToChild::HooksDone))?;
    at(Step::ContainerHooks, || {
        // Hooks of this kind find the root in their working directory.
        hull_sys::fs::fchdir(root.as_fd()).context(|| "enter the root")?;
        inside("createContainer", &state_inside(job)).run_all(&plan.hooks.create_container)
    })?;
    let console = at(Step::Console, || open_console(job, &root))?;
    at(Step::Devices, || mounts::seal_late(plan, late))?;
    at(Step::Masks, || masks::apply(&root, plan))?;
    // Opened while the host's procfs can still be reached, should a fresh one be refused.
    let proc = at(Step::Pivot, || Proc::open(View::Whole).context(|| "open procfs"))?;
    at(Step::Pivot, || switch_root(&root, job, own_mounts))?;
    drop(root);
    at(Step::Names, || set_names(plan))?;
    at(Step::Sysctl, || sysctl::write_all(&plan.sysctl, &proc))?;
    if let Some(process) = job.process {
        last_mile::provide_cwd(&process.cwd);
    }
    at(Step::Pivot, || pivot::seal(&plan.root, own_mounts))?;
    let Some(process) = job.process else { return wait_without_program(link) };
    at(Step::Console, || match console {
        Some(console) => console.take_over(),
        None if own_mounts => streams::take_own_null(&proc),
        None => Ok(()),
    })?;
    let program = Walk {
        process,
        memory_policy: plan.memory_policy.as_ref(),
        personality: plan.personality,
        seal: job.seal,
        preserve_fds: job.preserve_fds,
        rootless: job.facts.rootless,
        own_root: own_mounts,
    }
    .to_program(&proc, link)?;
    Ok(Prepared { program })
}

/// Until the exec this is the runtime, with its memory: processes of another container in the same pid namespace, and those
/// that an exec brings before the start, must not trace it, once it is no more than they are (R12). A caller without
/// privileges could not write its id mappings then, nor exec into it.
fn hide_from_neighbours(job: &Job<'_>) -> Result<()> {
    if job.facts.rootless {
        return Ok(());
    }
    hull_sys::process::set_dumpable(false).context(|| "become non-dumpable")
}

fn enter_groups(door: Option<Door>) -> Result<()> {
    let Some(door) = door else { return Ok(()) };
    groups::enter(door)?;
    groups::allow_all_cpus(Pid::from_raw(0));
    Ok(())
}

pub fn join_keyring(name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    match hull_sys::keyring::join_session_keyring(name) {
        // A kernel without keys has no keyring to leak.
        Err(error) if error.is(ENOSYS) => Ok(()),
        other => other.map(drop).context(|| "make the session keyring"),
    }
}

fn open_console(job: &Job<'_>, root: &Root) -> Result<Option<Console>> {
    let Some(process) = job.process.filter(|process| process.terminal) else { return Ok(None) };
    let console = Console::open(root, process.uid, process.console_size)?;
    if job.plan.default_dev_links {
        console.bind_at_dev_console(root)?;
    }
    if let Some(socket) = &job.console {
        console.hand_over(socket)?;
    }
    Ok(Some(console))
}

fn switch_root(root: &Root, job: &Job<'_>, own_mounts: bool) -> Result<()> {
    if own_mounts && !job.no_pivot {
        return pivot::pivot(root);
    }
    if own_mounts {
        pivot::hide_host_proc()?;
    }
    pivot::change_root(root)
}

fn set_names(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.hostname {
        hull_sys::uts::set_host_name(name.as_bytes())
            .context(|| "set the hostname")
            .map_err(|error| error.field("/hostname"))?;
    }
    if let Some(name) = &plan.domainname {
        hull_sys::uts::set_domain_name(name.as_bytes())
            .context(|| "set the domainname")
            .map_err(|error| error.field("/domainname"))?;
    }
    Ok(())
}

/// Created without a program: `start` refuses, and this process waits to be killed.
fn wait_without_program(link: &Link) -> Result<Prepared> {
    link.tell(&ToParent::Ready)?;
    loop {
        hull_sys::poll::wait_for_signal().context(|| "wait")?;
    }
}

/// After create: waits for the start, runs the startContainer hooks, executes the program.
fn wait_and_execute(job: &Job<'_>, link: &Link, prepared: &Prepared) -> Infallible {
    // Process 1 of a pid namespace ignores what it does not handle: a created container has to be stoppable.
    signal::end_on_termination_signals();
    let starter = match &job.gate {
        None => match link.await_order(ToChild::Start) {
            Ok(()) => None,
            Err(_) => exit_now(1),
        },
        Some(gate) => match gate.wait() {
            Ok(starter) => Some(starter),
            Err(_) => exit_now(1),
        },
    };
    let error = execute(job, prepared);
    report(link, starter.as_ref(), error);
    exit_now(1)
}

fn execute(job: &Job<'_>, prepared: &Prepared) -> Error {
    if let Err(error) = at(Step::StartHooks, || run_start_hooks(job, &prepared.program)) {
        return error;
    }
    let program = &prepared.program;
    let cause = execve(&program.path, &program.argv, &program.envp);
    execve_error(program, cause).step(Step::Exec)
}

/// The status is the one that the hooks outside are told too: the runtime environment exists.
/// Hooks that this process runs end with it.
const fn inside<'a>(kind: &'static str, state: &'a str) -> Moment<'a> {
    Moment { kind, state, directory: None }
}

fn state_inside(job: &Job<'_>) -> String {
    document::state_inside(job.record, Status::Created)
}

/// A hook that does not read its state must not end this process: the dispositions are the program's already.
fn run_start_hooks(job: &Job<'_>, program: &Program) -> Result<()> {
    if job.plan.hooks.start_container.is_empty() {
        return Ok(());
    }
    signal::ignore_broken_pipes();
    inside("startContainer", &state_inside(job)).run_all(&start_hooks(job, program))?;
    signal::reset_ignored(signal::SIGPIPE).context(|| "reset signals")
}

/// The one kind of hook that runs inside: without an environment of its own it has the process's (R17).
fn start_hooks(job: &Job<'_>, program: &Program) -> Vec<Hook> {
    let mut hooks = job.plan.hooks.start_container.clone();
    let environment =
        || program.envp.strings().iter().map(|text| text.to_string_lossy().into_owned()).collect();
    hooks.iter_mut().filter(|hook| hook.env.is_empty()).for_each(|hook| hook.env = environment());
    hooks
}

fn report(link: &Link, starter: Option<&Starter>, error: Error) {
    match starter {
        Some(starter) => starter.fail(&error),
        // The caller of `run` is gone when this fails.
        None => drop(link.tell(&ToParent::Failed(Box::new(error)))),
    }
}
