//! Users and groups by name, looked up in the image itself, never on the host.

use hull_rooted::{Proc, Root, View, accounts};
use std::os::fd::BorrowedFd;

use crate::error::{Error, Result};

/// A user as a process needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// Home directory; `/` without one.
    pub(crate) home: String,
}

/// The users and groups of one image.
pub(crate) struct Accounts {
    users: Vec<accounts::User>,
    groups: Vec<accounts::Group>,
}

impl Accounts {
    /// Reads the image's passwd and group files.
    pub(crate) fn read(root: BorrowedFd<'_>) -> Result<Self> {
        let fd = root.try_clone_to_owned().map_err(Error::io("open", "/"))?;
        let (root, proc) = (Root::from_fd(fd)?, Proc::open(View::Processes)?);
        Ok(Self { users: accounts::users(&root, &proc)?, groups: accounts::groups(&root, &proc)? })
    }

    /// `--chown`: `user[:group]`; a name without a group brings its own, a number is the group's, too.
    pub(crate) fn owner(&self, text: &str) -> Result<(u32, u32)> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let (uid, own) = match (user, self.user(user)) {
            ("", _) => (0, 0),
            (_, Some(found)) => (found.uid, found.gid),
            (_, None) => number(user).map(|id| (id, id)).ok_or_else(|| unknown("user", user))?,
        };
        let gid = if group.is_empty() { own } else { self.group_id(group)? };
        Ok((uid, gid))
    }

    /// USER: `user[:group]`; a known user brings its groups.
    pub(crate) fn process_user(&self, text: &str) -> Result<User> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let user = if user.is_empty() { "0" } else { user };
        let known =
            self.user(user).or_else(|| self.users.iter().find(|known| Some(known.uid) == number(user)));
        let uid = match known {
            Some(known) => known.uid,
            None => number(user).ok_or_else(|| unknown("user", user))?,
        };
        let gid = match group {
            "" => known.map_or(0, |known| known.gid),
            group => self.group_id(group)?,
        };
        let groups = match known {
            Some(known) if group.is_empty() => accounts::supplementary_groups(&self.groups, &known.name),
            _ => Vec::new(),
        };
        let home = known.map_or("/".to_owned(), |known| known.home.to_string_lossy().into_owned());
        let home = if home.starts_with('/') { home } else { "/".into() };
        Ok(User { uid, gid, groups, home })
    }

    fn user(&self, name: &str) -> Option<&accounts::User> {
        self.users.iter().find(|user| user.name == name)
    }

    fn group_id(&self, name: &str) -> Result<u32> {
        let known = self.groups.iter().find(|group| group.name == name).map(|group| group.gid);
        known.or_else(|| number(name)).ok_or_else(|| unknown("group", name))
    }
}

fn number(text: &str) -> Option<u32> {
    // 2^32 - 1 means "leave it" to the kernel.
    text.parse().ok().filter(|id| *id != u32::MAX && text.bytes().all(|b| b.is_ascii_digit()))
}

fn unknown(what: &str, name: &str) -> Error {
    Error::fact(format!("unable to find {what} {name} in the image"))
}
