//! The mounts of a RUN, made ready: every source is a mount in the private workspace, no path of the step's choosing.

use std::any::Any;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_image::Lock;
use sha2::Digest as _;

use super::Execution;
use super::keys::Selected;
use super::relay::Relay;
use super::step::missing_input;
use crate::cache::CacheMount;
use crate::context::content::{self, hex};
use crate::context::select::{self, Wanted};
use crate::directory::open_directory;
use crate::dockerfile::mount::Sharing;
use crate::error::{Error, Result};
use crate::graph::{CopyAction, Input, MountAction, MountSource, Root, RunAction, StepId};
use crate::inputs::Opened;
use crate::progress::Event;
use crate::steps::copy::{Destination, Target};
use crate::steps::run::Prepared;
use crate::steps::sandbox::{Mount, Source};
use crate::{interrupt, snapshot, workspace};

/// Shorter secrets are not looked for in output: they would hide too much.
const SHORTEST_REDACTED: usize = 6;

/// The mounts of one step.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) prepared: Vec<Prepared>,
    pub(super) env: Vec<(String, String)>,
    /// Values that must not be shown.
    pub(super) secrets: Vec<String>,
}

/// A path in the workspace, whether it is a directory, and what must outlive it.
type Bound = (PathBuf, bool, Keep);
/// Things that are only kept to be dropped at the end.
type Keep = Vec<Box<dyn Any>>;

impl Execution<'_> {
    pub(super) fn prepare_mounts(
        &self,
        id: StepId,
        run: &RunAction,
        selected: Selected<'_>,
    ) -> Result<Mounts> {
        drop(selected);
        let mut mounts = Mounts::default();
        for mount in &run.mounts {
            let at = self.runner.workspace.directory()?;
            match &mount.kind {
                MountSource::Bind { input, path, writable } => {
                    let (source, is_directory, keep) = self.bind(&at, input, path, *writable)?;
                    mounts.push(mount, source, !writable, is_directory, keep);
                }
                MountSource::Cache { .. } => self.cache_mount(id, mount, &at, &mut mounts)?,
                MountSource::Tmpfs { size } => {
                    let mount = Mount {
                        destination: mount.target.clone(),
                        source: Source::Tmpfs { size: *size },
                        read_only: false,
                    };
                    mounts.prepared.push(Prepared { mount, is_directory: true, keep: Vec::new() });
                }
                MountSource::Secret { .. } => self.secret(mount, &at, &mut mounts)?,
                MountSource::Ssh { .. } => self.agent(mount, &at, &mut mounts)?,
            }
        }
        Ok(mounts)
    }

    /// Files of the context, a stage or an image; a writable one gets a layer that is thrown away.
    fn bind(&self, at: &Path, input: &Input, path: &str, writable: bool) -> Result<Bound> {
        let below = crate::pattern::path::relative(path);
        if matches!(input, Input::Root(Root::Scratch)) {
            let empty = at.join("empty");
            fs::create_dir(&empty).map_err(Error::io("make directory", &empty))?;
            return Ok((empty, true, Vec::new()));
        }
        let opened = self.open(input)?;
        let node = opened.tree().find(below.as_bytes())?;
        let node = node.ok_or_else(|| Error::fact(format!("the mount source \"{path}\" was not found")))?;
        let filtered = !opened.tree().ignore.is_empty();
        let is_directory = node.is_directory();
        if filtered || (writable && !is_directory) {
            let (copy, path) = self.copied(&opened, &below)?;
            return Ok((path, is_directory, vec![Box::new(copy)]));
        }
        let place = opened.tree().open_place(&node.path)?;
        let mut keep: Keep = Vec::new();
        let shown = at.join("source");
        let attached = workspace::attach(place.as_fd(), is_directory, &shown)?;
        if let Opened::Snapshot(_, snapshot) = opened {
            keep.push(Box::new(snapshot));
        }
        if !writable {
            keep.push(Box::new(attached));
            return Ok((shown, is_directory, keep));
        }
        let root = snapshot::throw_away(self.store, &shown)?;
        let top = at.join("top");
        let over = workspace::attach(root.root(), true, &top)?;
        // Taken away in this order: the mount on top, its layers, what is below.
        keep.insert(0, Box::new(attached));
        keep.insert(0, Box::new(root));
        keep.insert(0, Box::new(over));
        Ok((top, true, keep))
    }

    /// A copy of what the ignore rules leave of a source: what they drop is not to be seen in a mount either.
    /// It is in the store, as there may be much of it.
    fn copied(&self, opened: &Opened<'_>, below: &str) -> Result<(snapshot::Tree, PathBuf)> {
        let sources = [if below.is_empty() { ".".to_owned() } else { below.to_owned() }];
        let wanted = Wanted { sources: &sources, exclude: &[], parents: false };
        let found = select::select(opened.tree(), &wanted)?;
        let contents = content::describe(opened.tree(), &found, opened.cache())?;
        let tree = snapshot::Tree::make(self.store)?;
        let root = tree.root()?;
        let copy = CopyAction { destination: "/copy".into(), ..CopyAction::plain() };
        let destination = Destination::new(root.as_fd(), Target::of(None, &copy, false, true)?);
        destination.copy(opened.tree(), &found, &contents)?;
        let path = tree.path().join("copy");
        Ok((tree, path))
    }

    fn cache_mount(&self, step: StepId, action: &MountAction, at: &Path, mounts: &mut Mounts) -> Result<()> {
        let MountSource::Cache { id, sharing, writable, seed, mode, owner } = &action.kind else {
            return Err(missing_input());
        };
        let name = self.cache_name(id, seed.as_ref())?;
        let (directory, lock) = self.cache_directory(step, id, &name, *sharing)?;
        let content = directory.join("fs");
        if !content.exists() {
            self.seed_cache(&directory, seed.as_ref(), *mode, *owner)?;
        }
        CacheMount::touch(&directory)?;
        let place = open_directory(&content)?;
        let shown = at.join("cache");
        let attached = workspace::attach(place.as_fd(), true, &shown)?;
        let mut keep: Keep = vec![Box::new(attached)];
        keep.extend(lock.map(|lock| Box::new(lock) as Box<dyn Any>));
        mounts.push(action, shown, !writable, true, keep);
        Ok(())
    }

    /// What a cache is called on the disk. As in BuildKit one that begins with other files is another one.
    fn cache_name(&self, id: &str, seed: Option<&(Input, String)>) -> Result<String> {
        let mut hasher = sha2::Sha256::new_with_prefix(id);
        let lines = seed.map_or(Ok(Vec::new()), |(input, path)| self.shown(input, path))?;
        for text in lines.iter().flat_map(|(place, what)| [place, what]) {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        Ok(hex(&hasher.finalize()))
    }

    /// The directory of a cache, with its lock where one is needed.
    fn cache_directory(
        &self,
        step: StepId,
        id: &str,
        name: &str,
        sharing: Sharing,
    ) -> Result<(PathBuf, Option<Lock>)> {
        let base = self.store.dir().join("cache/mounts");
        match sharing {
            Sharing::Shared => Ok((base.join(name), None)),
            Sharing::Locked => {
                let mut told = false;
                loop {
                    if let Some(lock) = self.store.try_lock(&format!("mount-{name}"))? {
                        return Ok((base.join(name), Some(lock)));
                    }
                    if !std::mem::replace(&mut told, true) {
                        let lines =
                            vec![format!("waiting for the cache mount {id}, which another step has locked")];
                        self.events.send(Event::Told { step, lines });
                    }
                    // Who has it may be another build, with a step that takes hours.
                    if interrupt::is_cancelled() {
                        return Err(Error::Cancelled);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Sharing::Private => {
                for number in 0..1000 {
                    let name = format!("{name}-{number}");
                    if let Some(lock) = self.store.try_lock(&format!("mount-{name}"))? {
                        return Ok((base.join(name), Some(lock)));
                    }
                }
                Err(Error::fact(format!("the cache mount {id} has 1000 users")))
            }
        }
    }

    /// Makes a new cache: its seed's files, its root's mode and owner; visible by one rename.
    fn seed_cache(
        &self,
        directory: &Path,
        seed: Option<&(Input, String)>,
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> Result<()> {
        let staging = self.store.temporary_path();
        let content = staging.join("fs");
        fs::create_dir_all(&content).map_err(Error::io("make directory", &content))?;
        if let Some((input, path)) = seed.filter(|(input, _)| *input != Input::Root(Root::Scratch)) {
            let opened = self.open(input)?;
            let sources = [path.clone()];
            let wanted = Wanted { sources: &sources, exclude: &[], parents: false };
            let found = select::select(opened.tree(), &wanted)?;
            let contents = content::describe(opened.tree(), &found, opened.cache())?;
            let root = open_directory(&content)?;
            let target = Target::of(None, &CopyAction::plain(), true, true)?;
            let destination = Destination::new(root.as_fd(), target);
            destination.copy(opened.tree(), &found, &contents)?;
        }
        let open = fs::Permissions::from_mode(mode);
        fs::set_permissions(&content, open).map_err(Error::io("change mode of", &content))?;
        chown(&content, Some(uid), Some(gid)).map_err(Error::io("change owner of", &content))?;
        match fs::rename(&staging, directory) {
            Ok(()) => Ok(()),
            // Another step made it first.
            Err(_) if directory.join("fs").exists() => Ok(()),
            Err(error) => Err(Error::io("rename to", directory)(error)),
        }
    }

    fn secret(&self, action: &MountAction, at: &Path, mounts: &mut Mounts) -> Result<()> {
        let MountSource::Secret { id, file, env, required, mode, owner } = &action.kind else {
            return Err(missing_input());
        };
        let Some(source) = self.settings.secrets.secrets.get(id) else {
            return match required {
                true => Err(Error::fact(format!(
                    "the secret \"{id}\" is required: give it with --secret id={id}"
                ))),
                false => Ok(()),
            };
        };
        let value = source.read(id)?;
        if let Ok(text) = std::str::from_utf8(&value) {
            let lines = text.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_REDACTED);
            mounts.secrets.extend(lines.map(str::to_owned));
        }
        if let Some(name) = env {
            let text = String::from_utf8(value.clone()).map_err(|_| {
                Error::fact(format!("the secret \"{id}\" is no text: it can't be a variable"))
            })?;
            mounts.env.push((name.clone(), text));
        }
        if *file {
            // The workspace is memory that only this process sees.
            let path = at.join("secret");
            fs::write(&path, &value).map_err(Error::io("write", &path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode))
                .map_err(Error::io("protect", &path))?;
            chown(&path, Some(owner.0), Some(owner.1)).map_err(Error::io("change owner of", &path))?;
            mounts.push(action, path, true, false, Vec::new());
        }
        Ok(())
    }

    fn agent(&self, action: &MountAction, at: &Path, mounts: &mut Mounts) -> Result<()> {
        let MountSource::Ssh { id, required, mode, owner } = &action.kind else {
            return Err(missing_input());
        };
        let Some(socket) = self.settings.secrets.agents.get(id) else {
            return match required {
                true => Err(Error::fact(format!("the agent \"{id}\" is required: give it with --ssh {id}"))),
                false => Ok(()),
            };
        };
        let shown = at.join("agent");
        let relay = Relay::listen(&shown, socket, *mode, *owner)?;
        mounts.env.push(("SSH_AUTH_SOCK".into(), action.target.clone()));
        mounts.push(action, shown, false, false, vec![Box::new(relay)]);
        Ok(())
    }
}

impl Mounts {
    fn push(
        &mut self,
        action: &MountAction,
        source: PathBuf,
        read_only: bool,
        is_directory: bool,
        keep: Keep,
    ) {
        let source = Source::Path(source.to_string_lossy().into_owned());
        let mount = Mount { destination: action.target.clone(), source, read_only };
        self.prepared.push(Prepared { mount, is_directory, keep });
    }
}
