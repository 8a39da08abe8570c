//! The calls of git: what is at a reference, and a checkout of it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{Repository, is_commit};
use crate::directory::open_directory;
use crate::error::{Error, Result};

/// Longest that one call may take.
const DEADLINE: Duration = Duration::from_secs(600);
/// Most that is read of what git says, in bytes.
const MOST_OUTPUT: u64 = 16 << 20;
/// All that git is configured with: protocols that only fetch, no program of a repository's choosing.
const SETTINGS: [(&str, &str); 14] = [
    ("protocol.allow", "never"),
    ("protocol.https.allow", "always"),
    ("protocol.http.allow", "always"),
    ("protocol.git.allow", "always"),
    ("protocol.ssh.allow", "always"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("credential.helper", ""),
    ("transfer.fsckObjects", "true"),
    ("advice.detachedHead", "false"),
    ("init.defaultBranch", "main"),
    ("gc.auto", "0"),
];
/// What git inherits: how networks and authorities are reached.
const INHERITED: [&str; 9] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// A commit that was checked out.
pub(crate) struct Checkout {
    /// The directory that is meant.
    pub(crate) directory: PathBuf,
    /// When it was committed: seconds since 1970.
    pub(crate) time: Option<u64>,
}

impl Repository {
    /// The commit that is meant now. `agent` is the socket of an agent for ssh.
    pub(crate) fn resolve(&self, agent: Option<&Path>) -> Result<String> {
        if let Some(commit) = self.commit() {
            return Ok(commit.to_owned());
        }
        let wanted = self.reference.as_deref().unwrap_or("HEAD");
        let listed = self.git(&std::env::temp_dir(), agent, &["ls-remote", "--", &self.remote])?;
        // A tag that is an object of its own stands for the commit that it points at.
        let names = [
            wanted.to_owned(),
            format!("refs/tags/{wanted}^{{}}"),
            format!("refs/tags/{wanted}"),
            format!("refs/heads/{wanted}"),
        ];
        let find = |name: &String| {
            listed.lines().find_map(|line| {
                let (commit, known) = line.split_once('\t')?;
                (known == name && is_commit(commit)).then(|| commit.to_owned())
            })
        };
        names.iter().find_map(find).ok_or_else(|| Error::fact(format!("{self} has no reference {wanted}")))
    }

    /// Checks a commit out below `into`, which is made.
    ///
    /// # Errors
    /// Git fails or is missing, or the directory is a link, a file or not there.
    pub(crate) fn check_out(
        &self,
        commit: &str,
        into: &Path,
        keep_git_directory: bool,
        agent: Option<&Path>,
    ) -> Result<Checkout> {
        fs::create_dir(into).map_err(Error::io("make directory", into))?;
        let git = |arguments: &[&str]| self.git(into, agent, arguments);
        git(&["init", "--quiet", "--template=", "."])?;
        let shallow = git(&["fetch", "--quiet", "--depth=1", "--no-tags", "--", &self.remote, commit]);
        if shallow.is_err() {
            // Not every server gives commits by name.
            let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
            git(&["fetch", "--quiet", "--", &self.remote, all[0], all[1]])?;
        }
        git(&["checkout", "--quiet", "--detach", commit])?;
        if into.join(".gitmodules").symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            // Where relative names of submodules begin.
            git(&["remote", "add", "origin", &self.remote])?;
            git(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])?;
        }
        let time = git(&["show", "--no-patch", "--format=%ct", commit])?.trim().parse().ok();
        if !keep_git_directory {
            let own = into.join(".git");
            fs::remove_dir_all(&own).map_err(Error::io("remove", &own))?;
        }
        Ok(Checkout { directory: self.inside(into)?, time })
    }

    /// The directory that is meant: below the checkout, with no link on the way.
    fn inside(&self, checkout: &Path) -> Result<PathBuf> {
        let Some(directory) = &self.directory else { return Ok(checkout.to_owned()) };
        let root = open_directory(checkout)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&root, directory, flags, Mode::empty(), resolve)
            .map_err(|errno| Error::fact(format!("{self} has no directory {directory}: {errno}")))?;
        Ok(checkout.join(directory))
    }

    /// Calls git without a shell, with nothing of the user's configuration; gives what it prints.
    fn git(&self, place: &Path, agent: Option<&Path>, arguments: &[&str]) -> Result<String> {
        let (output, errors) = (tempfile()?, tempfile()?);
        let keep = |file: &File| file.try_clone().map_err(Error::io("keep", "the output of git"));
        let mut command = Command::new("git");
        command.env_clear().current_dir(place).args(arguments).stdin(Stdio::null());
        command.stdout(keep(&output)?).stderr(keep(&errors)?);
        command.env("PATH", crate::graph::DEFAULT_PATH).env("HOME", place).env("LC_ALL", "C");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_ATTR_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_CONFIG_COUNT", SETTINGS.len().to_string());
        for (number, (name, value)) in SETTINGS.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        if let Some(bundle) = std::env::var_os("SSL_CERT_FILE") {
            command.env("GIT_SSL_CAINFO", bundle);
        }
        command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes");
        if let Some(agent) = agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        let missing = || Error::fact("git repositories need the program git, which is not installed");
        let mut child = command.spawn().map_err(|_| missing())?;
        let end = Instant::now() + DEADLINE;
        let status = loop {
            match child.try_wait().map_err(Error::io("wait for", "git"))? {
                Some(status) => break status,
                None if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                None => {
                    drop(child.kill());
                    drop(child.wait());
                    return Err(Error::fact(format!("{self}: git took more than {DEADLINE:?}")));
                }
            }
        };
        if status.success() {
            return text(output);
        }
        let said = text(errors)?.replace(&self.remote, &super::hidden(&self.remote));
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
        Err(Error::fact(format!("{self}: git {}: {}", arguments[0], last.trim())))
    }
}

/// A file without a name; not in the store, whose file system may know no such files.
fn tempfile() -> Result<File> {
    let place = std::env::temp_dir();
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::open(&place, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|errno| Error::io("make a temporary file in", &place)(errno.into()))
}

fn text(mut file: File) -> Result<String> {
    use std::io::Seek;
    let mut bytes = Vec::new();
    file.rewind().map_err(Error::io("read", "the output of git"))?;
    file.take(MOST_OUTPUT).read_to_end(&mut bytes).map_err(Error::io("read", "the output of git"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
