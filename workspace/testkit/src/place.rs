//! Where things are: the build's own programs, and scratch directories that a test owns.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

/// The directory of the programs built together with the running test (`target/TRIPLE/PROFILE`).
///
/// # Panics
/// When the test program does not lie in a build directory of cargo.
#[must_use]
pub fn build_dir() -> PathBuf {
    let own = env::current_exe().expect("a process knows its executable");
    let own = own.parent().expect("an executable lies in a directory");
    let found = if own.ends_with("deps") { own.parent() } else { Some(own) };
    found.expect("test programs lie in a build directory").to_path_buf()
}

/// The path of a program of this workspace, as built.
///
/// # Panics
/// When it has not been built: `cargo build --workspace` comes before the tests.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = build_dir().join(name);
    assert!(path.exists(), "{} is missing: run cargo build --workspace first", path.display());
    path
}

/// The directory that outlives a run: root file systems that are slow to make.
#[must_use]
pub fn cache_dir() -> PathBuf {
    match env::var_os("HULL_TEST_CACHE") {
        Some(given) => given.into(),
        None => build_dir().ancestors().nth(2).map_or_else(env::temp_dir, |top| top.join("testkit")),
    }
}

/// A name that no other test of this run uses; it begins with `testkit-`, which the leftovers check knows.
#[must_use]
pub fn unique(label: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("testkit-{label}-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A directory of a test's own, removed at its end. Short, because socket paths are limited to 107 bytes.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty directory below the system's temporary directory, mode 0755 so that mapped users get through.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(label: &str) -> Self {
        let path = env::temp_dir().join(unique(label));
        fs::create_dir_all(&path).expect("make a scratch directory");
        Self(path)
    }

    /// The directory's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of `name` inside.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    /// Never walks into a mount: one that is still there is a finding, and the tree stays for a look at it.
    fn drop(&mut self) {
        let inside = crate::leftovers::mounts_below(&self.0);
        if !inside.is_empty() {
            eprintln!("{}: still mounted: {inside:?}", self.0.display());
            assert!(std::thread::panicking(), "mounts are left behind");
            return;
        }
        // Losing this error is right: a file that cannot be removed shows up in the leftovers check.
        let _ = fs::remove_dir_all(&self.0);
    }
}
