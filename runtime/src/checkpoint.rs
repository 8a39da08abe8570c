//! `checkpoint`: the processes of a container become images, and the container ends unless it is left running.

use crate::criu::external::{self, Places};
use crate::criu::images::Images;
use crate::criu::messages::{DUMP, Features, Options, PRE_DUMP, PageServer, Request as Question};
use crate::criu::program::Criu;
use crate::criu::worker::{Start, Streams, Worker};
use crate::error::{Code, Context, Error, Result};
use crate::files::read_text;
use crate::globals::Globals;
use crate::log::Level;
use crate::state::{ProcessIdentity, Record, StateDir, Status};
use crate::step::{Step, at};
use crate::{destroy, host, notify};
use hull_cgroup::{Cgroup, SavedPaths, Version};
use hull_plan::{HostFacts, NamespaceKind, Plan};
use hull_rooted::{Entry, Proc, Root, View, mountinfo};
use hull_sys::process::{Pid, WaitStatus};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// `CLONE_NEWNET`: interfaces and addresses of a network namespace are not saved; whoever made them makes them again.
pub const EMPTY_NAMESPACES: u32 = 0x4000_0000;

/// How long a container may take to run again after a dump that failed.
const THAW_DEADLINE: Duration = Duration::from_secs(5);

/// What `checkpoint` is asked for, with CRIU's own switches as they are sent.
#[derive(Debug, Default)]
pub struct Request {
    /// `--image-path`.
    pub image_path: Option<PathBuf>,
    /// `--work-path`.
    pub work_path: Option<PathBuf>,
    /// `--parent-path`.
    pub parent_path: Option<PathBuf>,
    /// `--pre-dump`.
    pub pre_dump: bool,
    /// `--status-fd`, opened.
    pub status: Option<File>,
    /// `--page-server`.
    pub page_server: Option<PageServer>,
    /// The switches that CRIU has by the same names.
    pub switches: Options,
}

impl Request {
    /// The container is there no more afterwards.
    fn ends_the_container(&self) -> bool {
        !self.pre_dump && self.switches.leave_running != Some(true)
    }
}

/// Saves the container in `directory`, which is locked; on failure it runs on.
pub fn checkpoint(mut request: Request, directory: StateDir, globals: &Globals) -> Result<()> {
    let record = directory.read()?;
    let status = Status::of(&directory, &record);
    let init = running(&record, status)?;
    at(Step::Checkpoint, || refuse_rootless(&host::probe(&record.bundle, globals.rootless)?))?;
    let images = at(Step::Checkpoint, || open_images(&request))?;
    let criu = at(Step::Checkpoint, || prepare_criu(&request, globals))?;
    let question = at(Step::Checkpoint, || question(&request, &images, init, &directory, &record))?;
    if request.ends_the_container() {
        warn_of_strangers(init, &record, globals);
    }
    let dumped = at(Step::Checkpoint, || dump(&criu, &question, (&images, init), &mut request));
    if let Err(error) = dumped {
        if status == Status::Running {
            let_run_again(&record);
        }
        return Err(error);
    }
    if request.ends_the_container()
        && let Err(error) = destroy::destroy(&directory, &record, globals).and_then(|()| directory.remove())
    {
        // The images are complete: the rest of the container is for `delete --force`.
        globals.log.write(Level::Warning, &error.message);
    }
    Ok(())
}

fn running(record: &Record, status: Status) -> Result<&ProcessIdentity> {
    match (&record.init, status) {
        (Some(init), Status::Running | Status::Paused) => Ok(init),
        _ => Err(Error::new(
            Code::ContainerState,
            format!("container cannot be checkpointed in the {} state", status.name()),
        )
        .object(record.id.clone())),
    }
}

/// What CRIU does takes capabilities in the initial user namespace: it would stop halfway, with a stranger's words.
pub fn refuse_rootless(facts: &HostFacts) -> Result<()> {
    if !facts.rootless {
        return Ok(());
    }
    Err(Error::new(Code::Unsupported, "criu saves and restores containers for root alone")
        .hint("run it as root in the initial user namespace, or with --rootless false to let criu try"))
}

/// CRIU saves the first process and its descendants. What `exec` left behind is a child of the outside, as that is where
/// the kernel looks for a new parent, and ends with the container.
fn warn_of_strangers(init: &ProcessIdentity, record: &Record, globals: &Globals) {
    // A list that cannot be read is no reason to save nothing.
    for pid in Cgroup::open(&record.cgroup).processes(true).unwrap_or_default() {
        if !descends_from(pid, init.pid) {
            let text =
                format!("process {pid} was started by exec: it is not saved, and ends with the container");
            globals.log.write(Level::Warning, &text);
        }
    }
}

fn descends_from(mut pid: i32, ancestor: i32) -> bool {
    while pid > 1 && pid != ancestor {
        match parent_of(pid) {
            Some(parent) => pid = parent,
            // Gone meanwhile: nothing is lost with it.
            None => return true,
        }
    }
    pid == ancestor
}

/// Field 4 of proc_pid_stat(5), counted from the end of the name.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = read_text(format!("/proc/{pid}/stat").as_str()).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn open_images(request: &Request) -> Result<Images> {
    let images = Images::make(request.image_path.as_deref(), request.work_path.as_deref())?;
    request.parent_path.as_deref().map_or(Ok(()), |parent| images.check_parent(parent))?;
    Ok(images)
}

fn prepare_criu(request: &Request, globals: &Globals) -> Result<Criu> {
    let criu = Criu::find(globals.criu.as_deref())?;
    globals.log.write(Level::Debug, &format!("criu {} at {}", criu.version(), criu.path().display()));
    let lazy = request.switches.lazy_pages == Some(true);
    if !request.pre_dump && !lazy {
        return Ok(criu);
    }
    let found = criu.features(Features { memory_tracking: Some(true), lazy_pages: Some(true) })?;
    let missing = |option: &str, what: &str| {
        Error::new(Code::Unsupported, format!("{option}: criu or this kernel has no {what}"))
    };
    match (found.memory_tracking, found.lazy_pages) {
        (Some(false), _) if request.pre_dump => Err(missing("--pre-dump", "tracking of memory")),
        (_, Some(false)) if lazy => Err(missing("--lazy-pages", "userfaultfd that outlives a fork")),
        _ => Ok(criu),
    }
}

/// Everything that CRIU is told.
fn question(
    request: &Request,
    images: &Images,
    init: &ProcessIdentity,
    directory: &StateDir,
    record: &Record,
) -> Result<Question> {
    let mut options = Options {
        images_dir_fd: images.images_fd(),
        work_dir_fd: images.work_fd(),
        pid: Some(init.pid),
        log_level: Some(4),
        log_file: Some(images.log().to_owned()),
        notify_scripts: Some(true),
        root: Some(record.rootfs.display().to_string()),
        orphan_pts_master: Some(true),
        freeze_cgroup: freezer(&record.cgroup),
        page_server: request.page_server.clone(),
        config_file: config_file(record),
        ..request.switches.clone()
    };
    if let Some(parent) = &request.parent_path {
        options.parent_img = Some(parent.display().to_string());
        options.track_mem = Some(true);
    }
    let loaded = hull_plan::load(&directory.config()?)?;
    let facts = host::probe(&record.bundle, None)?;
    let mut plan = Plan::build(&loaded.spec, &facts)?;
    refuse_shared_mounts(&plan)?;
    notify::prepare_again(&mut plan, directory);
    options.external = external::dumped_namespaces(&plan, |kind| namespace_number(init, kind))?;
    if request.pre_dump {
        return Ok(Question { kind: PRE_DUMP, options: Some(options), ..Question::default() });
    }
    add_outside(&mut options, &plan, init, record, images)?;
    Ok(Question { kind: DUMP, options: Some(options), ..Question::default() })
}

/// Where the mounts are the host's, CRIU would take all of them for the container's.
pub fn refuse_shared_mounts(plan: &Plan) -> Result<()> {
    if plan.entry.has_own(NamespaceKind::Mount) {
        return Ok(());
    }
    Err(Error::new(
        Code::Unsupported,
        "a container without a mount namespace cannot be checkpointed or restored",
    )
    .field("/linux/namespaces"))
}

/// Mounts and streams from outside, and the note about the streams.
fn add_outside(
    options: &mut Options,
    plan: &Plan,
    init: &ProcessIdentity,
    record: &Record,
    images: &Images,
) -> Result<()> {
    let proc = Proc::open(View::Processes).context(|| "open procfs")?;
    let table = proc
        .read(Entry::Of(Pid::from_raw(init.pid), "mountinfo"))
        .context(|| "read the container's mounts")?;
    let table = mountinfo::parse(&table)
        .map_err(|error| Error::new(Code::Unsupported, format!("read the container's mounts: {error}")))?;
    let root = Root::at(&record.rootfs).context(|| format!("open {}", record.rootfs.display()))?;
    let places = Places { rootfs: &plan.root.path, root: &root };
    options.external.extend(external::dumped_mounts(plan, &places, &table));
    let streams = external::dumped_streams(init.pid, &record.streams, &table);
    options.external.extend(streams.iter().filter(|name| name.starts_with("file[")).cloned());
    images.write_streams(&streams)
}

/// The number of the container's namespace, which a joined one shares with the outside.
fn namespace_number(init: &ProcessIdentity, kind: NamespaceKind) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let path = format!("/proc/{}/ns/{}", init.pid, kind.proc_name());
    std::fs::metadata(&path).map(|found| found.ino()).context(|| format!("look at {path}"))
}

/// The control group by which CRIU stops the processes.
fn freezer(paths: &SavedPaths) -> Option<String> {
    let find = |wanted: &dyn Fn(&&hull_cgroup::Place) -> bool| {
        paths.places.iter().find(wanted).map(hull_cgroup::Place::host_path)
    };
    find(&|place| place.version == Version::V1 && place.has("freezer"))
        .or_else(|| find(&|place| place.version == Version::V2))
}

/// runc's file for CRIU's options, unless an annotation names another one, or none by an empty value.
pub fn config_file(record: &Record) -> Option<String> {
    const DEFAULT: &str = "/etc/criu/runc.conf";
    let file = record.annotations.get("org.criu.config").map_or(DEFAULT, String::as_str);
    (!file.is_empty()).then(|| file.to_owned())
}

fn dump(
    criu: &Criu,
    question: &Question,
    (images, init): (&Images, &ProcessIdentity),
    request: &mut Request,
) -> Result<()> {
    let worker = Worker::start(Start {
        program: criu.path(),
        streams: Streams::Caught,
        inherited: &[],
        prepare: None,
    })?;
    let mut status = request.status.take();
    let answered = worker.carry_out(question, |event, _| {
        if event.name() != "status-ready" {
            return Ok(());
        }
        // What is left to be done is for whoever fetches the memory, and no longer than the container lives.
        init.open()?.into_iter().for_each(|process| worker.watch(process));
        status.take().map_or(Ok(()), |mut status| {
            status.write_all(&[0]).context(|| "write to the descriptor of --status-fd")
        })
    });
    let ended = answered.and_then(|_| worker.finish());
    match ended {
        // After a pre-dump CRIU waits for the dump proper: it was told to end instead.
        Ok(WaitStatus::Exited(0)) => Ok(()),
        Ok(_) if request.pre_dump => Ok(()),
        Ok(status) => {
            Err(images.explain(Error::new(Code::Criu, format!("criu ended with status {}", status.code()))))
        }
        // CRIU knows nothing of it.
        Err(error) if error.code == Code::InitDied => Err(error),
        Err(error) => Err(images.explain(error)),
    }
}

/// CRIU lets the processes run again by itself; one that died may have left them stopped.
fn let_run_again(record: &Record) {
    let cgroup = Cgroup::open(&record.cgroup);
    if cgroup.is_frozen().unwrap_or(false) {
        // The error of the dump is the one to report.
        let _stays_frozen = cgroup.thaw(Instant::now() + THAW_DEADLINE).map_err(Error::from);
    }
}
