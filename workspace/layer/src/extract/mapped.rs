//! Whom files can be given to in a user namespace: the ids that it has (user_namespaces(7)).

use std::fs;
use std::ops::Range;
use std::path::Path;

use crate::entry::Entry;
use crate::error::{Error, Result};

/// The users and groups of the namespace of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    users: Vec<Range<u64>>,
    groups: Vec<Range<u64>>,
}

impl Mapped {
    /// Asks the kernel.
    pub fn read() -> Result<Self> {
        let ids = |file: &str| {
            let path = Path::new(file);
            fs::read_to_string(path).map(|text| parse(&text)).map_err(Error::host("read", path))
        };
        Ok(Self { users: ids("/proc/self/uid_map")?, groups: ids("/proc/self/gid_map")? })
    }

    /// The owner and group that a file gets: root instead of one that the namespace has not.
    pub fn nearest(&self, uid: u32, gid: u32) -> (u32, u32) {
        let nearest = |ids: &[Range<u64>], id: u32| {
            if ids.iter().any(|range| range.contains(&u64::from(id))) { id } else { 0 }
        };
        (nearest(&self.users, uid), nearest(&self.groups, gid))
    }
}

/// Takes from a file that is root's now what it would do with the rights of its owner: they were to be another's.
pub fn take_rights(entry: &mut Entry) {
    const SET_ID: u32 = 0o6000;
    entry.mode &= !SET_ID;
    entry.xattrs.remove(&b"security.capability"[..]);
}

/// Lines of `FIRST-INSIDE FIRST-OUTSIDE COUNT`.
fn parse(text: &str) -> Vec<Range<u64>> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().ok());
        let (first, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(first..first + count)
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_roots_runs_with_nobodys_rights() {
        let names = [&b"security.capability"[..], b"user.note"];
        let xattrs = names.iter().map(|name| (name.to_vec(), Vec::new())).collect();
        let mtime = crate::entry::Time::default();
        let mut entry = Entry {
            path: b"f".to_vec(),
            kind: crate::entry::Kind::File { size: 0 },
            mode: 0o6755,
            uid: 0,
            gid: 0,
            mtime,
            xattrs,
        };
        take_rights(&mut entry);
        assert_eq!(
            (entry.mode, entry.xattrs.into_keys().collect::<Vec<_>>()),
            (0o755, vec![b"user.note".to_vec()])
        );
    }

    #[test]
    fn owners_that_the_namespace_has_not_become_root() {
        let mapped = Mapped {
            users: parse("         0       1000          1\n         1     500000      65535\n"),
            groups: parse("0 1000 1\n100 7 1\n"),
        };
        let rows = [
            ((0, 0), (0, 0)),
            ((1, 100), (1, 100)),
            ((65_535, 101), (65_535, 0)),
            ((65_536, 1), (0, 0)),
            ((u32::MAX - 1, 100), (0, 100)),
        ];
        for ((uid, gid), wanted) in rows {
            assert_eq!(mapped.nearest(uid, gid), wanted, "{uid}:{gid}");
        }
        assert_eq!(parse("0 0 4294967295\nbad\n").as_slice(), std::slice::from_ref(&(0..4_294_967_295)));
    }
}
