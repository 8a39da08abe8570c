//! The users and groups that there are for this process: all, or those of its user namespace (user_namespaces(7)).

use std::fs;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::steps::accounts::User;

/// Whether this process is in a user namespace that isn't the host's own.
pub(crate) fn in_user_namespace() -> bool {
    static INSIDE: OnceLock<bool> = OnceLock::new();
    *INSIDE.get_or_init(|| {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.split_whitespace().ne(["0", "0", "4294967295"])
    })
}

/// The users and groups that there are here, as ranges `FIRST+COUNT`; none where that is all of them. Steps find files of
/// others as root's, or fail: what they make is not what they make with more ids.
pub(crate) fn limited() -> Option<&'static str> {
    static IDS: OnceLock<String> = OnceLock::new();
    let ranges = |file: &str| {
        let map = fs::read_to_string(file).unwrap_or_default();
        let range = |line: &str| {
            let mut words = line.split_whitespace();
            Some(format!("{}+{}", words.next()?, words.nth(1)?))
        };
        map.lines().filter_map(range).collect::<Vec<_>>().join(",")
    };
    let all = || format!("users {} groups {}", ranges("/proc/self/uid_map"), ranges("/proc/self/gid_map"));
    in_user_namespace().then(|| IDS.get_or_init(all).as_str())
}

/// Whether files here can belong to this group.
pub(crate) fn maps_group(group: u32) -> bool {
    has("/proc/self/gid_map", group)
}

/// Whether processes here can become this user.
pub(crate) fn maps_user(user: u32) -> bool {
    has("/proc/self/uid_map", user)
}

/// Whether there are other groups here than that of root: a user without a range of ids has none, nor may any be dropped.
pub(crate) fn has_groups() -> bool {
    maps_group(5)
}

/// Refuses a user for whom there are no ids here.
///
/// # Errors
/// The user or the group is not mapped.
pub(crate) fn are_there(user: &User) -> Result<()> {
    match maps_user(user.uid) && maps_group(user.gid) {
        true => Ok(()),
        false => Err(Error::fact(format!(
            "user {}:{} has no id here: it takes a range of ids for this user that has it, in /etc/subuid and /etc/subgid",
            user.uid, user.gid
        ))),
    }
}

fn has(map: &str, id: u32) -> bool {
    let map = fs::read_to_string(map).unwrap_or_default();
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        first.zip(count).is_some_and(|(first, count)| id >= first && id - first < count)
    })
}
