//! The image that the managers run: the busybox root file system of the test kit as a plain tar.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hull_testkit::{Scratch, call, rootfs, runtime};

/// Packs the busybox root file system (with the probe program) into `scratch` and returns the archive's path.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn tarball(scratch: &Scratch) -> PathBuf {
    let tree = scratch.join("image-tree");
    rootfs::busybox(&tree).expect("make the image's root file system");
    let archive = scratch.join("busybox.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&tree).arg("-cf").arg(&archive).arg(".");
    call(&mut tar, Duration::from_secs(60)).done();
    archive
}

/// A ready-made configuration of `docs/managers` with the path of the runtime under test put in.
///
/// # Panics
/// When the file is not there, or does not name the path that the documentation promises.
#[must_use]
pub fn drop_in(name: &str) -> String {
    const INSTALLED: &str = "/usr/local/bin/hull";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/managers").join(name);
    let text = fs::read_to_string(&file).expect("read the drop-in configuration");
    assert!(text.contains(INSTALLED), "{} names no {INSTALLED}", file.display());
    let program = runtime::under_test();
    text.replace(INSTALLED, program.to_str().expect("the runtime's path is UTF-8"))
}
