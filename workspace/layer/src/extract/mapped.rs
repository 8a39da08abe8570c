//! Whom files can be given to in a user namespace: the ids that it has (user_namespaces(7)).

use std::fs;
use std::ops::Range;
use std::path::Path;

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
