//! What a case works with: bundles, the runtime's commands, and the clean-up after it.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, io};

use serde_json::Value;

use crate::bundle::{Bundle, probe};
use crate::call::{Output, call, clear_up};
use crate::cgroup;
use crate::hold::Held;
use crate::interrupt;
use crate::suite::Suite;
use crate::verdict::{Finding, fail, holds};

/// How the names of all containers begin that have a name of the suite.
pub const PREFIX: &str = "oci-conf-";

/// The place of one case, removed with all its containers at the end.
#[derive(Debug)]
pub struct Lab<'a> {
    /// What all cases share.
    pub suite: &'a Suite,
    /// The case's own directory.
    pub place: PathBuf,
    name: String,
    end: Instant,
    number: Cell<u32>,
    containers: RefCell<Vec<String>>,
    groups: RefCell<Vec<String>>,
    held: RefCell<Vec<Held>>,
}

impl<'a> Lab<'a> {
    /// Makes a place for the case called `name`, with a time limit for everything in it.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn new(suite: &'a Suite, name: &str, limit: Duration) -> io::Result<Self> {
        let place = suite.place.join(name);
        fs::create_dir_all(&place)?;
        Ok(Self {
            suite,
            place,
            name: format!("{PREFIX}{}-{}", name.to_lowercase(), std::process::id()),
            end: Instant::now() + limit,
            number: Cell::new(0),
            containers: RefCell::default(),
            groups: RefCell::default(),
            held: RefCell::default(),
        })
    }

    /// Makes a bundle that runs the probe's report, changed by `change`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn bundle(&self, change: impl FnOnce(&mut Value)) -> Finding<Bundle> {
        let number = self.number.replace(self.number.get() + 1);
        let id = format!("{}-{number}", self.name);
        let path = self.place.join(number.to_string());
        let cgroup = self.suite.cgroups_path(&id);
        Ok(Bundle::make(path, id, &self.suite.probe(), &cgroup, change)?)
    }

    /// Makes a bundle whose program waits for signals and writes their names to `/signals`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn waiting(&self, change: impl FnOnce(&mut Value)) -> Finding<Bundle> {
        self.bundle(|config| {
            probe(config, &["wait", "/signals"]);
            change(config);
        })
    }

    /// Calls the runtime with any words.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn call<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Finding<Output> {
        call(self.suite.command(&self.place).args(words), &self.place, self.end)
    }

    /// Calls the runtime by a command that the case has changed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn call_command(&self, command: &mut std::process::Command) -> Finding<Output> {
        call(command, &self.place, self.end)
    }

    /// `create`, by `run` or with further options; the container is deleted at the end of the case.
    ///
    /// # Errors
    /// When the runtime cannot be started.
    pub fn make(&self, command: &str, options: &[&str], bundle: &Bundle) -> Finding<Output> {
        self.containers.borrow_mut().push(bundle.id.clone());
        let path = bundle.path.to_string_lossy();
        self.call(&[&[command, "--bundle", &path], options, &[&bundle.id]].concat())
    }

    /// `create` without an expectation.
    ///
    /// # Errors
    /// When the runtime cannot be started.
    pub fn try_create(&self, bundle: &Bundle) -> Finding<Output> {
        self.make("create", &[], bundle)
    }

    /// `create` that has to succeed.
    ///
    /// # Errors
    /// A failure when it does not.
    pub fn create(&self, bundle: &Bundle) -> Finding {
        self.try_create(bundle)?.done("create")
    }

    /// `create` and `start` that have to succeed.
    ///
    /// # Errors
    /// A failure when one does not.
    pub fn start(&self, bundle: &Bundle) -> Finding {
        self.create(bundle)?;
        self.call(&["start", &bundle.id])?.done("start")
    }

    /// Starts a container of [`Lab::waiting`] and waits until its program runs.
    ///
    /// # Errors
    /// A failure when it does not.
    pub fn start_waiting(&self, bundle: &Bundle) -> Finding {
        self.start(bundle)?;
        let ready = self.eventually(|| bundle.inside("signals").exists());
        holds("the program runs after start", ready, "it never wrote its file")
    }

    /// `run` in the foreground to its end.
    ///
    /// # Errors
    /// When the runtime cannot be started.
    pub fn run(&self, bundle: &Bundle) -> Finding<Output> {
        self.make("run", &[], bundle)
    }

    /// Runs the probe's report and reads it.
    ///
    /// # Errors
    /// A failure when the container cannot be run.
    pub fn report(&self, change: impl FnOnce(&mut Value)) -> Finding<Value> {
        self.report_of(&self.bundle(change)?)
    }

    /// Runs a bundle whose program is the probe's report and reads it.
    ///
    /// # Errors
    /// A failure when the container cannot be run.
    pub fn report_of(&self, bundle: &Bundle) -> Finding<Value> {
        let output = self.run(bundle)?;
        output.done("run")?;
        serde_json::from_str(&output.stdout)
            .or_else(|_| fail("the program's output", format!("{:?}; {}", output.stdout, output.told())))
    }

    /// Runs the probe with actions parted by `+` and returns an answer for each: its text, or `!` and the errno's name.
    ///
    /// # Errors
    /// A failure when the container cannot be run.
    pub fn inside(&self, words: &[&str], change: impl FnOnce(&mut Value)) -> Finding<Vec<String>> {
        let bundle = self.bundle(|config| {
            probe(config, &[&["do"], words].concat());
            change(config);
        })?;
        self.inside_of(&bundle)
    }

    /// The same for a bundle that the case has prepared.
    ///
    /// # Errors
    /// A failure when the container cannot be run.
    pub fn inside_of(&self, bundle: &Bundle) -> Finding<Vec<String>> {
        let output = self.run(bundle)?;
        output.done("run")?;
        answers(&output.stdout).map_or_else(|| fail("the program's answers", output.told()), Ok)
    }

    /// Expects `create` to fail and to leave no container.
    ///
    /// # Errors
    /// A failure when it does not.
    pub fn refuses(&self, what: &str, change: impl FnOnce(&mut Value)) -> Finding {
        let bundle = self.bundle(change)?;
        self.try_create(&bundle)?.refused(what)?;
        self.gone(&bundle.id, "after a failed create")
    }

    /// Expects an error at the latest from `start`: some properties of the process may be applied only then.
    ///
    /// # Errors
    /// A failure when both succeed.
    pub fn refuses_to_run(&self, what: &str, change: impl FnOnce(&mut Value)) -> Finding {
        let bundle = self.bundle(change)?;
        let created = self.try_create(&bundle)?;
        if created.succeeded() {
            return self.call(&["start", &bundle.id])?.refused(what);
        }
        created.refused(what)
    }

    /// Expects that the runtime knows no container of this name.
    ///
    /// # Errors
    /// A failure when `state` succeeds.
    pub fn gone(&self, id: &str, when: &str) -> Finding {
        let output = self.call(&["state", id])?;
        let why = format!("no container {when}");
        holds(&why, !output.succeeded(), format!("state says: {}", output.stdout.replace('\n', " ")))
    }

    /// What `state` says.
    ///
    /// # Errors
    /// A failure when it fails or is no JSON.
    pub fn state(&self, bundle: &Bundle) -> Finding<Value> {
        let output = self.call(&["state", &bundle.id])?;
        output.done("state")?;
        serde_json::from_str(&output.stdout).or_else(|_| fail("a JSON document", output.stdout))
    }

    /// The `status` of `state`.
    ///
    /// # Errors
    /// A failure when `state` fails.
    pub fn status(&self, bundle: &Bundle) -> Finding<String> {
        Ok(self.state(bundle)?["status"].as_str().unwrap_or_default().to_owned())
    }

    /// The `pid` of `state`.
    ///
    /// # Errors
    /// A failure when there is none.
    pub fn pid(&self, bundle: &Bundle) -> Finding<i32> {
        let state = self.state(bundle)?;
        let pid = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
        pid.map_or_else(|| fail("a pid in the state", state), Ok)
    }

    /// Ends the container's process and waits until `state` says so.
    ///
    /// # Errors
    /// A failure when it does not end.
    pub fn stop(&self, bundle: &Bundle) -> Finding {
        self.call(&["kill", &bundle.id, "KILL"])?.done("kill with SIGKILL")?;
        self.await_status(bundle, "stopped")
    }

    /// Waits until `state` says `status`.
    ///
    /// # Errors
    /// A failure when it never does.
    pub fn await_status(&self, bundle: &Bundle, status: &str) -> Finding {
        let mut last = String::new();
        let came = self.eventually(|| {
            last = self.status(bundle).unwrap_or_default();
            last == status
        });
        holds(format!("status {status}"), came, format!("status {last:?}"))
    }

    /// Waits until no process of the container is left, whether its name is still known or not.
    ///
    /// # Errors
    /// A failure when that does not happen.
    pub fn await_end(&self, bundle: &Bundle) -> Finding {
        let ended = self.eventually(|| self.status(bundle).map_or(true, |status| status == "stopped"));
        holds("an end of the container", ended, "it goes on")
    }

    /// Asks again and again until it holds or a third of the remaining time is over; says which.
    pub fn eventually(&self, mut holds: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + self.end.saturating_duration_since(Instant::now()) / 3;
        while Instant::now() < end && interrupt::asked().is_none() {
            if holds() {
                return true;
            }
            sleep(Duration::from_millis(5));
        }
        holds()
    }

    /// Remembers the name of a control group that is no container's; what carries it goes at the end of the case.
    pub fn group(&self, name: &str) -> String {
        self.groups.borrow_mut().push(name.to_owned());
        name.to_owned()
    }

    /// Keeps namespaces open until the end of the case.
    pub fn keep(&self, held: Held) -> i32 {
        let pid = held.pid;
        self.held.borrow_mut().push(held);
        pid
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        // Some cases try names that no container can have.
        for id in self.containers.borrow().iter().filter(|id| id.starts_with(PREFIX)) {
            // The container may be gone already, which is what most cases want; the deadline may be over.
            let mut command = self.suite.command(&self.place);
            let end = Instant::now() + Duration::from_secs(10);
            let _ = clear_up(command.args(["delete", "--force", id]), &self.place, end);
            cgroup::remove_named(id);
        }
        self.groups.borrow().iter().for_each(|name| cgroup::remove_named(name));
        self.held.borrow_mut().clear();
        unmount_below(&self.place);
        // What cannot be removed lies on the run's tmpfs and goes with it.
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// Reads the answers of the probe's `do`.
#[must_use]
pub fn answers(text: &str) -> Option<Vec<String>> {
    let list: Value = serde_json::from_str(text.lines().last()?).ok()?;
    list.as_array()?.iter().map(|answer| answer.as_str().map(str::to_owned)).collect()
}

/// The mounts of this process below a directory.
#[must_use]
pub fn mounts_below(place: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    targets.filter(|target| target.starts_with(place) && target != place).collect()
}

fn unmount_below(place: &Path) {
    for target in mounts_below(place).iter().rev() {
        // A lower mount may have gone with an upper one.
        let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
    }
}
