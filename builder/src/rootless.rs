//! For a caller that isn't root: this program once more, as root of a user namespace of its own.
//!
//! The caller's id becomes 0; with a range in /etc/subuid and /etc/subgid and `newuidmap` there, 1 and above are mapped
//! too, so that files of an image can belong to anyone. Without, only files of root can be made, which is said.

pub(crate) mod shared;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hull_sys::CloneFlags;
use hull_sys::namespace::unshare;

use crate::error::{Error, Result};

/// Set for the program inside.
const INSIDE: &str = "HULL_BUILD_INSIDE";
/// What the half inside ends with where it may make no namespace.
const NO_NAMESPACE: u8 = 113;
/// What forbids user namespaces to ordinary users: a file below /proc/sys, and the value with which it does.
const FORBIDDING: [(&str, &str); 3] = [
    ("user/max_user_namespaces", "0"),
    ("kernel/unprivileged_userns_clone", "0"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1"),
];
/// Longest wait of either side for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ids beyond the caller's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    count: u32,
}

/// Returns `None` where the command is to be run by this process; else it was run inside, and this is its exit code.
///
/// # Errors
/// Where the kernel or its configuration allows no user namespace: [`Error::NoNamespace`].
pub(crate) fn enter() -> Result<Option<ExitCode>> {
    if rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    if std::env::var_os(INSIDE).is_some() {
        become_root(CloneFlags::NEWUSER)?;
        return Ok(None);
    }
    let mut child = inside().spawn().map_err(Error::io("start", "hull-build"))?;
    if let Err(error) = complete(&mut child) {
        // It waits for a map that won't come.
        drop(child.kill());
        drop(child.wait());
        return Err(error);
    }
    let status = child.wait().map_err(Error::io("wait for", "hull-build"))?;
    Ok(Some(code_of(status)))
}

/// Waits for the namespace of the half inside and gives it its ids.
fn complete(child: &mut Child) -> Result<()> {
    wait_for_namespace(child)?;
    map_ids(child)
}

fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The half inside: leaves these namespaces, that of users at least, and waits until it is root of the new one.
fn become_root(namespaces: CloneFlags) -> Result<()> {
    let signal = rustix::process::Signal::TERM;
    rustix::process::set_parent_process_death_signal(Some(signal))
        .map_err(|e| Error::io("follow", "the parent process")(e.into()))?;
    if unshare(namespaces).is_err() {
        // The other half tells why.
        std::process::exit(i32::from(NO_NAMESPACE));
    }
    until("the id map", || rustix::process::geteuid().is_root())
}

/// This program as the half inside.
fn inside() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).env(INSIDE, "1");
    // Inside, everybody is root: the place of the store is that of the caller.
    if std::env::var_os("HULL_ROOT").is_none() {
        command.env("HULL_ROOT", hull_image::default_dir());
    }
    command
}

fn wait_for_namespace(child: &mut Child) -> Result<()> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/user")).ok();
    let (own, its) = (namespace("self"), child.id().to_string());
    let mut ended = None;
    until("the user namespace", || {
        ended = child.try_wait().ok().flatten();
        ended.is_some() || namespace(&its) != own
    })?;
    match ended.and_then(|status| status.code()) {
        Some(code) if code == i32::from(NO_NAMESPACE) => {
            Err(Error::NoNamespace(forbidden(Path::new("/proc/sys"))))
        }
        _ => Ok(()),
    }
}

/// What keeps this user from making a user namespace, as far as the settings of the kernel tell.
fn forbidden(settings: &Path) -> String {
    let is_set = |(file, value): &&(&str, &str)| {
        fs::read_to_string(settings.join(file)).is_ok_and(|text| text.trim() == *value)
    };
    match FORBIDDING.iter().find(is_set) {
        Some((file, value)) => format!("sysctl {} is {value}", file.replace('/', ".")),
        None => "a filter of system calls or a security module, as containers have it".to_owned(),
    }
}

fn map_ids(child: &Child) -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let name = user_name(uid);
    let ranges = range(Path::new("/etc/subuid"), uid, name.as_deref()).zip(range(
        Path::new("/etc/subgid"),
        uid,
        name.as_deref(),
    ));
    if let Some((users, groups)) = ranges {
        let mapped =
            run_helper("newgidmap", child, gid, groups) && run_helper("newuidmap", child, uid, users);
        if mapped {
            return Ok(());
        }
    }
    eprintln!(
        "hull-build: no range of ids for this user (/etc/subuid, newuidmap): only files of root can be made"
    );
    let at = |file: &str| PathBuf::from(format!("/proc/{}/{file}", child.id()));
    let write = |file: &str, text: String| fs::write(at(file), text).map_err(Error::io("write", at(file)));
    write("setgroups", "deny".into())?;
    write("gid_map", format!("0 {gid} 1"))?;
    write("uid_map", format!("0 {uid} 1"))
}

/// The set-id programs of shadow: they check the ranges, as this user may not map them itself.
fn run_helper(program: &str, child: &Child, own: u32, range: Range) -> bool {
    let mut command = Command::new(program);
    command.arg(child.id().to_string()).args(["0", &own.to_string(), "1"]);
    command.args(["1", &range.first.to_string(), &range.count.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The user's first range in a file of `NAME-OR-ID:FIRST:COUNT` lines (subuid(5)).
fn range(file: &Path, uid: u32, name: Option<&str>) -> Option<Range> {
    parse(&fs::read_to_string(file).ok()?, uid, name)
}

fn parse(text: &str, uid: u32, name: Option<&str>) -> Option<Range> {
    let id = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let whose = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        (whose == id || Some(whose) == name).then_some(Range { first, count })
    })
}

/// The name of a user in /etc/passwd.
fn user_name(uid: u32) -> Option<String> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let fits = |line: &&str| line.split(':').nth(2).and_then(|field| field.parse().ok()) == Some(uid);
    text.lines().find(fits)?.split(':').next().map(str::to_owned)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > PATIENCE {
            return Err(Error::fact(format!("{what} was not ready in {} seconds", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_forbids_is_named() {
        let settings = tempfile::tempdir().unwrap();
        fs::create_dir(settings.path().join("kernel")).unwrap();
        let clone = settings.path().join("kernel/unprivileged_userns_clone");
        fs::write(&clone, "1\n").unwrap();
        assert!(forbidden(settings.path()).starts_with("a filter"));
        fs::write(&clone, "0\n").unwrap();
        assert_eq!(forbidden(settings.path()), "sysctl kernel.unprivileged_userns_clone is 0");
    }

    #[test]
    fn ranges_are_found_by_name_or_number() {
        let text = "root:1:2\nalice:100000:65536\n1001:200000:10\nbad\nbob:x:1\n";
        let rows = [
            (1000, Some("alice"), Some(Range { first: 100_000, count: 65_536 })),
            (1001, None, Some(Range { first: 200_000, count: 10 })),
            (1002, Some("bob"), None),
            (1003, Some("carol"), None),
        ];
        for (uid, name, wanted) in rows {
            assert_eq!(parse(text, uid, name), wanted, "{uid} {name:?}");
        }
    }
}
