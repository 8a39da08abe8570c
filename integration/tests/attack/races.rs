//! Races: somebody who shares a volume with the container changes it while the runtime works in it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::{Bundle, Runtime, Scratch, needs};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::busybox;

/// Exchanges two names as fast as it goes until the value is dropped.
struct Swapper<'scope> {
    stop: &'scope AtomicBool,
}

impl<'scope> Swapper<'scope> {
    fn start<'env>(
        scope: &'scope thread::Scope<'scope, 'env>,
        stop: &'scope AtomicBool,
        one: &'scope Path,
        other: &'scope Path,
    ) -> Self {
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("exchange two names");
            }
        });
        Self { stop }
    }
}

impl Drop for Swapper<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// CVE-2021-30465, CVE-2024-45310, CVE-2019-19921: a directory on the way to a mount target becomes a link to the host
/// between the look and the use.
#[test]
fn a_swapped_directory_leads_no_mount_and_no_new_file_to_the_host() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let host = Scratch::new("decoy");
    let volume = Scratch::new("volume");
    let (directory, link) = (volume.join("way"), volume.join("other"));
    fs::create_dir(&directory).expect("make the directory");
    let up = format!("/../../../../../../..{}", host.path().display());
    symlink(format!("../../../../..{up}"), &link).expect("make the link");
    let untouched = || fs::read_dir(host.path()).expect("read the decoy").count() == 0;

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _swapper = Swapper::start(scope, &stop, &directory, &link);
        for round in 0..40 {
            let bundle = Bundle::empty(&["/bin/true"]).with(|config| {
                let mounts = config["mounts"].as_array_mut().expect("a list");
                mounts.push(json!({ "destination": "/vol", "type": "bind", "source": volume.path(), "options": ["rbind"] }));
                mounts.push(json!({ "destination": format!("/vol/way/made{round}/deep"), "type": "tmpfs", "source": "tmpfs" }));
            });
            // It is refused or it works (there is no program to run); what counts is where things are made.
            let outcome = runtime.run(&bundle);
            assert!(outcome.code != 0, "{outcome:?}");
            assert!(untouched(), "round {round}: something was made on the host: {outcome:?}");
        }
        // The control: a careless program looks, then makes.
        let careless = || {
            if fs::symlink_metadata(&directory).is_ok_and(|meta| meta.is_dir()) {
                thread::yield_now();
                let _lost = fs::create_dir_all(directory.join("made/deep"));
            }
            !untouched()
        };
        assert!(eventually(PATIENCE, careless), "the control is not hit: the swapper does not work");
    });
    let made = fs::read_dir(volume.path()).expect("read the volume").count();
    assert_eq!(made, 2, "names of the volume");
}
