//! `restore`: a container as `create` makes it, but for its processes, which CRIU makes from images.
//!
//! CRIU runs in the container's control groups, so that whatever it makes is in there too, and in a mount namespace of its
//! own, so that nothing of what it mounts outlives it.

use crate::console::Destination;
use crate::create::{self, ChildGuard, Decisions, Request};
use crate::criu::external::{self, Places};
use crate::criu::images::Images;
use crate::criu::messages::{InheritFd, Notification, Options, RESTORE, Request as Question};
use crate::criu::program::Criu;
use crate::criu::worker::{Start, Streams, Worker, inherited_number};
use crate::error::{Code, Context, Error, Result};
use crate::files::{open_place, open_place_dir, read_text};
use crate::globals::Globals;
use crate::log::Level;
use crate::root::cgroups::{self, MountEntry as CgroupEntry};
use crate::root::prepare;
use crate::state::{ProcessIdentity, Record, StateDir, Status};
use crate::step::{Step, at};
use crate::{checkpoint, console, document, hooks, network, notify, oom_kill};
use hull_cgroup::Cgroup;
use hull_plan::{NamespaceKind, Plan};
use hull_rooted::Root;
use hull_sys::mount::{MS_SLAVE, move_mount, open_tree_fd, set_propagation_path};
use hull_sys::process::{Child, Pid, WaitStatus, pidfd_open};
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the root file system is mounted for CRIU, below the state directory: CRIU wants a mount of its own, with nothing
/// over the one below it.
const ROOT: &str = "root";

/// Where its work directory is mounted.
const WORK: &str = "work";

/// How long half-made processes may take to die.
const DEADLINE: Duration = Duration::from_secs(10);

/// The images, and CRIU's own switches as they are sent.
#[derive(Debug, Default)]
pub struct Source {
    /// `--image-path`.
    pub image_path: Option<PathBuf>,
    /// `--work-path`.
    pub work_path: Option<PathBuf>,
    /// The switches that CRIU has by the same names.
    pub switches: Options,
}

/// A restored container.
#[derive(Debug)]
pub struct Restored {
    /// Its state directory, locked.
    pub directory: StateDir,
    /// Its first process, a child of ours.
    pub child: Child,
    /// It has a terminal, which was sent.
    pub has_terminal: bool,
}

/// Restores the container; on failure nothing of it is left but what cannot be ended.
pub fn restore(mut request: Request, source: &Source, globals: &Globals) -> Result<Restored> {
    let images =
        at(Step::Restore, || Images::open(source.image_path.as_deref(), source.work_path.as_deref()))?;
    let streams = at(Step::Restore, || images.read_streams())?;
    let decided = create::decide(&request, globals)?;
    at(Step::Restore, || checkpoint::refuse_rootless(&decided.facts))?;
    checkpoint::refuse_shared_mounts(&decided.plan)?;
    let joins = at(Step::Plan, || external::joined_namespaces(&decided.plan))?;
    let criu = at(Step::Restore, || Criu::find(globals.criu.as_deref()))?;
    globals.log.write(Level::Debug, &format!("criu {} at {}", criu.version(), criu.path().display()));
    let console =
        request.console_socket.as_deref().map(console::connect).transpose()?.or(request.own_console.take());
    let mut directory = at(Step::Reserve, || globals.state()?.reserve(&request.id))?;
    let mut record = create::journal(&directory, &decided)?;
    let mut cgroup = Cgroup::make(&decided.cgroup, &decided.hierarchies)?;
    let class = create::class_of(&decided.plan, &request.id)?;
    at(Step::Mounts, || prepare::make_targets(&decided.plan, &decided.facts))?;
    let namespaces = open_outside(&decided.plan)?;
    let work = at(Step::Restore, || images.work_tree())?;
    let mut options = Options {
        join_ns: joins,
        work_dir_fd: Some(work.as_raw_fd()),
        ..options(&images, &directory, &record, source)
    };
    options.external = external_mounts(&decided, &directory, &cgroup)?;
    options.inherit_fd = inherited(&decided.plan, &streams);
    let mut scene = Scene {
        decided: &decided,
        globals,
        directory: &directory,
        record: &mut record,
        cgroup: &mut cgroup,
        console,
        child: None,
        hooks_ran: false,
        has_terminal: false,
    };
    let start = Start {
        program: criu.path(),
        streams: Streams::Ours,
        inherited: &namespaces,
        prepare: Some(&|| mount_for_criu(&decided.plan, &directory, &work)),
    };
    let restored = at(Step::Restore, || scene.play(start, options, &images))
        .and_then(|()| create::finish(&request, scene.child.as_ref()));
    if let Err(error) = restored {
        let (error, hooks_ran) = (scene.clear_away(error), scene.hooks_ran);
        record.has_poststop &= !hooks_ran;
        create::undo_groups(&mut cgroup, &mut directory, &record, globals);
        return Err(error);
    }
    let has_terminal = scene.has_terminal;
    let child = scene.child.take();
    // They served CRIU; what is left of them goes with the state directory.
    let _stays = [ROOT, WORK].map(|name| std::fs::remove_dir(directory.path().join(name)));
    let child = child.ok_or_else(|| Error::new(Code::Criu, "criu made no process"))?;
    cgroup.keep();
    class.into_iter().for_each(crate::resctrl::Class::keep);
    directory.keep();
    Ok(Restored { directory, child, has_terminal })
}

/// What does not depend on the container.
fn options(images: &Images, directory: &StateDir, record: &Record, source: &Source) -> Options {
    Options {
        images_dir_fd: images.images_fd(),
        log_level: Some(4),
        log_file: Some(images.log().to_owned()),
        notify_scripts: Some(true),
        root: Some(directory.path().join(ROOT).display().to_string()),
        rst_sibling: Some(true),
        orphan_pts_master: Some(true),
        evasive_devices: Some(true),
        config_file: checkpoint::config_file(record),
        ..source.switches.clone()
    }
}

fn external_mounts(decided: &Decisions, directory: &StateDir, cgroup: &Cgroup) -> Result<Vec<String>> {
    let plan = &decided.plan;
    let root = Root::at(plan.root.path.as_str()).context(|| format!("open rootfs {}", plan.root.path))?;
    let places = Places { rootfs: &plan.root.path, root: &root };
    let entries: Vec<CgroupEntry> =
        cgroups::entries(&cgroup.saved_paths(), plan.has_own(NamespaceKind::Cgroup));
    let mut external = external::restored_mounts(plan, &places, &entries);
    let (inside, path) = notify::prepare_place(directory)?;
    external.push(format!("mnt[{inside}]:{}", path.display()));
    Ok(external)
}

/// The namespaces that CRIU inherits, in the order of [`inherited`].
fn open_outside(plan: &Plan) -> Result<Vec<OwnedFd>> {
    let outside = plan.entry.join.iter().filter(|join| external::outside_name(join.kind).is_some());
    outside
        .map(|join| {
            let open = File::open(&join.path).context(|| format!("open namespace {}", join.path));
            open.map(OwnedFd::from).map_err(|error| error.field(format!("{}/path", join.field)))
        })
        .collect()
}

/// What the images know by a name and CRIU holds already: namespaces, and the streams of the caller.
fn inherited(plan: &Plan, streams: &[String]) -> Vec<InheritFd> {
    let names = plan.entry.join.iter().filter_map(|join| external::outside_name(join.kind));
    let namespaces = names
        .enumerate()
        .map(|(index, name)| InheritFd { key: name.to_owned(), fd: inherited_number(index) });
    let known = |name: &str| name.starts_with("pipe:") || name.starts_with("file[");
    let mut inherited: Vec<_> = namespaces.collect();
    for (number, name) in (0..=2).zip(streams).filter(|(_, name)| known(name)) {
        if !inherited.iter().any(|other| other.key == *name) {
            inherited.push(InheritFd { key: name.clone(), fd: number });
        }
    }
    inherited
}

/// Runs in CRIU's own mount namespace.
fn mount_for_criu(plan: &Plan, directory: &StateDir, work: &OwnedFd) -> Result<()> {
    set_propagation_path(c"/", true, MS_SLAVE).context(|| "set the propagation of the mounts")?;
    let rootfs = plan.root.path.as_str();
    let tree = open_place_dir(rootfs)
        .and_then(|place| open_tree_fd(place.as_fd(), true, true))
        .context(|| format!("clone rootfs {rootfs}"))?;
    [(&tree, ROOT), (work, WORK)].into_iter().try_for_each(|(tree, name)| {
        let target = directory.path().join(name);
        open_place(target.as_path())
            .and_then(|target| move_mount(tree.as_fd(), target.as_fd()))
            .context(|| format!("mount at {}", target.display()))
    })
}

/// What CRIU's notifications act on.
struct Scene<'a> {
    decided: &'a Decisions,
    globals: &'a Globals,
    directory: &'a StateDir,
    record: &'a mut Record,
    cgroup: &'a mut Cgroup,
    console: Option<Destination>,
    child: Option<Child>,
    hooks_ran: bool,
    has_terminal: bool,
}

impl Scene<'_> {
    /// Has CRIU restore, from its start to its end.
    fn play(&mut self, start: Start<'_>, mut options: Options, images: &Images) -> Result<()> {
        for name in [ROOT, WORK] {
            let path = self.directory.path().join(name);
            DirBuilder::new().mode(0o700).create(&path).context(|| format!("make {}", path.display()))?;
        }
        let worker = Worker::start(start)?;
        let pid = worker.pid().as_raw();
        self.cgroup.attach(pid)?;
        self.record.resctrl.join(pid)?;
        let groups =
            read_text(format!("/proc/{pid}/cgroup").as_str()).context(|| "read criu's control groups")?;
        options.cg_root = external::cgroup_roots(&groups);
        let question = Question { kind: RESTORE, options: Some(options), ..Question::default() };
        let answered = worker.carry_out(&question, |event, file| self.attend(event, file));
        match answered.and_then(|_| worker.finish()) {
            Ok(WaitStatus::Exited(0)) if self.child.is_some() => Ok(()),
            Ok(status) => {
                Err(images
                    .explain(Error::new(Code::Criu, format!("criu ended with status {}", status.code()))))
            }
            Err(error) => Err(images.explain(error)),
        }
    }

    fn attend(&mut self, event: &Notification, file: Option<OwnedFd>) -> Result<()> {
        match event.name() {
            "setup-namespaces" => {
                self.found(event).and_then(|()| self.refuse_the_hosts_users()).and_then(|()| self.run_hooks())
            }
            "post-restore" => self.found(event).and_then(|()| self.complete()),
            "orphan-pts-master" => self.hand_over(file),
            _ => Ok(()),
        }
    }

    /// The first process exists: from here on `delete` can find it.
    fn found(&mut self, event: &Notification) -> Result<()> {
        let Some(pid) = event.pid.filter(|pid| *pid > 0).map(Pid::from_raw) else {
            return Err(Error::new(Code::Criu, format!("criu gave no process at {}", event.name())));
        };
        if self.child.as_ref().is_none_or(|child| child.pid != pid) {
            let pidfd = pidfd_open(pid).context(|| "open the restored process")?;
            self.child = Some(Child { pid, pidfd });
        }
        self.record.init = Some(ProcessIdentity::of(pid)?);
        self.directory.write(self.record)
    }

    /// prestart and createRuntime, as at create: namespaces are there, and nothing runs yet.
    fn run_hooks(&mut self) -> Result<()> {
        let plan = &self.decided.plan;
        if let Some(child) = &self.child {
            network::refit(&plan.net_devices, &plan.entry, child)?;
        }
        if plan.hooks.prestart.is_empty() && plan.hooks.create_runtime.is_empty() {
            return Ok(());
        }
        self.hooks_ran = true;
        self.record.in_hooks = true;
        self.directory.write(self.record)?;
        let state = document::state(self.record, Status::Created);
        hooks::before_entering(&plan.hooks, &state, self.directory)
            .map_err(|error| error.step(Step::RuntimeHooks))
    }

    /// All processes are there, and none runs yet: the device policy, and the record.
    fn complete(&mut self) -> Result<()> {
        if let Some(rules) = &self.decided.cgroup.devices {
            self.cgroup.apply_devices(rules, self.decided.facts.rootless)?;
        }
        (self.record.creating, self.record.in_hooks) = (false, false);
        // CRIU restores clocks as well, by a time namespace that no configuration names.
        if self.child.as_ref().is_some_and(|child| has_own(child, "time")) {
            self.record.namespaces |= NamespaceKind::Time.clone_flag();
        }
        self.directory.write(self.record)
    }

    /// CRIU restores the namespaces of the images. Where theirs was the host's user namespace and the configuration asks for
    /// another, the container would be root of the host while everything says that it is not.
    fn refuse_the_hosts_users(&self) -> Result<()> {
        let wanted = self.decided.plan.entry.has_own(NamespaceKind::User);
        if !wanted || self.child.as_ref().is_none_or(|child| has_own(child, "user")) {
            return Ok(());
        }
        let text = "the images are those of a container without a user namespace";
        Err(Error::new(Code::Unsupported, text).field("/linux/namespaces"))
    }

    /// A terminal whose master was outside: the first is the container's, others were those of `exec`.
    fn hand_over(&mut self, file: Option<OwnedFd>) -> Result<()> {
        let Some(master) = file else { return Ok(()) };
        if self.has_terminal {
            return Ok(());
        }
        let console = self.console.take().ok_or_else(|| {
            Error::new(Code::Console, "the images have a terminal, and there is nobody to take it")
                .field("/process/terminal")
                .hint("the configuration of a container with a terminal sets process.terminal")
        })?;
        console::send_master(&console, b"/dev/ptmx", master.as_fd())?;
        self.has_terminal = true;
        Ok(())
    }

    /// After a failure: CRIU has ended and has undone what it could; the rest is in the control groups.
    fn clear_away(&mut self, error: Error) -> Error {
        // Nobody says anything then: criu sits in the container's groups.
        let error = oom_kill::explain(error, self.cgroup, "criu or a process of the container");
        if let Err(stays) = self.cgroup.kill_all(Instant::now() + DEADLINE) {
            self.globals.log.write(Level::Warning, &Error::from(stays).message);
        }
        let process = ChildGuard::of(self.child.take());
        if !self.hooks_ran {
            return error;
        }
        create::destroy_after_failure(
            error,
            process,
            &self.decided.plan,
            (self.directory, self.record),
            self.globals,
        )
    }
}

fn has_own(child: &Child, namespace: &str) -> bool {
    let number = |who: &dyn std::fmt::Display| {
        std::fs::metadata(Path::new(&format!("/proc/{who}/ns/{namespace}"))).map(|found| found.ino())
    };
    match (number(&child.pid.as_raw()), number(&"self")) {
        (Ok(its), Ok(own)) => its != own,
        _ => false,
    }
}
