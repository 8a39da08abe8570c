//! The runtime's side of `create`: from the bundle to a process that waits for `start`.
//!
//! What is made on the way is owned by guards, and its place is journaled before it is made; the guards let go on the
//! last lines of success.

use crate::bundle::Bundle;
use crate::console::Destination;
use crate::conversation::{self, Conversation};
use crate::enter::Entry;
use crate::error::{Code, Context, Error, Result};
use crate::gate::Gate;
use crate::globals::Globals;
use crate::groups::{Remaining, spawn_into};
use crate::init::{self, Job};
use crate::link::Link;
use crate::log::{Level, timestamp_nanoseconds};
use crate::resctrl::{Class, Places};
use crate::root::{self, sources};
use crate::seal::Seal;
use crate::state::{ContainerId, Record, StateDir, Status, VERSION};
use crate::step::{Step, at};
use crate::{
    activation, console, document, hooks, host, host_mounts, notify, oom_kill, oom_score, resctrl, streams,
};
use hull_cgroup::{Cgroup, CgroupPlan, CgroupSpec, Door, Hierarchies, Manager};
use hull_plan::{HostFacts, NamespaceKind, Plan};
use hull_sys::errno::{EAGAIN, ENOSPC, EPERM};
use hull_sys::namespace::CloneFlags;
use hull_sys::process::{Child, CloneRequest, Title, exit_now, pidfd_send_signal, wait_until};
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SIGKILL: i32 = 9;

/// How long a process that is given up may take to die.
const DEADLINE: Duration = Duration::from_secs(10);

/// What `create` and `run` are asked for.
#[derive(Debug)]
pub struct Request {
    /// Container id.
    pub id: ContainerId,
    /// The bundle's directory; empty: the working directory.
    pub bundle: PathBuf,
    /// `--console-socket`.
    pub console_socket: Option<PathBuf>,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--pidfd-socket`.
    pub pidfd_socket: Option<PathBuf>,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// `--preserve-fds`, with those of socket activation.
    pub preserve_fds: u32,
    /// A terminal of the runtime's own, for `run` in the foreground.
    pub own_console: Option<Destination>,
    /// `run`: the link stays open and says start; there is no gate.
    pub starts_at_once: bool,
}

/// A created container.
#[derive(Debug)]
pub struct Created {
    /// Its state directory, locked.
    pub directory: StateDir,
    /// Its record.
    pub record: Record,
    /// Its plan.
    pub plan: Plan,
    /// Its first process.
    pub child: Child,
    /// The parent's end of the link.
    pub link: Link,
}

/// A child that is killed and reaped unless it is kept.
pub struct ChildGuard {
    child: Option<Child>,
}

impl ChildGuard {
    /// Guards `child`, if there is one.
    pub const fn of(child: Option<Child>) -> Self {
        Self { child }
    }

    /// The process.
    pub const fn child(&self) -> Option<&Child> {
        self.child.as_ref()
    }

    /// Lets it live.
    pub fn keep(mut self) -> Option<Child> {
        self.child.take()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            // Gone already is as good; a process that cannot be reaped was not ours.
            let _gone = pidfd_send_signal(child.pidfd.as_fd(), SIGKILL);
            // One that a device or a file server keeps from dying stays for whoever reaps the orphans.
            let _reaped = wait_until(child.pidfd.as_fd(), Instant::now() + DEADLINE);
        }
    }
}

/// Everything that is decided before the first effect.
pub struct Decisions {
    bundle: Bundle,
    /// What is carried out.
    pub plan: Plan,
    /// Facts about the host.
    pub facts: HostFacts,
    seal: Option<Seal>,
    /// The control group file systems of the host.
    pub hierarchies: Hierarchies,
    /// The container's control groups.
    pub cgroup: CgroupPlan,
    keeps_keyring: bool,
}

/// Creates the container; on failure nothing of it is left but what cannot be ended (see [`undo_groups`]).
pub fn create(mut request: Request, globals: &Globals) -> Result<Created> {
    let mut decided = decide(&request, globals)?;
    let console =
        request.console_socket.as_deref().map(console::connect).transpose()?.or(request.own_console.take());
    let mut directory = at(Step::Reserve, || globals.state()?.reserve(&request.id))?;
    notify::prepare(&mut decided.plan, &directory)?;
    let Decisions { plan, facts, seal, .. } = &decided;
    // Here are the last refusals of the configuration: those that take a look at namespaces of others.
    let entry = Entry::open(plan, facts.rootless)?;
    let mut record = journal(&directory, &decided)?;
    let gate = make_gate(&directory, seal.as_ref(), request.starts_at_once)?;
    let mut cgroup = Cgroup::make(&decided.cgroup, &decided.hierarchies)?;
    let class = class_of(plan, &request.id)?;
    let sources = if facts.rootless { None } else { Some(sources::open_all(plan, facts)?) };
    let (link, child_link) = Link::pair()?;
    let door = open_door(&entry, facts, &cgroup)?;
    let job = Job {
        plan,
        process: plan.process.as_ref(),
        facts,
        entry: &entry,
        sources,
        cgroup_mounts: root::cgroups::entries(&cgroup.saved_paths(), entry.has_own_cgroups(facts)?),
        door,
        gate,
        seal: seal.as_ref(),
        console,
        preserve_fds: request.preserve_fds,
        no_pivot: request.no_pivot,
        keyring: (!request.no_new_keyring).then(|| format!("_ses.{}", request.id)),
        record: &record,
    };
    let (child, remaining) = clone_process(job, child_link, &cgroup)?;
    debug(globals, &request.id, &format!("process {} cloned", child.pid.as_raw()));
    let mut conversation = Conversation {
        link: &link,
        log: &globals.log,
        plan,
        facts,
        entry: &entry,
        cgroup: &mut cgroup,
        remaining,
        devices: decided.cgroup.devices.as_ref(),
        seal: seal.as_ref(),
        record: &mut record,
        directory: &directory,
    };
    let (child, outcome) = conversation::hold(&mut conversation, child);
    let guard = ChildGuard::of(Some(child));
    let outcome = outcome
        .map_err(|error| explain_oom(error, &cgroup))
        .and_then(|()| finish(&request, guard.child()))
        .and_then(|()| complete(&directory, &mut record));
    if let Err(error) = outcome {
        return Err(undo(error, guard, plan, (&mut cgroup, &mut directory, &mut record), globals));
    }
    let child = guard.keep().ok_or_else(|| Error::new(Code::InitDied, "the container's process is gone"))?;
    cgroup.keep();
    class.into_iter().for_each(Class::keep);
    debug(globals, &request.id, "created");
    directory.keep();
    Ok(Created { directory, record, plan: decided.plan, child, link })
}

/// Reads and plans; every refusal of the configuration comes from here.
pub fn decide(request: &Request, globals: &Globals) -> Result<Decisions> {
    let bundle = Bundle::open(&request.bundle)?;
    let loaded = hull_plan::load(&bundle.config)?;
    let facts = host::probe(&bundle.path, globals.rootless)?;
    let mut plan = Plan::build(&loaded.spec, &facts)?;
    plan.process.iter_mut().for_each(|process| activation::announce(&mut process.env));
    let seal = Seal::compile(&plan).map_err(|error| error.step(Step::CompileSeccomp))?;
    for warning in loaded.warnings.iter().chain(&plan.warnings) {
        globals.log.write(Level::Warning, &format!("{} (config.json#{})", warning.text, warning.field));
    }
    if let Some(seal) = &seal {
        globals.log.write(Level::Debug, &format!("seccomp filter flags: {}", seal.flags));
    }
    for text in seal.iter().flat_map(|seal| &seal.warnings) {
        globals.log.write(Level::Debug, text);
    }
    if request.starts_at_once && plan.process.is_none() {
        return Err(Error::new(Code::ConfigInvalid, "process property must not be empty")
            .field("/process")
            .hint("only create takes a configuration without a process: there is nothing to start"));
    }
    check_terminal(&plan, request)?;
    let hierarchies = hierarchies(&facts, globals)?;
    let cgroup = plan_cgroup(&request.id, &plan, &facts, globals, &hierarchies)?;
    Ok(Decisions { bundle, plan, facts, seal, hierarchies, cgroup, keeps_keyring: request.no_new_keyring })
}

fn check_terminal(plan: &Plan, request: &Request) -> Result<()> {
    let terminal = plan.process.as_ref().is_some_and(|process| process.terminal);
    let socket = request.console_socket.is_some() || request.own_console.is_some();
    match (terminal, socket) {
        (true, false) => Err(Error::new(
            Code::Console,
            "cannot allocate tty if runc will detach without setting console socket",
        )
        .field("/process/terminal")
        .hint("give --console-socket, or set process.terminal to false")),
        (false, true) if request.console_socket.is_some() => Err(Error::new(
            Code::Console,
            "cannot use console socket if runc will not detach or allocate tty",
        )
        .field("/process/terminal")),
        _ => Ok(()),
    }
}

/// Finds the control groups of this host, and where the caller's own systemd keeps its units if that is asked.
pub fn hierarchies(facts: &HostFacts, globals: &Globals) -> Result<Hierarchies> {
    let mut hierarchies = Hierarchies::probe()?;
    if globals.cgroup_manager == Manager::Systemd && facts.rootless {
        hierarchies.ask_user_manager()?;
    }
    Ok(hierarchies)
}

/// Plans the control groups; a limit that cannot be set here is refused.
pub fn plan_cgroup(
    id: &ContainerId,
    plan: &Plan,
    facts: &HostFacts,
    globals: &Globals,
    hierarchies: &Hierarchies,
) -> Result<CgroupPlan> {
    let spec = CgroupSpec {
        path: plan.cgroups_path.as_deref(),
        id: id.as_str(),
        resources: plan.resources.as_ref(),
        rootless: facts.rootless,
        manager: globals.cgroup_manager,
        annotations: &plan.annotations,
    };
    let planned = hull_cgroup::plan(&spec, hierarchies.facts()).map_err(|refusal| {
        let text = format!("invalid configuration: {} (config.json#{})", refusal.reason, refusal.field);
        Error::new(Code::Cgroup, text).field(refusal.field).step(Step::Plan)
    })?;
    planned.left_out.into_iter().for_each(|text| globals.log.write(Level::Warning, text));
    Ok(planned)
}

/// Keeps the configuration as it was read, and what is about to be made.
pub fn journal(directory: &StateDir, decided: &Decisions) -> Result<Record> {
    directory.replace("config.json", &decided.bundle.config)?;
    let record = new_record(directory.id(), decided);
    directory.write(&record)?;
    Ok(record)
}

fn new_record(id: &ContainerId, decided: &Decisions) -> Record {
    let Decisions { bundle, plan, facts, cgroup, .. } = decided;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Record {
        version: VERSION,
        oci_version: plan.oci_version.clone(),
        id: id.to_string(),
        bundle: bundle.path.clone(),
        rootfs: plan.root.path.clone().into(),
        created: timestamp_nanoseconds(now.as_secs(), now.subsec_nanos()),
        owner: facts.uid,
        init: None,
        namespaces: own_namespaces(plan),
        joins_pids: plan.entry.joins(NamespaceKind::Pid),
        cgroup: Cgroup::planned_paths(cgroup),
        has_process: plan.process.is_some(),
        has_poststop: !plan.hooks.poststop.is_empty(),
        creating: true,
        in_hooks: false,
        resctrl: plan.intel_rdt.as_ref().map_or_else(Places::default, |rdt| {
            Places::of(Path::new(resctrl::MOUNT_POINT), rdt, id.as_str())
        }),
        host_mounts: host_mounts::of(plan),
        keeps_keyring: decided.keeps_keyring,
        streams: streams::names(plan),
        annotations: plan.annotations.clone(),
    }
}

fn debug(globals: &Globals, id: &ContainerId, what: &str) {
    globals.log.write(Level::Debug, &format!("container {id}: {what}"));
}

/// Makes the resource director class that the configuration asks for.
pub fn class_of(plan: &Plan, id: &ContainerId) -> Result<Option<Class>> {
    let make = |rdt| Class::make(Path::new(resctrl::MOUNT_POINT), rdt, id.as_str());
    plan.intel_rdt.as_ref().map(make).transpose().map_err(|error| error.step(Step::Cgroup))
}

fn own_namespaces(plan: &Plan) -> u64 {
    NamespaceKind::ALL
        .iter()
        .filter(|kind| plan.entry.has_own(**kind))
        .fold(0, |set, kind| set | kind.clone_flag())
}

fn make_gate(directory: &StateDir, seal: Option<&Seal>, starts_at_once: bool) -> Result<Option<Gate>> {
    let simple = seal.is_some_and(|seal| !seal.may_use_gate);
    // The link's own word for start takes calls that such a profile denies.
    if starts_at_once && !simple {
        return Ok(None);
    }
    Gate::make(directory, simple).map(Some).map_err(|error| error.step(Step::Gate))
}

fn open_door(entry: &Entry<'_>, facts: &HostFacts, cgroup: &Cgroup) -> Result<Option<Door>> {
    let opened = entry.begins_as_ourselves(facts).then(|| cgroup.door()).transpose()?;
    Ok(opened.flatten())
}

/// Clones the container's process (or the relay that will clone it).
fn clone_process(job: Job<'_>, child_link: Link, cgroup: &Cgroup) -> Result<(Child, Remaining)> {
    let entry = job.entry;
    let visit = entry.enter_pid_namespace()?;
    let score = oom_score::lend(job.process.and_then(|process| process.oom_score_adj))?;
    if let Some((process, maps)) = job.process.zip(job.plan.entry.id_maps.as_ref()) {
        streams::hand_through(process, &maps.uid);
    }
    // Whoever shares the pid namespace reads its arguments and, unless it is hidden, its environment.
    let mut title = Title::take_on(&["hull", "init", &job.record.id]);
    let request = CloneRequest { flags: entry.first_flags(), ..CloneRequest::default() };
    let enters_itself = job.door.is_some();
    let mut given = Some((job, child_link));
    let child = spawn_into(cgroup, enters_itself, &request, &mut || match given.take() {
        Some((job, link)) => {
            title.keep();
            run_child(job, &link)
        }
        None => exit_now(1),
    })
    .context(|| "clone the container's process")
    .map_err(|error| forbidden(error.step(Step::Clone), request.flags));
    drop(title);
    drop(score);
    drop(visit);
    child
}

/// The child's side: the container's process, or the relay that clones it.
fn run_child(job: Job<'_>, link: &Link) -> Infallible {
    // What the parent holds for itself must not live on here: its end of the link (or its death would never be noticed),
    // the lock on the state directory, the control groups.
    if let Err(error) = hull_sys::fd::close_all_but(job.needed(link)).context(|| "close descriptors") {
        return init::give_up(link, error.step(Step::Enter));
    }
    let entry = job.entry;
    if !entry.uses_relay() {
        return init::run(job, link);
    }
    match entry.relay(link, || init::run(job, link)) {
        Ok(never) => never,
        Err(error) => init::give_up(link, error.step(Step::Enter)),
    }
}

/// Names what the host can forbid: the error of clone(2) alone says nothing of it.
fn forbidden(error: Error, asked: CloneFlags) -> Error {
    let what = match error.errno {
        Some(ENOSPC) => "a limit below /proc/sys/user is reached, max_user_namespaces or another",
        Some(EPERM) if asked.contains(CloneFlags::NEWUSER) => {
            "user namespaces may be restricted here: /proc/sys/kernel/unprivileged_userns_clone, apparmor_restrict_unprivileged_userns"
        }
        Some(EPERM) => "new namespaces need CAP_SYS_ADMIN, or a user namespace among them",
        Some(EAGAIN) => "the pids limit of the caller's own control group, or RLIMIT_NPROC, is reached",
        _ => return error,
    };
    error.for_want_of(what)
}

/// Tells the caller of the process.
pub fn finish(request: &Request, child: Option<&Child>) -> Result<()> {
    let Some(child) = child else { return Ok(()) };
    if let Some(path) = &request.pid_file {
        crate::pid_file::write(path, child.pid)?;
    }
    if let Some(path) = &request.pidfd_socket {
        crate::pid_file::send_pidfd(path, child.pidfd.as_fd())?;
    }
    Ok(())
}

fn complete(directory: &StateDir, record: &mut Record) -> Result<()> {
    (record.creating, record.in_hooks) = (false, false);
    directory.write(record)
}

fn undo(
    error: Error,
    process: ChildGuard,
    plan: &Plan,
    (cgroup, directory, record): (&mut Cgroup, &mut StateDir, &mut Record),
    globals: &Globals,
) -> Error {
    let error = destroy_after_failure(error, process, plan, (directory, record), globals);
    record.has_poststop = false;
    undo_groups(cgroup, directory, record, globals);
    error
}

/// A container whose process was made and failed is destroyed, with its poststop hooks, whichever others had run.
pub fn destroy_after_failure(
    error: Error,
    process: ChildGuard,
    plan: &Plan,
    (directory, record): (&StateDir, &Record),
    globals: &Globals,
) -> Error {
    drop(process);
    host_mounts::take_away(record);
    hooks::after_the_end(&plan.hooks, &document::state(record, Status::Stopped), directory, &globals.log);
    error
}

/// Takes the control groups away. Those that somebody is still in are found by the journal, so it stays, for `delete` to take
/// it up from there.
pub fn undo_groups(cgroup: &mut Cgroup, directory: &mut StateDir, record: &Record, globals: &Globals) {
    let Err(stays) = cgroup.undo() else { return };
    let text = format!("{}; 'delete --force' removes what is left", Error::from(stays));
    globals.log.write(Level::Warning, &text);
    // Where it cannot be written, the one that is there names the groups as well.
    let _full = directory.write(record);
    directory.keep();
}

/// A process that was killed for its memory limit says nothing itself.
fn explain_oom(error: Error, cgroup: &Cgroup) -> Error {
    if error.code == Code::InitDied { oom_kill::explain(error, cgroup, "container init") } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_a_clone_is_told_by_what_was_asked_for() {
        let told = |errno, asked| {
            forbidden(Error::sys("clone", hull_sys::SysError::new("clone3", errno)), asked).message
        };
        let own_users = CloneFlags::NEWNS | CloneFlags::NEWUSER;
        for (errno, asked, words) in [
            (EPERM, own_users, "user namespaces may be restricted"),
            (EPERM, CloneFlags::NEWNS, "CAP_SYS_ADMIN"),
            (ENOSPC, own_users, "/proc/sys/user"),
            (EAGAIN, own_users, "pids limit"),
        ] {
            let text = told(errno, asked);
            assert!(text.contains(words), "{text}");
        }
        let text = told(hull_sys::errno::EINVAL, own_users);
        assert!(!text.contains('('), "{text}");
    }
}
