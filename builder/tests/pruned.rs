//! What `prune` and `rmi` take away beside whole images: cache mounts, single platforms.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod making;
mod stub;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use bed::Bed;
use hull_testkit::{Outcome, Scratch, call, gate, needs, place};

use making::{LIMIT, build, builder, context};
use stub::{Say, Stub};

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

#[test]
fn a_platform_is_taken_out_of_an_image_of_several() {
    let bed = Bed::new();
    let host = hull_image::Platform::host().to_string();
    bed.image("lab/own:1");
    let archive = bed.path("rootfs.tar").display().to_string();
    for (platform, name) in [("linux/riscv64", "lab/riscv:1"), ("linux/s390x", "lab/s390x:1")] {
        // Other files, so that it has a layer of its own.
        fs::write(bed.path("rootfs/tmp/of"), platform).unwrap();
        let made =
            Command::new("tar").args(["-cf", &archive, "-C"]).arg(bed.path("rootfs")).arg(".").status();
        assert!(made.unwrap().success());
        bed.ok(&["import", "--platform", platform, &archive, name]);
    }
    bed.ok(&["manifest", "create", "lab/all:1", "lab/own:1", "lab/riscv:1", "lab/s390x:1"]);
    let id = bed.ok(&["inspect", "-f", "{{.Id}}", "lab/own:1"]);
    let blobs = || fs::read_dir(bed.path("store/blobs/sha256")).unwrap().count();
    assert_eq!(blobs(), 10, "an index, and three times manifest, configuration and layer");
    let said = bed.fails(&["rmi", "--platform", "linux/riscv64", "lab/all:1"]);
    assert!(said.contains("is the image lab/riscv:1, too"), "{said}");
    bed.ok(&["rmi", "lab/riscv:1", "lab/s390x:1", "lab/own:1"]);
    assert_eq!(blobs(), 10);
    let said = bed.ok(&["rmi", "--platform", "linux/riscv64", "lab/all:1"]);
    assert!(said.starts_with("Deleted: sha256:"), "{said}");
    assert_eq!(blobs(), 7);
    assert_eq!(bed.ok(&["fsck"]), "0 problems\n");
    assert_eq!(bed.ok(&["inspect", "-f", "{{.Id}}", "lab/all:1"]), id);
    for (platform, why) in [("linux/riscv64", ""), ("linux/ppc64le", "platform linux/ppc64le")] {
        assert!(bed.fails(&["rmi", "--platform", platform, "lab/all:1"]).contains(why));
    }
    // The last ones take the name with them.
    bed.ok(&["rmi", "--platform", &format!("linux/s390x,{host}"), "lab/all:1"]);
    assert_eq!((bed.ok(&["images", "-q"]).as_str(), blobs()), ("", 0));
    bed.image("lab/own:1");
    let said = bed.fails(&["rmi", "--platform", "linux/riscv64", "lab/own:1"]);
    assert!(said.contains("not for linux/riscv64"), "{said}");
    bed.ok(&["rmi", "--platform", &host, "lab/own:1"]);
    assert_eq!(bed.ok(&["images", "-q"]), "");
}

#[test]
fn a_base_whose_platform_was_taken_out_is_pulled_again() {
    let bed = Bed::new();
    let stub = Stub::new(|_, _| Say::new("404 Not Found", b"{}"));
    bed.image("lab/own:1");
    let (host, name) = (hull_image::Platform::host().to_string(), stub.image());
    several(&bed, &[&host, "linux/s390x"], &[(&name, 2)]);
    bed.ok(&["rmi", "--platform", &host, &name]);
    fs::create_dir(bed.path("c")).unwrap();
    fs::write(bed.path("c/Dockerfile"), format!("FROM {name}\nLABEL a=b\n")).unwrap();
    let context = bed.path("c").display().to_string();
    let said = bed.fails(&["build", "--retry", "0", &context]);
    assert!(said.contains("can't be pulled") && !stub.asked("/v2/r/manifests/t").is_empty(), "{said}");
    let before = stub.seen().len();
    bed.fails(&["build", "--pull=never", &context]);
    assert_eq!(stub.seen().len(), before);
}

/// Imports an image of each platform under a name of its own.
fn parts(bed: &Bed, platforms: &[&str]) -> Vec<String> {
    let archive = bed.path("rootfs.tar").display().to_string();
    let part = |place: usize| format!("lab/part{place}:1");
    for (place, platform) in platforms.iter().enumerate() {
        bed.ok(&["import", "--platform", platform, &archive, &part(place)]);
    }
    (0..platforms.len()).map(part).collect()
}

/// Makes indexes, each of the first so many of the platforms' images, which they share and which
/// have no names of their own.
fn several(bed: &Bed, platforms: &[&str], indexes: &[(&str, usize)]) {
    let parts = parts(bed, platforms);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    for (name, count) in indexes {
        bed.ok(&[&["manifest", "create", name], &parts[..*count]].concat());
    }
    bed.ok(&[&["rmi"], &parts[..]].concat());
}

#[test]
fn a_platform_that_an_image_serves_but_is_not_for_stays() {
    let bed = Bed::new();
    bed.image("lab/own:1");
    several(&bed, &["linux/arm/v6", "linux/amd64", "linux/s390x"], &[("lab/arm:1", 3)]);
    for (wanted, found) in [("linux/arm/v7", "linux/arm/v6"), ("linux/amd64/v3", "linux/amd64")] {
        let said = bed.fails(&["rmi", "--platform", wanted, "lab/arm:1"]);
        assert!(said.contains(&format!("is for {found}, not for {wanted}")), "{said}");
    }
    for platform in ["linux/arm/v6", "linux/amd64"] {
        let said = bed.ok(&["rmi", "--platform", platform, "lab/arm:1"]);
        assert!(said.starts_with("Deleted: sha256:"), "{said}");
    }
    assert_eq!(bed.ok(&["fsck"]), "0 problems\n");
}

#[test]
fn a_platform_that_another_index_has_too_stays() {
    let bed = Bed::new();
    bed.image("lab/own:1");
    let platforms = ["linux/riscv64", "linux/s390x", "linux/ppc64le"];
    several(&bed, &platforms, &[("lab/all:1", 2), ("lab/more:1", 3)]);
    bed.ok(&["tag", "lab/all:1", "lab/all:2"]);
    let said = bed.fails(&["rmi", "--platform", "linux/riscv64", "lab/all:1"]);
    assert!(said.contains("is in the image lab/more:1, too"), "{said}");
    bed.ok(&["save", "--platform", "linux/riscv64", "-o", "/dev/null", "lab/more:1"]);
    bed.ok(&["rmi", "lab/more:1"]);
    // The other name is of the same image: it keeps nobody from it.
    bed.ok(&["rmi", "--platform", "linux/riscv64", "lab/all:1"]);
    bed.fails(&["save", "--platform", "linux/riscv64", "-o", "/dev/null", "lab/all:2"]);
}

#[test]
fn an_id_that_fits_several_images_is_told_even_by_force() {
    let bed = Bed::new();
    bed.image("lab/own:1");
    let archive = bed.path("rootfs.tar").display().to_string();
    // Of 17 ids two begin with the same of 16 digits.
    for place in 0..17 {
        bed.ok(&["import", "-c", &format!("ENV PLACE={place}"), &archive, &format!("lab/own:{place}")]);
    }
    let all = bed.ok(&["images", "-q", "--no-trunc"]);
    let mut firsts: Vec<&str> = all.lines().filter_map(|id| id.strip_prefix("sha256:")?.get(..1)).collect();
    firsts.sort_unstable();
    let shared = firsts.windows(2).find(|pair| pair[0] == pair[1]).unwrap()[0];
    for flags in [&["rmi", shared][..], &["rmi", "-f", shared]] {
        assert!(bed.fails(flags).contains("several begin so"));
    }
    assert_eq!(bed.ok(&["images", "-q", "--no-trunc"]), all);
    assert_eq!(bed.ok(&["rmi", "-f", "lab/none:1"]), "");
}

/// A store with files that not even root can remove, until this is dropped.
struct Fixed<'a>(&'a Path);

impl Fixed<'_> {
    /// False on a file system that has no such files, or for a root that may not make them.
    fn add(&self, path: &Path) -> bool {
        fs::write(path, "").unwrap();
        let made = Command::new("chattr").arg("+i").arg(path).stderr(std::process::Stdio::null()).status();
        made.is_ok_and(|status| status.success())
    }
}

impl Drop for Fixed<'_> {
    fn drop(&mut self) {
        drop(Command::new("chattr").args(["-R", "-f", "-i"]).arg(self.0).status());
    }
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_cache_mount_of_any_depth_goes() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("deep-mount");
    let store = scratch.join("s");
    let make = "RUN --mount=type=cache,target=/c cd /c && i=0 && while [ $i -lt 1500 ]; do busybox mkdir d && cd d && i=$((i+1)) || exit 1; done\n";
    build(&store, &context(&scratch, "c", make), &[]).done();
    assert_eq!(count(&store.join("cache/mounts")), 1);
    let prune = "ulimit -n 256 && exec \"$0\" prune -f";
    let program = place::program("hull-build");
    call(Command::new("sh").args(["-c", prune]).arg(program).env("HULL_ROOT", &store), LIMIT).done();
    assert_eq!((count(&store.join("cache/mounts")), count(&store.join("tmp"))), (0, 0));
}

#[test]
fn what_cannot_be_removed_is_told_and_neither_used_again_nor_holds_up_the_rest() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("chattr"));
    let scratch = Scratch::new("fixed");
    let store = scratch.join("s");
    let steps = "RUN --mount=type=cache,id=a,target=/c set -- /c/*; [ $1 = '/c/*' ] && for i in 1 2 3 4 5; do echo > /c/a$i; done\nRUN --mount=type=cache,id=b,target=/c echo > /c/b\n";
    let context = context(&scratch, "c", steps);
    build(&store, &context, &[]).done();
    let place = |dir: &str, file: &str| {
        let mut places =
            fs::read_dir(store.join(dir)).unwrap().flatten().map(|entry| entry.path().join("fs"));
        places.find(|place| place.join(file).exists()).unwrap().join("fixed")
    };
    let fixed = Fixed(&store);
    if !(fixed.add(&place("cache/mounts", "a1")) && fixed.add(&place("layers", "bin/busybox"))) {
        return gate::skipped("this file system has no file that root cannot remove");
    }
    let pruned = run(&store, &["prune", "-a", "-f"]);
    assert_eq!(pruned.code, 1, "{}", pruned.stderr);
    let told: Vec<_> = pruned.stderr.lines().collect();
    assert!(
        told.len() == 2 && told.iter().all(|line| line.contains("fixed: Operation not permitted")),
        "{told:?}"
    );
    assert!(pruned.stdout.contains("Total reclaimed space:"), "{}", pruned.stdout);
    for dir in ["cache/mounts", "layers", "blobs/sha256"] {
        assert_eq!(count(&store.join(dir)), 0, "{dir}");
    }
    // The step finds its cache mount empty.
    build(&store, &context, &["--no-cache"]).done();
    drop(fixed);
    run(&store, &["prune", "-a", "-f"]).done();
    assert_eq!(count(&store.join("tmp")), 0);
}

/// A store that comes with a machine's image, say: the kernel moves no directory of an overlay's lower layer.
#[test]
fn a_store_from_the_lower_layer_of_an_overlay_is_pruned() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("unshare"));
    let scratch = Scratch::new("lower");
    let store = scratch.join("s");
    build(&store, &context(&scratch, "c", "RUN --mount=type=cache,target=/c echo > /c/a\n"), &[]).done();
    assert!(count(&store.join("layers")) > 0 && count(&store.join("cache/mounts")) == 1);
    let script = "mount -t tmpfs none \"$1\" && mkdir \"$1/up\" \"$1/work\" \"$1/s\"\n\
         mount -t overlay -o \"lowerdir=$2,upperdir=$1/up,workdir=$1/work,redirect_dir=off\" none \"$1/s\"\n\
         HULL_ROOT=\"$1/s\" \"$0\" prune -a -f\n\
         find \"$1/s/layers\" \"$1/s/cache/mounts\" \"$1/s/tmp\" -mindepth 1 -printf 'left: %p\\n'";
    let place = scratch.join("place");
    fs::create_dir(&place).unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-ec", script]).arg(place::program("hull-build")).args([&place, &store]);
    let pruned = call(&mut command, LIMIT);
    assert_eq!(pruned.code, 0, "{}", pruned.stderr);
    assert!(pruned.stdout.contains("Total reclaimed space:"), "{}", pruned.stdout);
    assert!(!pruned.stdout.contains("left:"), "{}", pruned.stdout);
}

#[test]
fn what_an_earlier_command_left_for_good_is_told_by_rmi_and_fails_it_not() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("unshare"));
    let scratch = Scratch::new("left");
    let store = scratch.join("s");
    build(&store, &context(&scratch, "c", ""), &["-t", "lab/a:1"]).done();
    // Not even root removes the place of a mount.
    let script = "mkdir -p \"$1/tmp/left/m\" && mount -t tmpfs none \"$1/tmp/left/m\"\n\
         export HULL_ROOT=\"$1\"\n\
         \"$0\" rmi lab/a:1 || exit 3\n\
         \"$0\" prune -a -f || exit 4";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(place::program("hull-build")).arg(&store);
    let both = call(&mut command, LIMIT);
    assert_eq!(both.code, 4, "{}", both.stderr);
    let told: Vec<_> = both.stderr.lines().collect();
    assert_eq!(told.len(), 2, "{told:?}");
    for (line, command) in told.iter().zip(["rmi", "prune"]) {
        assert!(line.starts_with(&format!("hull-build: {command}: remove ")), "{line}");
        assert!(line.contains("/tmp/left/m: ") && line.ends_with("busy (os error 16)"), "{line}");
    }
    assert!(both.stdout.contains("Untagged: lab/a:1"), "{}", both.stdout);
}

#[test]
fn a_layer_whose_record_cannot_be_read_holds_up_nothing_but_layers() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("unreadable");
    let store = scratch.join("store");
    for name in ["a", "b", "c"] {
        let step = format!("RUN [\"/bin/busybox\", \"touch\", \"/{name}\"]\n");
        build(&store, &context(&scratch, name, &step), &["-t", name]).done();
    }
    let layers = || count(&store.join("layers"));
    let (blobs, before) = (count(&store.join("blobs/sha256")), layers());
    let layer = fs::read_dir(store.join("layers")).unwrap().next().unwrap().unwrap().path();
    let (record, kept) = (layer.join("layer.json"), layer.join("kept"));
    fs::rename(&record, &kept).unwrap();
    // A link to itself: the open fails, and not because nothing is there.
    std::os::unix::fs::symlink("layer.json", &record).unwrap();
    let gone = run(&store, &["rmi", "a"]);
    assert!(gone.code == 0 && gone.stderr.contains("layer.json"), "{}: {}", gone.code, gone.stderr);
    run(&store, &["prune", "-a"]).failed(1, "layer.json: ");
    assert!(count(&store.join("blobs/sha256")) < blobs, "content goes");
    assert_eq!((layers(), run(&store, &["images", "-q"]).text()), (before, ""));
    fs::remove_file(&record).unwrap();
    fs::rename(&kept, &record).unwrap();
    run(&store, &["prune", "-a"]).done();
    assert_eq!(layers(), 0);
}
