//! What `prune` takes away beside images and content: cache mounts.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod making;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use hull_testkit::{Outcome, Scratch, call, gate, needs, place};

use making::{LIMIT, build, builder, context};

fn run(store: &Path, words: &[&str]) -> Outcome {
    call(Command::new(place::program("hull-build")).args(words).env("HULL_ROOT", store), LIMIT)
}

/// The cache mounts of a store: how many bytes their files have, smallest first.
fn mounts(store: &Path) -> Vec<u64> {
    let all = fs::read_dir(store.join("cache/mounts")).unwrap().flatten();
    let mut sizes: Vec<u64> =
        all.map(|mount| fs::metadata(mount.path().join("fs/f")).unwrap().len()).collect();
    sizes.sort_unstable();
    sizes
}

/// Two cache mounts, of 100 000 bytes and, used two hours before, of 300 000.
fn with_mounts(scratch: &Scratch, store: &Path) -> std::path::PathBuf {
    let fill = |id: &str, blocks: u32| {
        format!(
            "RUN --mount=type=cache,id={id},target=/c busybox dd if=/dev/zero of=/c/f bs=1000 count={blocks}\n"
        )
    };
    let context = context(scratch, "c", &format!("{}{}", fill("new", 100), fill("old", 300)));
    build(store, &context, &["--no-cache"]).done();
    let old = SystemTime::now() - Duration::from_secs(7200);
    for mount in fs::read_dir(store.join("cache/mounts")).unwrap().flatten() {
        if fs::metadata(mount.path().join("fs/f")).unwrap().len() == 300_000 {
            let times = fs::FileTimes::new().set_modified(old);
            fs::File::open(mount.path()).unwrap().set_times(times).unwrap();
        }
    }
    context
}

#[test]
fn cache_mounts_go_by_size_and_by_when_they_were_used() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("cache-mounts");
    let store = scratch.join("s");
    let context = with_mounts(&scratch, &store);
    assert_eq!(mounts(&store), [100_000, 300_000]);
    let free =
        |store: &Path| run(store, &["df", "-v", "--format", "{{.Type}} {{.Reclaimable}}"]).text().to_owned();
    let line = free(&store).lines().find_map(|line| line.strip_prefix("Build Cache ")?.parse().ok());
    assert!(line.is_some_and(|bytes: u64| (400_000..500_000).contains(&bytes)), "{}", free(&store));
    for kept in ["label=x", "until=3h"] {
        run(&store, &["prune", "-f", "--filter", kept]).done();
        assert_eq!(mounts(&store), [100_000, 300_000], "{kept}");
    }
    run(&store, &["prune", "-f", "--filter", "until=1h"]).done();
    assert_eq!(mounts(&store), [100_000]);
    with_mounts(&scratch, &store);
    // The image is gone: what steps made and the mounts are all that may stay, the newest first.
    run(&store, &["prune", "-f", "--filter", "label=x"]).done();
    run(&store, &["prune", "-a", "-f", "--keep-storage", "250k"]).done();
    assert_eq!(mounts(&store), [100_000]);
    // A step that uses a mount makes it new.
    with_mounts(&scratch, &store);
    build(&store, &context, &["--no-cache"]).done();
    run(&store, &["prune", "-f", "--filter", "until=1h"]).done();
    assert_eq!(mounts(&store), [100_000, 300_000]);
    let said = run(&store, &["prune", "-f"]);
    assert!(said.text().contains("Total reclaimed space:"), "{}", said.text());
    assert!(mounts(&store).is_empty());
    build(&store, &context, &["--no-cache"]).done();
    assert_eq!(mounts(&store), [100_000, 300_000]);
}

#[test]
fn a_cache_mount_that_a_step_uses_stays() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("used-mount");
    let store = scratch.join("s");
    let wait = "RUN --mount=type=cache,id=a,target=/c echo x > /c/f && busybox sleep 1 && while [ ! -e /c/go ]; do busybox sleep 0.05; done; busybox cat /c/f\n";
    let context = context(&scratch, "c", wait);
    let mut child = builder(&store, &context, &[]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let place = || {
        let mounts = fs::read_dir(store.join("cache/mounts")).ok()?;
        mounts.flatten().map(|mount| mount.path().join("fs")).find(|place| place.join("f").exists())
    };
    assert!(hull_testkit::call::eventually(LIMIT, || place().is_some()));
    let refused = run(&store, &["prune", "-f"]);
    refused.failed(1, "in use");
    let place = place().expect("it is still there");
    fs::write(place.join("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
}
