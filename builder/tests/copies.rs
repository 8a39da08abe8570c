//! COPY writes only what is new: files and compressed blocks of the layer before, trees only where a step needs one.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod making;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hull_testkit::{Scratch, call, gate, needs, place};

use making::{LIMIT, build, context};

/// A context whose COPY makes an archive of many blocks.
fn full_context(scratch: &Scratch, dockerfile: &str) -> PathBuf {
    let context = context(scratch, "c", dockerfile);
    let mut seed = 7u32;
    for number in 0..600u32 {
        let directory = context.join(format!("tree/d{}", number / 20));
        fs::create_dir_all(&directory).unwrap();
        let text: String = (0..3000)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                format!("{:x}", seed >> 24)
            })
            .collect();
        fs::write(directory.join(format!("f{number}")), text).unwrap();
    }
    // Files younger than this are not kept in the file cache.
    std::thread::sleep(Duration::from_millis(80));
    context
}

/// How often each file's content is in unpacked layers, by path in the layer: the number of its names.
fn names(store: &Path, path: &str) -> Vec<u64> {
    let layers = fs::read_dir(store.join("layers")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<u64> = layers
        .filter_map(|layer| fs::metadata(layer.join("fs").join(path)).ok())
        .map(|meta| meta.nlink())
        .collect();
    found.sort_unstable();
    found
}

/// What a step says of all files that it sees: their names and digests.
const TELL: &str =
    "RUN busybox find /src -type f -exec /bin/busybox sha256sum {} + | busybox sort -k 2 > /told\n";

#[test]
fn an_edit_shares_what_is_the_same_and_changes_no_byte_by_it() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("edit");
    let context = full_context(&scratch, &format!("COPY tree /src\n{TELL}"));
    let store = scratch.join("s");
    build(&store, &context, &[]).done();
    let fresh = |name: &str| build(&scratch.join(name), &context, &["-q"]).text().to_owned();
    fs::write(context.join("tree/d3/f60"), "edited").unwrap();
    let edited = build(&store, &context, &["-q"]);
    assert_eq!(names(&store, "src/d0/f0"), [1], "the second tree is only what differs from the first");
    assert_eq!(names(&store, "src/d3/f60"), [1, 1], "two files");
    assert_eq!(edited.text(), fresh("second"));
    fs::write(context.join("tree/d5/f100"), "edited").unwrap();
    fs::write(context.join("tree/d5/new"), "new").unwrap();
    let edited = build(&store, &context, &["-q"]);
    assert_eq!(names(&store, "src/d0/f0"), [1], "what differs still lies on the first");
    assert_eq!(names(&store, "src/d3/f60"), [1, 2, 2], "and shares what the second has");
    assert_eq!([names(&store, "src/d5/f100"), names(&store, "src/d5/new")], [vec![1, 1], vec![1]]);
    assert_eq!(edited.text(), fresh("third"));
    // Where something went, the tree is whole again.
    fs::remove_file(context.join("tree/d3/f61")).unwrap();
    let edited = build(&store, &context, &["-q"]);
    assert_eq!(names(&store, "src/d0/f0"), [2, 2], "one file in both layers");
    assert_eq!(names(&store, "src/d3/f60"), [1, 3, 3, 3], "from the difference, not from below it");
    assert_eq!(edited.text(), fresh("fourth"));
    // Another mode for everything shares no file, but still is the image that a fresh store makes.
    let text = fs::read_to_string(context.join("Dockerfile")).unwrap();
    fs::write(context.join("Dockerfile"), text.replace("COPY tree", "COPY --chmod=600 tree")).unwrap();
    let closed = build(&store, &context, &["-q"]);
    assert_eq!(names(&store, "src/d0/f0"), [1, 2, 2]);
    assert_eq!(closed.text(), fresh("fifth"));
}

#[test]
fn what_a_difference_lies_on_is_kept_with_it_and_made_again_when_it_is_lost() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("difference");
    let context = full_context(&scratch, &format!("COPY tree /src\n{TELL}"));
    let store = scratch.join("s");
    let hull = |arguments: &[&str]| {
        let mut command = Command::new(place::program("hull-build"));
        let outcome = call(command.env("HULL_ROOT", &store).args(arguments), LIMIT);
        outcome.done();
        outcome
    };
    build(&store, &context, &["-t", "n"]).done();
    fs::write(context.join("tree/d3/f60"), "edited").unwrap();
    let edited = build(&store, &context, &["-q", "-t", "n"]);
    let free = |row: &str| {
        let output = hull(&["df", "-v", "--format", "{{.Type}} {{.Reclaimable}}"]);
        let of_row = |line: &str| line.strip_prefix(row).map(|rest| rest.trim().parse::<u64>().unwrap());
        output.stdout.lines().find_map(of_row).unwrap()
    };
    hull(&["prune", "-f"]);
    assert_eq!(free("Layers"), 0, "what it lies on is needed, too");
    assert_eq!([names(&store, "src/d0/f0"), names(&store, "src/d3/f60")], [vec![1], vec![1, 1]]);
    hull(&["fsck"]);
    // A step that is new sees all of it.
    let again = fs::read_to_string(context.join("Dockerfile")).unwrap() + &TELL.replace("/told", "/again");
    let first = fs::read_to_string(context.join("Dockerfile")).unwrap();
    fs::write(context.join("Dockerfile"), &again).unwrap();
    let more = build(&store, &context, &["-q"]);
    assert_eq!(more.text(), build(&scratch.join("fresh"), &context, &["-q"]).text());
    // Without what it lies on a difference is nothing: both are made again.
    let layers = fs::read_dir(store.join("layers")).unwrap().map(|entry| entry.unwrap().path());
    let whole = layers.filter(|layer| layer.join("fs/src/d0/f0").exists()).collect::<Vec<_>>();
    assert_eq!(whole.len(), 1);
    fs::remove_dir_all(&whole[0]).unwrap();
    fs::write(context.join("Dockerfile"), again.replace("/again", "/third")).unwrap();
    let third = build(&store, &context, &["-q"]);
    assert_eq!(third.text(), build(&scratch.join("other"), &context, &["-q"]).text());
    assert_eq!(names(&store, "src/d3/f60"), [1], "unpacked whole");
    hull(&["fsck"]);
    fs::write(context.join("Dockerfile"), first).unwrap();
    assert_eq!(build(&store, &context, &["-q", "--no-cache"]).text(), edited.text());
}

#[test]
fn compressed_blocks_are_taken_over_from_the_layer_before() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("blocks");
    let context = full_context(&scratch, "COPY tree /src\n");
    let store = scratch.join("s");
    build(&store, &context, &[]).done();
    fs::write(context.join("tree/d3/f60"), "edited").unwrap();
    build(&store, &context, &[]).done();
    let mut lists: Vec<Vec<[u8; 40]>> = fs::read_dir(store.join("cache/blocks"))
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .map(|bytes| bytes[12..].chunks_exact(40).map(|record| record.try_into().unwrap()).collect())
        .collect();
    lists.sort_by_key(Vec::len);
    let [.., before, after] = &lists[..] else { panic!("two large layers") };
    let same = after.iter().filter(|record| before.contains(record)).count();
    assert!(after.len() >= 8, "{} blocks", after.len());
    assert_eq!(same, after.len() - 1, "all but the block with the edited file");
}

#[test]
fn a_copy_that_nothing_runs_on_makes_no_tree_until_something_does() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("lists");
    let context = full_context(&scratch, "COPY tree /src\nCOPY tree/d0/f0 /src/d0/\nCOPY tree/d1 /other/\n");
    let store = scratch.join("s");
    let lazy = build(&store, &context, &["-q"]);
    assert_eq!(names(&store, "src/d3/f60"), [] as [u64; 0]);
    // What is below decides where things go: a file for a directory is refused although no tree is there.
    let text = fs::read_to_string(context.join("Dockerfile")).unwrap();
    fs::write(context.join("Dockerfile"), format!("{text}COPY tree/d1 /src/d0/f1\n")).unwrap();
    let refused = build(&store, &context, &[]);
    assert!(refused.stderr.contains("open directory src/d0/f1: Not a directory"), "{}", refused.stderr);
    fs::write(
        context.join("Dockerfile"),
        format!("{text}RUN [\"/bin/busybox\", \"test\", \"-f\", \"/src/d3/f60\"]\n"),
    )
    .unwrap();
    build(&store, &context, &[]).done();
    assert_eq!(names(&store, "src/d3/f60"), [1], "now it is unpacked");
    fs::write(context.join("Dockerfile"), text).unwrap();
    assert_eq!(build(&store, &context, &["-q", "--no-cache"]).text(), lazy.text());
}

#[test]
fn own_layers_that_shrink_a_lot_are_unpacked_again_and_others_when_told() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("shrink");
    let context = context(&scratch, "c", "COPY ones /ones\n");
    fs::write(context.join("ones"), vec![1; 72 << 20]).unwrap();
    let (store, other) = (scratch.join("s"), scratch.join("other"));
    build(&store, &context, &["-q", "-t", "lab/ones"]).done();
    let archive = scratch.join("ones.tar");
    let program = |store: &Path, arguments: &[&str]| {
        let mut command = Command::new(place::program("hull-build"));
        call(command.env("HULL_ROOT", store).args(arguments), LIMIT)
    };
    let path = archive.display().to_string();
    program(&store, &["save", "-o", &path, "lab/ones"]).done();
    program(&other, &["load", "-i", &path]).done();
    let steps = "FROM lab/ones\nRUN [\"/bin/busybox\", \"test\", \"-s\", \"/ones\"]\n";
    fs::write(context.join("Dockerfile"), steps).unwrap();
    build(&store, &context, &["-q"]).done();
    let refused = build(&other, &context, &["-q"]);
    assert!(refused.stderr.contains("more than 200 times"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--layer-limit takes more"), "{}", refused.stderr);
    assert!(
        build(&other, &context, &["-q", "--layer-limit", "70m"]).stderr.contains("more than 73400320 bytes")
    );
    build(&other, &context, &["-q", "--layer-limit", "80m"]).done();
    // What it does not count for has no such hint.
    let added = scratch.join("added");
    fs::create_dir(&added).unwrap();
    call(Command::new("tar").arg("-czf").arg(added.join("a.tgz")).arg("-C").arg(&context).arg("ones"), LIMIT)
        .done();
    fs::write(added.join("Dockerfile"), "FROM scratch\nADD a.tgz /\n").unwrap();
    let refused = build(&other, &added, &["-q", "--layer-limit", "80m"]);
    assert!(refused.stderr.contains("more than 200 times"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("--layer-limit"), "{}", refused.stderr);
    for text in [&b"much"[..], b"80m\xff"] {
        let mut command = Command::new(place::program("hull-build"));
        command.env("HULL_LAYER_LIMIT", OsStr::from_bytes(text)).args(["images"]);
        call(&mut command, LIMIT).failed(1, "HULL_LAYER_LIMIT");
    }
    // What is noted of layers goes with them.
    let noted = |store: &Path| fs::read_dir(store.join("made")).unwrap().count();
    assert_eq!((noted(&store), noted(&other)), (1, 0));
    // One of a blob that never came, as a build killed in between leaves it.
    fs::write(store.join("made").join("0".repeat(64)), "{}").unwrap();
    program(&store, &["prune", "-f"]).done();
    assert_eq!(noted(&store), 1);
    program(&store, &["prune", "-a", "-f"]).done();
    assert_eq!(noted(&store), 0);
}

#[test]
fn own_times_are_kept_when_they_shall_be() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("times");
    let context = context(&scratch, "c", "COPY dir /to\n");
    fs::create_dir(context.join("dir")).unwrap();
    fs::write(context.join("dir/f"), "x").unwrap();
    let time = std::time::UNIX_EPOCH + Duration::from_secs(981_173_106);
    fs::File::options().write(true).open(context.join("dir/f")).unwrap().set_modified(time).unwrap();
    let times = ["--keep-times", ""].map(|flag| {
        let local = scratch.join(format!("local{flag}"));
        let output = format!("type=local,dest={}", local.display());
        let flags: Vec<&str> = [flag, "-o", &output].into_iter().filter(|flag| !flag.is_empty()).collect();
        build(&scratch.join("s"), &context, &flags).done();
        fs::metadata(local.join("to/f")).unwrap().mtime()
    });
    assert_eq!(times, [981_173_106, 315_532_800]);
}

#[test]
fn what_no_image_needs_is_kept_up_to_a_size() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("prune");
    let context = full_context(&scratch, "COPY tree /src\nRUN [\"/bin/busybox\", \"true\"]\n");
    let store = scratch.join("s");
    build(&store, &context, &[]).done();
    let prune = |flags: &[&str]| {
        let mut command = Command::new(place::program("hull-build"));
        call(command.env("HULL_ROOT", &store).arg("prune").args(flags), LIMIT).done();
    };
    let count = |directory: &str| fs::read_dir(store.join(directory)).unwrap().count();
    prune(&["-a", "--keep-storage", "10g"]);
    let again = build(&store, &context, &[]);
    assert_eq!(again.stderr.matches("CACHED").count(), 4, "{}", again.stderr);
    prune(&["-a", "--max-used-space", "1k"]);
    assert_eq!((count("blobs/sha256"), count("layers")), (0, 0));
    assert_eq!([count("cache/steps"), count("cache/blocks"), count("cache/last")], [0; 3]);
    build(&store, &context, &[]).done();
}

#[test]
fn attributes_of_files_are_in_the_layer_and_in_the_key() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("attributes");
    let context = context(&scratch, "c", "COPY f /f\n");
    let store = scratch.join("s");
    let file = context.join("f");
    fs::write(&file, "x").unwrap();
    // cap_net_raw, as setcap(8) writes it, and what a person notes; others' are none of an image's business.
    let capability = *b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("security.capability", &capability);
    set("trusted.note", b"mine");
    let has = |name: &str| {
        let store = hull_image::Store::open(&store).unwrap();
        let tagged = store.find("x").unwrap();
        let image = store.image(&tagged.descriptor, None).unwrap();
        let root = scratch.join(place::unique("root"));
        fs::create_dir(&root).unwrap();
        let fd = fs::File::open(&root).unwrap();
        hull_layer::Unpacker::new(&store).apply(&image, std::os::fd::AsFd::as_fd(&fd)).unwrap();
        let mut value = [0; 100];
        let found = rustix::fs::getxattr(root.join("f"), name, &mut value[..]);
        found.ok().map(|length| value[..length].to_vec())
    };
    for note in ["first", "other"] {
        set("user.note", note.as_bytes());
        let outcome = build(&store, &context, &["-t", "x"]);
        assert_eq!(outcome.stderr.matches("CACHED").count(), if note == "first" { 0 } else { 2 }, "{note}");
        assert_eq!(has("user.note").as_deref(), Some(note.as_bytes()));
        assert_eq!(has("security.capability").as_deref(), Some(&capability[..]));
        assert_eq!(has("trusted.note"), None);
    }
}

#[test]
fn an_output_names_the_image_as_a_tag_does() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("named");
    let store = scratch.join("s");
    let context = context(&scratch, "c", "");
    let archive = format!("type=oci,name=lab/archive:1,dest={}", scratch.join("a.tar").display());
    let outputs =
        ["-t", "lab/tag:1", "-t", "lab/b:2", "-o", "type=image,\"name=lab/a:1,lab/b:2\"", "-o", &archive];
    build(&store, &context, &outputs).done();
    let mut list = Command::new(place::program("hull-build"));
    list.env("HULL_ROOT", &store).args(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut names: Vec<String> = call(&mut list, LIMIT).text().lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["lab/a:1", "lab/archive:1", "lab/b:2", "lab/tag:1"]);
    let mut read = Command::new("tar");
    read.arg("-xOf").arg(scratch.join("a.tar")).arg("manifest.json");
    let listed = call(&mut read, LIMIT);
    let listed = listed.text();
    for name in names {
        assert_eq!(listed.matches(&format!("{name}\"")).count(), 1, "{name} in {listed}");
    }
    let refused = build(&store, &context, &["-o", "type=image,name=A:b:c"]);
    refused.failed(1, "read image name \"A:b:c\"");
}

#[test]
fn other_files_begin_another_cache() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("seeds");
    let text = "COPY seed /seed/f\nFROM scratch\nCOPY busybox /bin/\n\
        RUN --mount=type=cache,id=k,from=0,source=/seed,target=/c [\"/bin/busybox\", \"cp\", \"/c/f\", \"/out\"]\n";
    let context = context(&scratch, "c", text);
    let (store, output) = (scratch.join("s"), scratch.join("o"));
    let place = format!("type=local,dest={}", output.display());
    // The first one once more: its cache is still there.
    for (seed, is_cached) in [("one", false), ("two", false), ("one", true)] {
        fs::write(context.join("seed"), seed).unwrap();
        let outcome = build(&store, &context, &["-o", &place]);
        let said = outcome.stderr.contains("#5 CACHED");
        assert_eq!(fs::read_to_string(output.join("out")).unwrap(), seed, "{}", outcome.stderr);
        assert_eq!(said, is_cached, "{}", outcome.stderr);
        fs::remove_dir_all(&output).unwrap();
    }
    assert_eq!(fs::read_dir(store.join("cache/mounts")).unwrap().count(), 2);
}
