//! Root file systems: a tiny one from busybox for nearly every test, a Debian for real programs.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::{gate, place};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
                      user:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nuser:x:1000:\nnobody:x:65534:\n";
const DIRECTORIES: [&str; 12] =
    ["bin", "dev", "etc", "home/user", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/sbin", "var/log"];

/// Makes a root file system in `root` from the static busybox of the host and the probe program.
///
/// # Errors
/// Whatever the file system says.
///
/// # Panics
/// When busybox is not installed: ask [`gate::program`] first.
pub fn busybox(root: &Path) -> io::Result<()> {
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), GROUP)?;
    let busybox = gate::find("busybox").expect("busybox is installed");
    fs::copy(&busybox, root.join("bin/busybox"))?;
    for applet in applets(&busybox)? {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet))?;
        }
    }
    fs::copy(place::program("hull-probe"), root.join("bin/hull-probe"))?;
    Ok(())
}

/// The path of the Debian root file system that `integration/prepare.sh` makes; it may not exist yet.
#[must_use]
pub fn debian() -> PathBuf {
    place::cache_dir().join("debian")
}

fn applets(busybox: &Path) -> io::Result<Vec<String>> {
    let listed = Command::new(busybox).arg("--list").output()?;
    Ok(String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect())
}
