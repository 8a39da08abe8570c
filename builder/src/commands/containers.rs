//! Containers of `hull-build run`: `containers/ID/` below the store, and the runtime that knows what they do.
//!
//! ```text
//! container.json config.json             what the container is, and what the runtime is told
//! upper work rootfs                      the overlay; `rootfs` is where it is mounted
//! copy rootfs                            without overlays: all files, mounted there
//! volumes/N log exits/RUN/ID pid hosts    data of volumes, output when detached, exit codes, files bound in
//! ```

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use hull_image::{Lock, Store};
use hull_layer::Change;
use hull_sys::mount::{self, MountAttr};
use serde_json::Value;

use super::network;
use super::ports::{self, Port};
use super::record::{Container, unmount};
use crate::directory::open_directory;
use crate::error::chain;
use crate::host;
use crate::snapshot::{copies, overlay};

type Failure = Box<dyn std::error::Error>;

/// How long the monitor of a container that was killed may have something to write.
const LATE_FILES: Duration = Duration::from_secs(10);

/// A container and where it is.
pub(crate) struct Place {
    /// What it is.
    pub(crate) container: Container,
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// The state directory of the runtime.
    pub(crate) runtime_root: PathBuf,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    /// The runtime knows it, in these words.
    Known(String),
    /// It has ended; the code if somebody noted it.
    Exited(Option<i32>),
}

impl Status {
    /// True while its process lives.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self, Self::Known(word) if word != "stopped")
    }
}

/// The directory of all containers.
pub(crate) fn dir(store: &Store) -> PathBuf {
    store.dir().join("containers")
}

/// All containers, oldest first. What is half made or half removed is passed over.
pub(crate) fn all(store: &Store) -> Result<Vec<Place>, Failure> {
    let Ok(entries) = fs::read_dir(dir(store)) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let dir = entry?.path();
        let Ok(bytes) = fs::read(dir.join("container.json")) else { continue };
        let Ok(container) = serde_json::from_slice::<Container>(&bytes) else { continue };
        found.push(Place { container, dir, runtime_root: store.dir().join("run") });
    }
    found.sort_by_key(|place| (place.container.created, place.container.created_nanos));
    Ok(found)
}

/// The ports that living ones publish, with their names.
pub(crate) fn published(all: &[Place]) -> Result<Vec<(String, Vec<Port>)>, Failure> {
    let mut found = Vec::new();
    for place in all.iter().filter(|place| !place.container.ports.is_empty()) {
        if place.status()?.is_alive() {
            found.push((place.container.name.clone(), ports::read(&place.container.ports)?));
        }
    }
    Ok(found)
}

/// Finds a container by its name or the beginning of its id.
pub(crate) fn find(store: &Store, text: &str) -> Result<Place, Failure> {
    let mut all = all(store)?;
    if let Some(at) = all.iter().position(|place| place.container.name == text || place.container.id == text)
    {
        return Ok(all.swap_remove(at));
    }
    all.retain(|place| place.container.id.starts_with(text) && !text.is_empty());
    match all.len() {
        1 => Ok(all.remove(0)),
        0 => Err(format!("no container {text}").into()),
        count => Err(format!("{count} containers begin with {text}").into()),
    }
}

/// Does something to each of several containers and prints the names of those it was done to; what fails with one is told,
/// and the others have their turn.
pub(crate) fn each(verb: &str, names: &[String], act: impl Fn(&str) -> Result<bool, Failure>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match act(name) {
            Ok(true) => println!("{name}"),
            Ok(false) => {}
            Err(error) => {
                eprintln!("hull-build: {verb} {name}: {}", chain(error.as_ref()));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// Names of the containers made from the image with this id.
pub(crate) fn users_of(store: &Store, id: &str) -> Result<Vec<String>, String> {
    let all = all(store).map_err(|e| e.to_string())?;
    let users = all.into_iter().filter(|place| place.container.image_id == id);
    Ok(users.map(|place| place.container.name).collect())
}

impl Place {
    /// Writes down what the container is.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let path = self.dir.join("container.json");
        let temporary = self.dir.join(".container.json");
        fs::write(&temporary, hull_image::canonical(&self.container))?;
        Ok(fs::rename(&temporary, &path)?)
    }

    /// Where the root file system is mounted.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// A call of the runtime.
    pub(crate) fn runtime(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.container.runtime);
        command.arg("--root").arg(&self.runtime_root).args(arguments);
        command
    }

    /// Calls the runtime and takes its output.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Output, Failure> {
        let output = self.runtime(arguments).stdin(Stdio::null()).output();
        Ok(output.map_err(|e| format!("start {}: {e}", self.container.runtime.display()))?)
    }

    /// What the container does now.
    pub(crate) fn status(&self) -> Result<Status, Failure> {
        let output = self.ask(&["state", &self.container.id])?;
        let state: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Ok(match state["status"].as_str() {
            Some("stopped") | None => Status::Exited(self.exit_code()),
            Some(word) => Status::Known(word.to_owned()),
        })
    }

    /// The exit code that was noted.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        fs::read_to_string(self.exits().join(&self.container.id)).ok()?.trim().parse().ok()
    }

    /// The pid of the monitor that was started for this container, if one was.
    pub(crate) fn monitor(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("monitor")).ok()?.trim().parse().ok()
    }

    /// Whether that monitor lives.
    pub(crate) fn has_monitor(&self) -> bool {
        self.monitor().is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
    }

    /// Where the exit code of this run is noted; a monitor may still write that of the last run.
    pub(crate) fn exits(&self) -> PathBuf {
        self.dir.join("exits").join(self.container.run.to_string())
    }

    /// Mounts the image's layers with the container's own on top, or its copy of them.
    pub(crate) fn mount(&self, store: &Store, lowers: &[PathBuf]) -> Result<(), Failure> {
        for dir in [self.rootfs(), self.exits()] {
            fs::create_dir_all(dir)?;
        }
        let tree = match self.merged(lowers) {
            Ok(tree) => tree,
            Err(error) if !copies::are_needed(store)? => return Err(error),
            Err(_) => {
                self.fill_copy(lowers)?;
                self.merged(lowers)?
            }
        };
        let target = open_directory(&self.rootfs())?;
        Ok(mount::move_mount(tree.as_fd(), target.as_fd())?)
    }

    /// The merged root to write to, attached nowhere; an overlay must not be mounted elsewhere.
    pub(crate) fn merged(&self, lowers: &[PathBuf]) -> Result<OwnedFd, Failure> {
        if self.is_copy() {
            let tree = mount::open_tree_fd(open_directory(&self.copy())?.as_fd(), true, false)?;
            // What is mounted in the copied mount's place is not to be seen here, nor the other way.
            let attr = MountAttr { propagation: mount::MS_PRIVATE, ..MountAttr::default() };
            mount::mount_setattr(tree.as_fd(), false, &attr)?;
            return Ok(tree);
        }
        if !self.upper().exists() {
            make_root(&self.upper())?;
        }
        // One that was mounted without syncs says so in here, and refuses to be mounted once more.
        if self.work().exists() {
            fs::remove_dir_all(self.work())?;
        }
        fs::create_dir(self.work())?;
        Ok(overlay::mount(lowers, Some((&self.upper(), &self.work())))?)
    }

    /// Copies the image's files with what the container changed in them while there was an overlay; who sees the copy sees
    /// all of it, after a loss of power, too.
    fn fill_copy(&self, lowers: &[PathBuf]) -> Result<(), Failure> {
        let unfinished = self.dir.join("copy.new");
        if unfinished.exists() {
            hull_image::remove(&unfinished)?;
        }
        make_root(&unfinished)?;
        match self.upper().exists() {
            true => copies::copy_with_own(&[lowers, &[self.upper()]].concat(), &unfinished)?,
            false => copies::copy(lowers, &unfinished)?,
        }
        rustix::fs::syncfs(open_directory(&unfinished)?)?;
        Ok(fs::rename(&unfinished, self.copy())?)
    }

    /// Whether its files are a copy of the image's, not an overlay.
    pub(crate) fn is_copy(&self) -> bool {
        self.copy().exists()
    }

    fn copy(&self) -> PathBuf {
        self.dir.join("copy")
    }

    fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// What the container changed, in the order of a layer, and the directory that has its files.
    pub(crate) fn changes(&self, lowers: &[OwnedFd]) -> Result<(Vec<Change>, OwnedFd), Failure> {
        let is_copy = self.is_copy();
        let files = open_directory(&if is_copy { self.copy() } else { self.upper() })?;
        let changes = match is_copy {
            true => hull_layer::diff_copy(files.as_fd(), lowers)?,
            false => hull_layer::diff_upper(files.as_fd(), lowers)?,
        };
        Ok((changes, files))
    }

    /// The merged root, mounted or not: a view of its own for reading.
    pub(crate) fn view(&self, store: &Store) -> Result<OwnedFd, Failure> {
        if self.is_copy() {
            return Ok(open_directory(&self.copy())?);
        }
        let mut layers = self.lowers(store)?;
        layers.push(self.upper());
        Ok(overlay::mount(&layers, None)?)
    }

    /// The unpacked layers of the image, base first.
    pub(crate) fn lowers(&self, store: &Store) -> Result<Vec<PathBuf>, Failure> {
        let missing = || format!("the layers of container {} are not in the store", self.container.name);
        Ok(copies::trees(store, &self.container.diff_ids).ok_or_else(missing)?)
    }

    /// Held while the container is started, cleaned up or deleted: who removes its record or its mounts must not
    /// overtake another, whose hooks read the one and whose processes use the other.
    pub(crate) fn lock(&self, store: &Store) -> Result<Lock, Failure> {
        Ok(store.lock(&format!("container-{}", self.container.id))?)
    }

    /// What is to be done when this run has ended; nothing if the container was started again since.
    pub(crate) fn clean_up(&self, store: &Store) -> Result<(), Failure> {
        let _lock = self.lock(store)?;
        let now = find(store, &self.container.id).map(|place| place.container.run);
        match now.is_ok_and(|run| run == self.container.run) {
            true if self.container.remove => self.erase(store),
            true => {
                self.ask(&["delete", "--force", &self.container.id])?;
                unmount(&self.rootfs());
                Ok(())
            }
            false => Ok(()),
        }
    }

    /// Unmounts and removes everything, after the runtime has forgotten the container.
    pub(crate) fn remove(&self, store: &Store) -> Result<(), Failure> {
        let _lock = self.lock(store)?;
        match self.dir.join("container.json").exists() {
            true => self.erase(store),
            false => Ok(()),
        }
    }

    fn erase(&self, store: &Store) -> Result<(), Failure> {
        let output = self.ask(&["delete", "--force", &self.container.id])?;
        if self.status()?.is_alive() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(format!("the runtime cannot delete {}: {said}", self.container.name).into());
        }
        unmount(&self.rootfs());
        if let Err(error) = network::disconnect(&self.container, &self.dir) {
            eprintln!(
                "hull-build: notice: the network of {} is not cleaned up: {error}",
                self.container.name
            );
        }
        unmount(&network::namespace(&self.dir));
        // The record goes first: what is left is no container any more.
        fs::remove_file(self.dir.join("container.json"))?;
        remove_with_what_comes(&self.dir)?;
        Ok(store.unpin(&pin(&self.container.id))?)
    }
}

/// Makes the directory that is to be the root of a container, which everybody in it may enter, whatever the caller's umask.
fn make_root(path: &Path) -> std::io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Removes a directory into which the monitor of a container that was just killed may still be writing how it ended. That
/// is a handful of files, and none once the directory is gone.
fn remove_with_what_comes(dir: &Path) -> hull_image::Result<()> {
    let deadline = Instant::now() + LATE_FILES;
    let is_filled = |error: &hull_image::Error| matches!(error, hull_image::Error::Io { source, .. } if source.kind() == ErrorKind::DirectoryNotEmpty);
    loop {
        match hull_image::remove(dir) {
            Err(error) if is_filled(&error) && Instant::now() < deadline => {}
            outcome => return outcome,
        }
    }
}

/// The name under which a container keeps its image from garbage collection.
pub(crate) fn pin(id: &str) -> String {
    format!("container-{id}")
}

/// 64 random hexadecimal digits.
pub(crate) fn new_id() -> Result<String, Failure> {
    Ok(host::random_name()?)
}

/// The path of a program: as given, beside this one, or in `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return std::path::absolute(name).ok().filter(|path| path.is_file());
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = beside.into_iter().chain(std::env::split_paths(&path));
    places.map(|place| place.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_directory_goes_though_files_come_while_it_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("container");
        let over = AtomicBool::new(false);
        for round in 0..20 {
            fs::create_dir(&dir).unwrap();
            (0..200).for_each(|number| fs::write(dir.join(format!("old{number}")), "").unwrap());
            over.store(false, Ordering::Relaxed);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    // As many as there is time for before the directory is gone, the last ones among its end.
                    for number in 0..2000 {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        drop(fs::write(dir.join(format!("late{number}")), ""));
                    }
                });
                remove_with_what_comes(&dir).unwrap();
                over.store(true, Ordering::Relaxed);
            });
            assert!(!dir.exists(), "round {round}");
        }
    }
}
