//! The store when programs die, disks fill and many work at once: always sound, and the next one succeeds.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "bed/mod.rs"]
mod bed;

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use bed::Bed;

/// An archive of an image with a few megabytes that do not compress, and the image's id.
fn archive(bed: &Bed) -> (String, String) {
    bed.image("lab/a:1");
    let mut noise = vec![0; 3 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    fs::write(bed.path("rootfs/data/noise"), noise).unwrap();
    let id = bed.image("lab/a:1");
    let archive = bed.path("a.tar").display().to_string();
    bed.ok(&["save", "-o", &archive, "lab/a:1"]);
    (archive, id)
}

/// The store has nothing wrong, and the image of the archive can be had whatever went before.
fn sound(bed: &Bed, archive: &str, id: &str) {
    assert_eq!(bed.ok(&["fsck"]), "0 problems\n");
    bed.ok(&["load", "-q", "-i", archive]);
    assert_eq!(bed.ok(&["inspect", "-f", "{{.Id}}", "lab/a:1"]).trim(), id);
    assert_eq!(bed.ok(&["fsck"]), "0 problems\n");
}

#[test]
fn a_load_killed_at_any_moment_leaves_a_sound_store() {
    let source = Bed::new();
    let (archive, id) = archive(&source);
    let mut killed = 0;
    for moment in 0..24 {
        let bed = Bed::new();
        let mut command = bed.command(&["load", "-i", &archive]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(moment * 2500));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        sound(&bed, &archive, &id);
        assert_eq!(fs::read_dir(bed.path("store/tmp")).unwrap().count(), 0, "what was begun is collected");
    }
    assert!(killed > 0, "no load was killed in time");
}

#[test]
fn an_unpack_killed_at_any_moment_leaves_a_sound_store() {
    if !rustix::process::geteuid().is_root() {
        return hull_testkit::gate::skipped("needs root");
    }
    let bed = Bed::new();
    let (archive, id) = archive(&bed);
    for moment in 0..16 {
        // Layers are unpacked for a root that is an overlay.
        let bundle = bed.path(&format!("b{moment}"));
        let script = r#""$0" unpack --rootfs overlay lab/a:1 "$1""#;
        let mut command = bed.command(&[]);
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_hull-build")])
            .arg(&bundle)
            .env_clear();
        unshare.envs(command.arg("x").get_envs().filter_map(|(key, value)| Some((key, value?))));
        let mut child = unshare.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(moment * 4000));
        child.kill().unwrap();
        child.wait().unwrap();
        sound(&bed, &archive, &id);
    }
    let bundle = bed.path("last");
    bed.ok(&["unpack", "lab/a:1", &bundle.display().to_string()]);
    assert_eq!(fs::metadata(bundle.join("rootfs/data/noise")).unwrap().len(), 3 << 20);
}

#[test]
fn a_full_disk_is_told_and_leaves_a_sound_store() {
    if !rustix::process::geteuid().is_root() {
        return hull_testkit::gate::skipped("needs root");
    }
    let source = Bed::new();
    let (archive, id) = archive(&source);
    // A store on a small disk of its own; it grows a step at a time until the image fits.
    let script = r#"set -e
        mkdir "$HULL_ROOT"; mount -t tmpfs -o size=64k none "$HULL_ROOT"
        for size in 128k 512k 1m 2m 3m 4m 5m 16m; do
            mount -o remount,size=$size "$HULL_ROOT"
            if said=$("$0" load -i "$1" 2>&1); then
                "$0" fsck; "$0" inspect -f '{{.Id}}' lab/a:1; exit 0
            fi
            case $said in *"No space left"*) ;; *) echo "$size: $said"; exit 1;; esac
            "$0" fsck >/dev/null || { echo "$size: fsck"; exit 1; }
        done"#;
    let bed = Bed::new();
    let mut command = bed.command(&[]);
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_hull-build"), &archive]).env_clear();
    unshare.envs(command.arg("x").get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = unshare.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, format!("0 problems\n{id}\n"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn ten_at_once_share_one_store() {
    let source = Bed::new();
    let (archive, id) = archive(&source);
    let bed = Bed::new();
    let spawn = |number: usize| {
        // Collecting garbage is for one alone: it says so, and takes nothing from under the others.
        let arguments: Vec<&str> = match number {
            3 | 7 => vec!["prune", "-a", "-f"],
            _ => vec!["load", "-q", "-i", &archive],
        };
        bed.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..10).map(spawn).collect();
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let busy = matches!(number, 3 | 7) && said.contains("in use by another process");
        assert!(output.status.success() || busy, "{number}: {said}");
    }
    sound(&bed, &archive, &id);
}
