//! Somebody swaps directories and links while paths are resolved. Each test first shows that the careless way is
//! caught by the same attack, so that passing means something.
#![allow(clippy::unwrap_used)] // Functions of a test are tests.

use hull_rooted::{Error, Root};
use hull_sys::CWD;
use hull_sys::fs::{Mode, OFlags, RenameFlags, openat, renameat, renameat_with};
use hull_testkit::Scratch;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Enough that the careless way has always been caught.
const ROUNDS: usize = 20_000;

/// Runs `body` while another thread repeats `attack`.
fn under_attack<T>(attack: impl Fn() + Sync, body: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                attack();
            }
        });
        let result = body();
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn entries(path: &Path) -> usize {
    fs::read_dir(path).unwrap().count()
}

#[test]
fn nothing_is_made_outside_while_a_directory_and_a_link_are_swapped() {
    let scratch = Scratch::new("race");
    let (inside, decoy) = (scratch.join("root"), scratch.join("decoy"));
    fs::create_dir_all(inside.join("shared")).unwrap();
    fs::create_dir(&decoy).unwrap();
    symlink(&decoy, inside.join("link")).unwrap();
    let swap = || {
        let (a, b) = (inside.join("shared"), inside.join("link"));
        renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
    };
    let caught = under_attack(swap, || {
        (0..ROUNDS).any(|round| {
            // The careless way: a joined path.
            let _ = fs::create_dir_all(inside.join(format!("shared/careless{round}")));
            entries(&decoy) > 0
        })
    });
    assert!(caught, "the attack works on joined paths");
    fs::remove_dir_all(&decoy).unwrap();
    fs::create_dir(&decoy).unwrap();

    let root = Root::at(&inside).unwrap();
    let made = under_attack(swap, || {
        let made = (0..ROUNDS / 10).filter(|round| {
            let directory = root.open_or_create_dir(format!("shared/d{round}/below"), 0o755);
            let file = root.open_or_create_file(format!("shared/f{round}"));
            directory.is_ok() && file.is_ok()
        });
        made.count()
    });
    assert!(made > 0, "work is done all the same");
    assert_eq!(entries(&decoy), 0);
}

#[test]
fn no_dots_lead_out_of_a_directory_that_is_moved_away() {
    let scratch = Scratch::new("race");
    let (inside, outside) = (scratch.join("root"), scratch.join("outside/deep"));
    fs::create_dir_all(inside.join("one/moved")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    // `..` of the moved directory is `deep` or `one`: a file beside it tells which.
    fs::write(outside.join("mark"), "host").unwrap();
    fs::write(inside.join("one/mark"), "image").unwrap();
    let host = fs::metadata(outside.join("mark")).unwrap().ino();
    let (here, there) = (inside.join("one/moved"), outside.join("moved"));
    let r#move = || {
        renameat(CWD, &here, CWD, &there).unwrap();
        renameat(CWD, &there, CWD, &here).unwrap();
    };
    let inode = |fd| hull_sys::fs::fstat(std::os::fd::OwnedFd::as_fd(&fd)).unwrap().st_ino;
    let caught = under_attack(r#move, || {
        (0..ROUNDS * 10).any(|_| {
            // The careless way: a handle first, then its parent.
            let Ok(fd) = openat(CWD, &here, OFlags::PATH, Mode::empty()) else { return false };
            openat(fd.as_fd(), "../mark", OFlags::PATH, Mode::empty()).is_ok_and(|mark| inode(mark) == host)
        })
    });
    assert!(caught, "the attack works on handles one after the other");

    let root = Root::at(&inside).unwrap();
    let found = under_attack(r#move, || {
        let mut found = 0;
        for _ in 0..ROUNDS / 4 {
            match root.open("one/moved/../mark") {
                Ok(mark) => {
                    assert_ne!(inode(mark), host);
                    found += 1;
                }
                Err(Error::Unsettled { .. }) => {}
                Err(error) => assert!(error.is(libc::ENOENT) || error.is(libc::EXDEV), "{error:?}"),
            }
        }
        found
    });
    assert!(found > 0, "lookups succeed between the moves");
}
