//! Calls as an ordinary user: no privilege, the user's own directories, and the user's own systemd where there is one.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::gate::Gate;
use hull_testkit::{Outcome, Scratch, call};

/// An ordinary user of this machine, with a scratch directory of its own.
#[derive(Debug)]
pub struct User {
    id: u32,
    place: Scratch,
}

/// The user exists.
///
/// # Errors
/// When /etc/passwd does not list it.
pub fn known(id: u32) -> Gate {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let known = text.lines().any(|line| line.split(':').nth(2) == Some(id.to_string().as_str()));
    if known { Ok(()) } else { Err(format!("needs a user of id {id}")) }
}

impl User {
    /// Makes the directories, and waits for the user's own systemd where the host has one.
    ///
    /// # Panics
    /// When a directory cannot be made.
    #[must_use]
    pub fn new(id: u32) -> Self {
        let place = Scratch::new("user");
        chown(place.path(), Some(id), Some(id)).expect("give the directory to the user");
        let runtime = format!("/run/user/{id}");
        if Self::has_manager() {
            let mut start = Command::new("systemctl");
            call(start.args(["start", &format!("user@{id}.service")]), Duration::from_secs(60)).done();
        } else {
            fs::create_dir_all(&runtime).expect("make the user's runtime directory");
            chown(&runtime, Some(id), Some(id)).expect("give the directory to the user");
        }
        Self { id, place }
    }

    fn has_manager() -> bool {
        Path::new("/run/systemd/system").exists()
    }

    /// The user's scratch directory.
    #[must_use]
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// Gives a tree to the user.
    pub fn own(&self, tree: &Path) {
        call(
            Command::new("chown").args(["-R", &format!("{0}:{0}", self.id)]).arg(tree),
            Duration::from_secs(60),
        )
        .done();
    }

    /// `PROGRAM ARGUMENTS...` as the user.
    #[track_caller]
    pub fn call<S: AsRef<OsStr>>(&self, program: &Path, arguments: &[S]) -> Outcome {
        self.call_by(Command::new("setpriv"), program, arguments)
    }

    /// The same where /usr/bin is empty, as on a machine without the programs that distributions install there.
    ///
    /// # Panics
    /// When setpriv cannot be copied to the user's directory.
    #[track_caller]
    pub fn call_without_programs<S: AsRef<OsStr>>(&self, program: &Path, arguments: &[S]) -> Outcome {
        let setpriv = self.place().join("setpriv");
        fs::copy("/usr/bin/setpriv", &setpriv).expect("copy setpriv");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", "mount -t tmpfs none /usr/bin && exec \"$0\" \"$@\""])
            .arg(setpriv);
        self.call_by(command, program, arguments)
    }

    /// `setpriv` is what changes to the user, with whatever stands before it.
    #[track_caller]
    fn call_by<S: AsRef<OsStr>>(&self, mut setpriv: Command, program: &Path, arguments: &[S]) -> Outcome {
        let id = self.id.to_string();
        setpriv.args(["--reuid", &id, "--regid", &id, "--init-groups", "--"]).arg(program).args(arguments);
        setpriv.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        setpriv.env("HOME", self.place()).env("XDG_RUNTIME_DIR", format!("/run/user/{id}"));
        setpriv.env("TMPDIR", self.place()).current_dir(self.place()).stdin(Stdio::null());
        call(&mut setpriv, Duration::from_secs(150))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if Self::has_manager() {
            let (manager, directory) =
                (format!("user@{}.service", self.id), format!("user-runtime-dir@{}.service", self.id));
            let _ =
                call(Command::new("systemctl").args(["stop", &manager, &directory]), Duration::from_secs(60));
        }
    }
}
