//! Where COPY and ADD write, and ADD's way there: through the mounted snapshot, as archives must.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;

use super::accounts::Accounts;
use super::mode::ModeRule;
use super::place::{self, New};
use super::write::{self, Dress};
use crate::context::content::Contents;
use crate::context::select::{Item, Source};
use crate::context::tree::{Tree, split};
use crate::error::{Error, Result};
use crate::graph::CopyAction;

/// Where a COPY writes, and what its files get.
pub(crate) struct Target {
    /// Below the root, no slash at either end.
    pub(super) path: Vec<u8>,
    pub(super) is_directory: bool,
    /// What directories get that are made on the way.
    pub(super) new: New,
    /// `--chown`, when it is given.
    pub(super) chown: Option<(u32, u32)>,
    pub(crate) dress: Dress,
}

/// The same in a root that can be written to.
pub(crate) struct Destination<'a> {
    root: BorrowedFd<'a>,
    target: Target,
}

impl Target {
    /// Reads the flags of a COPY; `root` is where users are looked up, and only needed where there are any.
    pub(crate) fn of(
        root: Option<BorrowedFd<'_>>,
        copy: &CopyAction,
        keeps_owners: bool,
        keep_times: bool,
    ) -> Result<Self> {
        let chown = copy.chown.as_ref().filter(|text| !text.is_empty());
        let look_up = |text: &String| {
            let root = root.ok_or_else(|| Error::fact("there is no image to look users up in"))?;
            Accounts::read(root)?.owner(text)
        };
        let given = chown.map(look_up).transpose()?;
        let bad_mode =
            |text: &String| Error::fact(format!("invalid --chmod \"{text}\": neither octal nor like u=rwX"));
        let mode = copy
            .chmod
            .as_ref()
            .map(|text| ModeRule::parse(text).ok_or_else(|| bad_mode(text)))
            .transpose()?;
        let owner = given.or((!keeps_owners).then_some((0, 0)));
        let mut new = New::of(given.unwrap_or((0, 0)));
        // As in BuildKit, octal bits are for new directories on the way as well, changes to bits are not.
        if let Some(ModeRule::Set(bits)) = mode {
            new.mode = bits & 0o777;
        }
        Ok(Self {
            path: copy.destination.trim_matches('/').as_bytes().to_vec(),
            is_directory: copy.destination.ends_with('/'),
            new,
            chown: given,
            dress: Dress { owner, mode, keep_times },
        })
    }
}

impl<'a> Destination<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>, target: Target) -> Self {
        Self { root, target }
    }

    /// The destination as a directory, made if it is missing.
    pub(crate) fn directory(&self) -> Result<OwnedFd> {
        place::directory(self.root, &self.target.path, self.target.new, &mut Vec::new())
    }

    /// The same for what is in an archive, which `--chmod` is not for, with the owner that it shall have.
    pub(super) fn for_archive(&self) -> Result<(OwnedFd, Option<(u32, u32)>)> {
        let new = New::of(self.target.new.owner);
        let fd = place::directory(self.root, &self.target.path, new, &mut Vec::new())?;
        Ok((fd, self.target.chown))
    }

    /// The directory and the name that a single file goes to.
    pub(crate) fn for_file(&self, name: &[u8]) -> Result<(OwnedFd, Vec<u8>)> {
        let there = place::find(self.root, &self.target.path)?;
        let into = match &there {
            Some(fd) => place::is_directory(&place::stat(fd, &self.target.path)?),
            None => self.target.is_directory,
        };
        if into {
            return Ok((self.directory()?, name.to_vec()));
        }
        if self.target.is_directory {
            let text =
                format!("the destination /{}/ is no directory", String::from_utf8_lossy(&self.target.path));
            return Err(Error::fact(text));
        }
        // A link is followed to the file that it leads to, or that is made where it leads.
        let path = place::settled(self.root, &self.target.path)?;
        let (parent, name) = split(&path);
        let parent = place::directory(self.root, parent, self.target.new, &mut Vec::new())?;
        Ok((parent, name.to_vec()))
    }

    /// Copies what was selected.
    pub(crate) fn copy(&self, tree: &Tree, sources: &[Source], contents: &Contents) -> Result<()> {
        for source in sources {
            match source {
                Source::File { node, name } => {
                    let (directory, name) = self.for_file(name)?;
                    write::leaf(tree, node, contents, (directory.as_fd(), &name), &self.target.dress)?;
                }
                Source::Directory { items, .. } => self.copy_directory(tree, items, contents)?,
            }
        }
        Ok(())
    }

    fn copy_directory(&self, tree: &Tree, items: &[Item], contents: &Contents) -> Result<()> {
        // It is what is in the source that is copied: a new directory looks like any that is made on the way.
        let mut open: Vec<(Vec<u8>, OwnedFd)> = vec![(Vec::new(), self.directory()?)];
        for item in items {
            let (parent, name) = split(&item.to);
            // Items come parents first: what is no ancestor any more is done with.
            while open.last().is_some_and(|(path, _)| path != parent) && open.len() > 1 {
                open.pop();
            }
            let (_, directory) =
                open.last().ok_or_else(|| Error::fact("a copied directory has no parent"))?;
            if item.node.is_directory() {
                let fd = write::directory(tree, &item.node, (directory.as_fd(), name), &self.target.dress)?;
                open.push((item.to.clone(), fd));
            } else {
                write::leaf(tree, &item.node, contents, (directory.as_fd(), name), &self.target.dress)?;
            }
        }
        Ok(())
    }

    /// Writes a file whose content the Dockerfile gives.
    pub(crate) fn write_inline(&self, name: &str, content: &[u8]) -> Result<()> {
        let (directory, name) = self.for_file(name.as_bytes())?;
        self.write_new(directory.as_fd(), &name, &mut &*content, 0o644)
    }

    /// Writes a new file with this mode unless `--chmod` says another.
    pub(crate) fn write_new(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        content: &mut dyn std::io::Read,
        mode: u32,
    ) -> Result<()> {
        place::check_name(name)?;
        match rustix::fs::unlinkat(directory, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(Error::errno("replace", name)(errno)),
        }
        let mut file = write::create(directory, name)?;
        let named = String::from_utf8_lossy(name).into_owned();
        std::io::copy(content, &mut file).map_err(Error::io("write", &named))?;
        place::set_owner(file.as_fd(), self.target.dress.owner.unwrap_or((0, 0)), name)?;
        let mode = self.target.dress.mode.as_ref().map_or(mode, |rule| rule.apply(mode, false));
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(Error::errno("change mode of", name))
    }
}
