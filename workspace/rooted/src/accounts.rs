//! The passwd and group files of an image.
//!
//! They come from strangers: only regular files are read, at most [`FILE_LIMIT`] bytes and [`LINE_LIMIT`] lines, and a
//! line that is not well formed counts for nothing. Nothing here asks the host's own users.

use crate::{Error, Proc, Result, Root};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The most bytes of such a file.
pub const FILE_LIMIT: usize = 1 << 20;
/// The most lines of such a file.
pub const LINE_LIMIT: usize = 16 * 1024;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A line of a passwd file (passwd(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name to log in.
    pub name: OsString,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
    /// Program to start.
    pub shell: PathBuf,
}

/// A line of a group file (group(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: OsString,
    /// Group id.
    pub gid: u32,
    /// Names of users for whom it is supplementary.
    pub members: Vec<OsString>,
}

/// The users of the image under `root`; none at all when it has no passwd file.
pub fn users(root: &Root, proc: &Proc) -> Result<Vec<User>> {
    parse_users(Path::new(PASSWD), &read(root, proc, PASSWD)?)
}

/// The groups of the image under `root`; none at all when it has no group file.
pub fn groups(root: &Root, proc: &Proc) -> Result<Vec<Group>> {
    parse_groups(Path::new(GROUP), &read(root, proc, GROUP)?)
}

/// The home directory of the first user with this id, if it is an absolute path.
pub fn home_of(root: &Root, proc: &Proc, uid: u32) -> Result<Option<PathBuf>> {
    let user = users(root, proc)?.into_iter().find(|user| user.uid == uid);
    Ok(user.map(|user| user.home).filter(|home| home.is_absolute()))
}

/// The ids of the groups that name `user` as a member, in the file's order, each once.
pub fn supplementary_groups(groups: &[Group], user: &OsStr) -> Vec<u32> {
    let mut ids = Vec::new();
    for group in groups.iter().filter(|group| group.members.iter().any(|member| member == user)) {
        if !ids.contains(&group.gid) {
            ids.push(group.gid);
        }
    }
    ids
}

/// The users of a passwd file called `path`; [`Error::TooMuch`] for too many lines.
pub fn parse_users(path: &Path, file: &[u8]) -> Result<Vec<User>> {
    parse(path, file, |line| {
        let [name, _password, uid, gid, _comment, home, shell] = fields::<7>(line)?;
        Some(User {
            name: named(name)?,
            uid: id(uid)?,
            gid: id(gid)?,
            home: PathBuf::from(owned(home)),
            shell: PathBuf::from(owned(shell)),
        })
    })
}

/// The groups of a group file called `path`; [`Error::TooMuch`] for too many lines.
pub fn parse_groups(path: &Path, file: &[u8]) -> Result<Vec<Group>> {
    parse(path, file, |line| {
        let [name, _password, gid, members] = fields::<4>(line)?;
        let members = members.split(|byte| *byte == b',').filter(|member| !member.is_empty());
        Some(Group { name: named(name)?, gid: id(gid)?, members: members.map(owned).collect() })
    })
}

fn read(root: &Root, proc: &Proc, path: &str) -> Result<Vec<u8>> {
    match root.read_file(path, proc, FILE_LIMIT) {
        // A path through something that is no directory leads to no file either.
        Err(error) if [libc::ENOENT, libc::ENOTDIR].map(Some).contains(&error.errno()) => Ok(Vec::new()),
        other => other,
    }
}

fn parse<T>(path: &Path, file: &[u8], line: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
    let lines = file.split(|byte| *byte == b'\n');
    if lines.clone().count() > LINE_LIMIT {
        return Err(Error::TooMuch { path: path.to_owned(), limit: LINE_LIMIT, unit: "lines" });
    }
    Ok(lines.filter(|text| !text.starts_with(b"#")).filter_map(line).collect())
}

/// Exactly `N` fields between colons.
fn fields<const N: usize>(line: &[u8]) -> Option<[&[u8]; N]> {
    let mut fields = [&[][..]; N];
    let mut parts = line.split(|byte| *byte == b':');
    for field in &mut fields {
        *field = parts.next()?;
    }
    parts.next().is_none().then_some(fields)
}

fn named(name: &[u8]) -> Option<OsString> {
    (!name.is_empty()).then(|| owned(name))
}

fn owned(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// A decimal number and nothing else; the highest one means "no id" to the kernel.
fn id(field: &[u8]) -> Option<u32> {
    let digits = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    let text = OsStr::from_bytes(field).to_str().filter(|_| digits)?;
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32, gid: u32, home: &str) -> User {
        User { name: name.into(), uid, gid, home: home.into(), shell: "/bin/sh".into() }
    }

    #[test]
    fn only_well_formed_lines_are_users() {
        let file = b"root:x:0:0:root:/root:/bin/sh\n\
            # no:x:1:1::/:/bin/sh\n\
            short:x:1:1\n\
            long:x:1:1::/:/bin/sh:more\n\
            :x:1:1::/:/bin/sh\n\
            plus:x:+1:1::/:/bin/sh\n\
            space:x: 1:1::/:/bin/sh\n\
            hex:x:0x1:1::/:/bin/sh\n\
            huge:x:4294967296:1::/:/bin/sh\n\
            none:x:4294967295:1::/:/bin/sh\n\
            empty:x::1::/:/bin/sh\n\
            1000:x:0:0::/home/number:/bin/sh\n\
            last:x:4294967294:7::/home/last:/bin/sh";
        let expected = vec![
            user("root", 0, 0, "/root"),
            user("1000", 0, 0, "/home/number"),
            user("last", 4_294_967_294, 7, "/home/last"),
        ];
        assert_eq!(parse_users(Path::new(PASSWD), file).unwrap(), expected);
    }

    #[test]
    fn supplementary_groups_are_those_that_name_the_user() {
        let file = b"root:x:0:\nwheel:x:10:alice,bob\nempty:x:11\naudio:x:12:bob,,alice\nagain:x:10:alice\n";
        let groups = parse_groups(Path::new(GROUP), file).unwrap();
        assert_eq!(groups.len(), 4);
        assert_eq!(supplementary_groups(&groups, OsStr::new("alice")), vec![10, 12]);
        assert_eq!(supplementary_groups(&groups, OsStr::new("ali")), Vec::<u32>::new());
    }

    #[test]
    fn a_file_of_too_many_lines_is_refused() {
        let lines = |count: usize| "a:x:1:1::/:/\n".repeat(count);
        assert_eq!(
            parse_users(Path::new(PASSWD), lines(LINE_LIMIT - 1).as_bytes()).unwrap().len(),
            LINE_LIMIT - 1
        );
        let error = parse_users(Path::new(PASSWD), lines(LINE_LIMIT).as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "\"/etc/passwd\" has more than 16384 lines");
    }
}
