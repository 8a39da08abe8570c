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
        let (uid, own) = match user {
            "" => (0, 0),
            user if is_number(user) => {
                number(user).map(|id| (id, id)).ok_or_else(|| unknown("user", user))?
            }
            user => {
                self.user(user).map(|found| (found.uid, found.gid)).ok_or_else(|| unknown("user", user))?
            }
        };
        let gid = if group.is_empty() { own } else { self.group_id(group)? };
        Ok((uid, gid))
    }

    /// USER: `user[:group]`; a known user brings its groups.
    pub(crate) fn process_user(&self, text: &str) -> Result<User> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let user = if user.is_empty() { "0" } else { user };
        let known = self.user(user);
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

    /// A number is always an id, also where an image names a user so: else its `1000` could be root (CVE-2016-3697).
    fn user(&self, text: &str) -> Option<&accounts::User> {
        let is_meant = |user: &&accounts::User| match is_number(text) {
            true => number(text) == Some(user.uid),
            false => user.name == text,
        };
        self.users.iter().find(is_meant)
    }

    fn group_id(&self, text: &str) -> Result<u32> {
        let id = match is_number(text) {
            true => number(text),
            false => self.groups.iter().find(|group| group.name == text).map(|group| group.gid),
        };
        id.ok_or_else(|| unknown("group", text))
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn number(text: &str) -> Option<u32> {
    // 2^32 - 1 means "leave it" to the kernel.
    text.parse().ok().filter(|id| *id != u32::MAX && is_number(text))
}

fn unknown(what: &str, name: &str) -> Error {
    Error::fact(format!("unable to find {what} {name} in the image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        let user = |name: &str, uid, gid| accounts::User {
            name: name.into(),
            uid,
            gid,
            home: format!("/home/{name}").into(),
            shell: "/bin/sh".into(),
        };
        let group = |name: &str, gid, members: &[&str]| accounts::Group {
            name: name.into(),
            gid,
            members: members.iter().map(|name| (*name).into()).collect(),
        };
        Accounts {
            users: vec![user("1000", 0, 0), user("app", 1000, 1001), user("4294967295", 0, 0)],
            groups: vec![group("1001", 0, &[]), group("root", 0, &["1000"]), group("extra", 50, &["app"])],
        }
    }

    #[test]
    fn a_number_is_an_id_though_a_name_is_spelt_so() {
        let accounts = accounts();
        let user = accounts.process_user("1000").unwrap();
        assert_eq!(
            (user.uid, user.gid, user.groups, user.home.as_str()),
            (1000, 1001, vec![50], "/home/app")
        );
        assert_eq!(accounts.process_user("1000:1001").unwrap().gid, 1001);
        assert_eq!(accounts.owner("1000:1001").unwrap(), (1000, 1001));
        assert_eq!(accounts.owner("1000").unwrap(), (1000, 1000));
        for none in ["4294967295", "4294967296", "+0", "0x0"] {
            assert!(accounts.process_user(none).is_err(), "{none}");
            assert!(accounts.owner(&format!("app:{none}")).is_err(), "{none}");
        }
    }

    #[test]
    fn a_name_brings_its_ids_groups_and_home() {
        let accounts = accounts();
        assert_eq!(accounts.process_user("app").unwrap(), accounts.process_user("1000").unwrap());
        assert_eq!(accounts.owner("app").unwrap(), (1000, 1001));
        assert_eq!(accounts.owner("app:extra").unwrap(), (1000, 50));
        assert!(accounts.owner("nobody").is_err());
    }
}
