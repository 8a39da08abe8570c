use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, mpsc};

use super::*;
use crate::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    (dir, store)
}

fn put_image(store: &Store, name: &str, content: &str) -> Descriptor {
    let layer = store.put_bytes(media::OCI_LAYER, content.as_bytes()).unwrap();
    let mut config =
        ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
    config.rootfs.diff_ids.push(layer.digest.clone());
    let config = store.put_config(&config).unwrap();
    let manifest = store.put_manifest(&Manifest::new(config, vec![layer]), None).unwrap();
    store.put_image(&name.parse().unwrap(), &manifest).unwrap();
    manifest
}

#[test]
fn an_image_comes_back_by_name_by_id_and_by_digest() {
    let (_dir, store) = store();
    let manifest = put_image(&store, "a/b:1", "x");
    let image = store.image(&manifest, None).unwrap();
    for text in
        ["a/b:1", "docker.io/a/b:1", image.id().short(), image.id().as_str(), manifest.digest.as_str()]
    {
        assert_eq!(store.find(text).unwrap().descriptor.digest, manifest.digest, "{text}");
    }
    let pinned = format!("a/b@{}", manifest.digest);
    assert_eq!(store.find(&pinned).unwrap().descriptor.digest, manifest.digest);
    for text in [
        "a/b",
        "a/b:2",
        "0000",
        "",
        "a/c@sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ] {
        assert!(store.find(text).is_err(), "{text}");
    }
}

#[test]
fn moving_a_name_leaves_the_old_image_nameless() {
    let (_dir, store) = store();
    let old = put_image(&store, "a", "old");
    let new = put_image(&store, "a", "new");
    let names: Vec<_> =
        store.images().unwrap().into_iter().map(|i| (i.reference.is_some(), i.descriptor.digest)).collect();
    assert_eq!(names, [(false, old.digest), (true, new.digest.clone())]);
    assert!(store.untag(&"a".parse().unwrap()).unwrap(), "the last name goes");
    assert!(store.untag(&"a".parse().unwrap()).is_err());
}

#[test]
fn unfinished_and_wrong_blobs_leave_nothing_behind() {
    let (_dir, store) = store();
    let expected = Descriptor::of("m", b"right");
    store.blob_writer().unwrap().write_all(b"half").unwrap();
    assert!(store.put_expected_blob(&expected, &mut &b"wrong"[..]).is_err());
    assert!(store.put_expected_blob(&expected, &mut &b"righ"[..]).is_err());
    assert!(store.put_expected_blob(&expected, &mut &b"right and more"[..]).is_err());
    assert_eq!(store.blobs().unwrap(), []);
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
    store.put_expected_blob(&expected, &mut &b"right"[..]).unwrap();
    assert_eq!(store.read_blob(&expected, 5).unwrap(), b"right");
    assert!(store.read_blob(&expected, 4).is_err(), "the limit holds");
}

#[test]
fn a_restarted_blob_forgets_its_first_bytes() {
    let (_dir, store) = store();
    let mut writer = store.expected_blob_writer(&Descriptor::of("m", b"right")).unwrap();
    writer.write_all(b"rig").unwrap();
    writer.restart().unwrap();
    writer.write_all(b"right").unwrap();
    assert_eq!(writer.finish("m").unwrap().digest, Digest::of(b"right"));
}

#[test]
fn a_blob_that_is_synced_on_the_way_is_whole() {
    let (_dir, store) = store();
    let part = vec![7; 1 << 20];
    let mut writer = store.blob_writer().unwrap();
    for _ in 0..66 {
        writer.write_all(&part).unwrap();
    }
    writer.restart().unwrap();
    let mut hasher = Hasher::new();
    for number in 0..130u8 {
        let part = vec![number; 1 << 20];
        hasher.update(&part);
        writer.write_all(&part).unwrap();
    }
    let descriptor = writer.finish("x").unwrap();
    assert_eq!((descriptor.size, &descriptor.digest), (130 << 20, &hasher.finish()));
    assert_eq!(store.verify_blob(&descriptor.digest).unwrap(), 130 << 20);
}

/// A writer whose blob is told of, and where it is told.
fn announced(store: &Store) -> (BlobWriter<'_>, mpsc::Receiver<Growing>) {
    let (tell, told) = mpsc::channel();
    let mut writer = store.blob_writer().unwrap();
    writer.announce(Arc::new(move |growing: &Growing| tell.send(growing.clone()).unwrap()));
    (writer, told)
}

#[test]
fn a_large_blob_is_read_while_it_is_written() {
    let (_dir, store) = store();
    let (mut writer, told) = announced(&store);
    let part = |number: u8| vec![number; 1 << 20];
    (0..15).for_each(|number| writer.write_all(&part(number)).unwrap());
    assert!(told.try_recv().is_err(), "not large yet");
    writer.write_all(&part(15)).unwrap();
    let growing = told.recv().unwrap();
    let read = |part: std::ops::Range<u64>| {
        let mut bytes = Vec::new();
        growing.part(part).read_to_end(&mut bytes).map(|_| bytes)
    };
    assert_eq!(growing.reaches(0, 3), Some(16 << 20), "all that there is");
    let first = read(0..16 << 20).unwrap();
    assert!(first.chunks(1 << 20).zip(0..).all(|(chunk, number)| chunk == part(number)));
    assert_eq!(read(16 << 20..17 << 20).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(growing.descriptor(), None);
    let following = growing.clone();
    let waiting = std::thread::spawn(move || following.reaches(16 << 20, 4 << 20));
    (16..20).for_each(|number| writer.write_all(&part(number)).unwrap());
    assert_eq!(waiting.join().unwrap(), Some(20 << 20));
    let following = growing.clone();
    let waiting = std::thread::spawn(move || following.reaches(20 << 20, 1));
    let descriptor = writer.finish("m").unwrap();
    assert_eq!(waiting.join().unwrap(), Some(20 << 20), "no more will come");
    assert_eq!(growing.descriptor(), Some(descriptor.clone()));
    assert_eq!(Digest::of(&read(0..20 << 20).unwrap()), descriptor.digest);
    assert!(read(19 << 20..20 << 20).unwrap() == part(19), "a part of it, once more");
}

#[test]
fn who_waits_for_a_blob_that_is_given_up_by_either_side_hears_it() {
    let (_dir, store) = store();
    for by_writer in [true, false] {
        let (mut writer, told) = announced(&store);
        writer.write_all(&vec![7; 17 << 20]).unwrap();
        let growing = told.recv().unwrap();
        let following = growing.clone();
        let waiting = std::thread::spawn(move || following.reaches(0, 18 << 20));
        match by_writer {
            true => drop(writer),
            false => growing.give_up(),
        }
        assert_eq!(waiting.join().unwrap(), None);
        assert_eq!(growing.descriptor(), None);
    }
}

#[test]
fn every_flipped_blob_is_found_and_quarantined() {
    let (_dir, mut store) = store();
    put_image(&store, "a", "content");
    assert_eq!(store.check().unwrap(), []);
    for digest in store.blobs().unwrap() {
        let path = store.blob_path(&digest);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[0] ^= 1;
        fs::write(&path, &bad).unwrap();
        let findings = repaired(&mut store);
        assert!(findings.contains(&Finding::Damaged(digest.clone())), "{digest}: {findings:?}");
        assert!(!path.exists());
        assert_eq!(store.check().unwrap().len(), 1, "the image is incomplete now");
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(store.check().unwrap(), []);
}

/// What a check finds, after it was mended.
fn repaired(store: &mut Store) -> Vec<Finding> {
    let findings = store.check().unwrap();
    store.alone(|store| store.repair(&findings)).unwrap();
    findings
}

#[test]
fn a_repair_moves_nothing_that_is_whole_by_now_or_only_cannot_be_read() {
    let (_dir, mut store) = store();
    let blob = store.put_bytes("m", b"whole").unwrap();
    let path = store.blob_path(&blob.digest);
    fs::write(&path, b"other").unwrap();
    let findings = store.check().unwrap();
    assert_eq!(findings, [Finding::Damaged(blob.digest.clone())]);
    fs::write(&path, b"whole").unwrap();
    store.alone(|store| store.repair(&findings)).unwrap();
    assert!(store.has_blob(&blob));
    // A link to itself: the open fails, and not because nothing is there.
    let kept = path.with_extension("kept");
    fs::rename(&path, &kept).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let findings = repaired(&mut store);
    assert!(
        matches!(&findings[..], [Finding::Unreadable { what, .. }] if *what == format!("blob {}", blob.digest))
    );
    fs::rename(&kept, &path).unwrap();
    assert_eq!((store.check().unwrap(), store.has_blob(&blob)), (vec![], true));
}

#[test]
fn garbage_goes_and_what_is_named_or_pinned_stays() {
    let (_dir, mut store) = store();
    let kept = put_image(&store, "a", "kept");
    let loose = store.put_bytes("m", b"loose").unwrap();
    let pinned = store.put_bytes("m", b"pinned").unwrap();
    store.pin("p", std::slice::from_ref(&pinned.digest)).unwrap();
    let freed = store.collect_garbage(&BTreeSet::new()).unwrap();
    assert_eq!((freed.blobs, freed.bytes), (vec![loose.digest], 5));
    assert!(store.image(&kept, None).is_ok() && store.has_blob(&pinned));
    store.unpin("p").unwrap();
    assert_eq!(store.collect_garbage(&BTreeSet::new()).unwrap().blobs, [pinned.digest]);
}

#[test]
fn garbage_collection_waits_for_nobody_and_harms_nobody() {
    let (_dir, mut store) = store();
    let other = Store::open(store.dir()).unwrap();
    let loose = other.put_bytes("m", b"in use by a running build").unwrap();
    assert!(matches!(store.collect_garbage(&BTreeSet::new()), Err(Error::Busy(_))));
    assert!(store.has_blob(&loose));
    drop(other);
    assert_eq!(store.collect_garbage(&BTreeSet::new()).unwrap().blobs, [loose.digest]);
}

#[test]
fn leftovers_of_dead_processes_go_when_the_store_is_opened_alone() {
    let (_dir, store) = store();
    let leftover = store.dir().join("tmp/1-dead");
    fs::write(&leftover, b"x").unwrap();
    let second = Store::open(store.dir()).unwrap();
    assert!(leftover.exists(), "the first process might be writing it");
    let dir = store.dir().to_owned();
    drop((store, second));
    Store::open(&dir).unwrap();
    assert!(!leftover.exists());
}

#[test]
fn links_inside_a_foreign_layout_are_never_followed() {
    let (dir, store) = store();
    let manifest = put_image(&store, "a", "x");
    let foreign = dir.path().join("foreign");
    let secret = dir.path().join("secret");
    fs::write(&secret, fs::read(store.blob_path(&manifest.digest)).unwrap()).unwrap();
    fs::create_dir_all(foreign.join("blobs/sha256")).unwrap();
    fs::copy(store.dir().join("oci-layout"), foreign.join("oci-layout")).unwrap();
    fs::copy(store.dir().join("index.json"), foreign.join("index.json")).unwrap();
    std::os::unix::fs::symlink(&secret, foreign.join("blobs/sha256").join(manifest.digest.encoded()))
        .unwrap();
    // Positive control: a reader that follows links gets the content.
    assert!(fs::read(foreign.join("blobs/sha256").join(manifest.digest.encoded())).is_ok());
    let layout = Store::open_foreign(&foreign).unwrap();
    assert!(layout.blob(&manifest).is_err());
    fs::remove_file(foreign.join("index.json")).unwrap();
    std::os::unix::fs::symlink(store.dir().join("index.json"), foreign.join("index.json")).unwrap();
    assert!(layout.images().is_err());
}

#[test]
fn a_layout_of_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::Layout { .. })));
    assert!(matches!(Store::open_foreign(dir.path()), Err(Error::Layout { .. })));
}

#[test]
fn ten_writers_lose_no_name() {
    let (_dir, store) = store();
    let manifest = put_image(&store, "base", "x");
    std::thread::scope(|scope| {
        for writer in 0..10 {
            let dir = store.dir();
            let manifest = &manifest;
            scope.spawn(move || {
                let store = Store::open(dir).unwrap();
                for count in 0..5 {
                    store.put_image(&format!("n{writer}:t{count}").parse().unwrap(), manifest).unwrap();
                }
            });
        }
    });
    assert_eq!(store.images().unwrap().len(), 51);
}

#[test]
fn a_layer_of_an_earlier_boot_counts_only_when_settled() {
    let (_dir, store) = store();
    let id = Digest::of(b"layer");
    let tree = store.temporary_path();
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("f"), b"1").unwrap();
    let record = LayerRecord {
        diff_id: id.clone(),
        blob: None,
        size: 1,
        entries: 1,
        boot: String::new(),
        settled: false,
        on: None,
    };
    let dir = store.adopt_layer(&tree, record, None).unwrap();
    let ids = [id];
    assert_eq!(store.snapshot(&ids).unwrap().layers, [dir.join("fs")]);
    let file = dir.join("layer.json");
    let earlier = |text: String| text.replace(&boot_of(&text), "another-boot");
    fs::write(&file, earlier(fs::read_to_string(&file).unwrap())).unwrap();
    // One that is open knows what it has seen: a reboot ends it.
    let again = Store::open(store.dir()).unwrap();
    assert_eq!(again.snapshot(&ids), None);
    let mut record: LayerRecord = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    record.settled = true;
    fs::write(&file, canonical(&record)).unwrap();
    assert!(again.snapshot(&ids).is_some());
}

/// A layer that other builds have mounted is not taken for the rest of an earlier boot because a record was not read.
#[test]
fn a_record_that_cannot_be_read_takes_no_layer_away() {
    let (_dir, mut store) = store();
    let id = Digest::of(b"layer");
    let (boot, settled) = (String::new(), false);
    let record =
        LayerRecord { diff_id: id.clone(), blob: None, size: 1, entries: 1, boot, settled, on: None };
    let adopt = |store: &Store| {
        let tree = store.temporary_path();
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("f"), b"1").unwrap();
        store.adopt_layer(&tree, record.clone(), None)
    };
    let dir = adopt(&store).unwrap();
    // A link to itself: the open fails, and not because nothing is there.
    fs::rename(dir.join("layer.json"), dir.join("kept")).unwrap();
    std::os::unix::fs::symlink("layer.json", dir.join("layer.json")).unwrap();
    assert!(adopt(&store).unwrap_err().to_string().starts_with("open "));
    let findings = repaired(&mut store);
    let layer = format!("layer {}", id.encoded());
    assert!(
        matches!(&findings[..], [Finding::Unreadable { what, reason }] if *what == layer && reason.contains("layer.json: ")),
        "{findings:?}"
    );
    store.settle(std::time::Duration::ZERO).unwrap();
    assert_eq!(store.seen_layers().unwrap(), [(dir.clone(), None)]);
    // Content that nothing needs goes all the same; layers stay, as it is not known which ones this one lies on.
    let (loose, other) = (store.put_bytes("m", b"loose").unwrap(), adopt_named(&store, "other", None));
    let freed = store.collect_garbage(&BTreeSet::new()).unwrap();
    assert_eq!((freed.blobs, freed.layers.len(), freed.failures.len()), (vec![loose.digest], 0, 0));
    assert!(freed.left[0].to_string().ends_with("layer.json") && other.exists(), "{:?}", freed.left);
    assert_eq!(fs::read(dir.join("fs/f")).unwrap(), b"1");
    fs::rename(dir.join("kept"), dir.join("layer.json")).unwrap();
    assert_eq!(adopt(&store).unwrap(), dir);
}

/// Makes a layer of one file, whole or on another one.
fn adopt_named(store: &Store, name: &str, on: Option<&str>) -> PathBuf {
    let tree = store.temporary_path();
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join(name), b"1").unwrap();
    let id = |name: &str| Digest::of(name.as_bytes());
    let (boot, settled) = (String::new(), false);
    let record =
        LayerRecord { diff_id: id(name), blob: None, size: 1, entries: 1, boot, settled, on: on.map(id) };
    store.adopt_layer(&tree, record, None).unwrap()
}

#[test]
fn a_difference_lies_on_a_whole_tree_and_counts_only_with_it() {
    let (_dir, store) = store();
    let (base, upper) = (adopt_named(&store, "base", None), adopt_named(&store, "upper", Some("base")));
    let ids = [Digest::of(b"other"), Digest::of(b"upper")];
    let other = adopt_named(&store, "other", None);
    let trees = [&other, &base, &upper].map(|dir| dir.join("fs"));
    assert_eq!(store.snapshot(&ids).unwrap().layers, trees);
    let third = adopt_named(&store, "third", Some("upper"));
    assert_eq!(store.layer_record(&third), None, "what it lies on must be whole");
    fs::remove_dir_all(&base).unwrap();
    let at = store.dir().to_owned();
    drop(store);
    let mut again = Store::open(&at).unwrap();
    assert_eq!((again.snapshot(&ids), again.layer_trees(&upper)), (None, None));
    let findings = repaired(&mut again);
    assert!(findings.contains(&Finding::Unsettled(Digest::of(b"upper").encoded().to_owned())));
    assert_eq!(again.layers().unwrap().len(), 1, "the other one");
}

#[test]
fn what_a_kept_layer_lies_on_is_kept() {
    let (_dir, mut store) = store();
    let (base, upper) = (adopt_named(&store, "base", None), adopt_named(&store, "upper", Some("base")));
    let lone = adopt_named(&store, "lone", Some("base"));
    store.pin("p", &[Digest::of(b"upper")]).unwrap();
    assert!(store.reachable().unwrap().contains(&Digest::of(b"base")));
    let freed = store.collect_garbage(&BTreeSet::new()).unwrap();
    assert_eq!(freed.layers, [Digest::of(b"lone").encoded()]);
    assert_eq!([&base, &upper, &lone].map(|dir| dir.exists()), [true, true, false]);
    store.unpin("p").unwrap();
    let freed = store.collect_garbage(&BTreeSet::from([Digest::of(b"upper")])).unwrap();
    assert_eq!(freed.layers, [] as [&str; 0], "kept by the caller");
    assert_eq!(store.collect_garbage(&BTreeSet::new()).unwrap().layers.len(), 2);
}

#[test]
fn layers_are_settled_once_one_of_them_is_old_enough() {
    let (_dir, store) = store();
    let id = Digest::of(b"layer");
    let tree = store.temporary_path();
    fs::create_dir(&tree).unwrap();
    let (boot, settled) = (String::new(), false);
    let record = LayerRecord { diff_id: id, blob: None, size: 0, entries: 0, boot, settled, on: None };
    let dir = store.adopt_layer(&tree, record, None).unwrap();
    let is_settled = || store.layer_record(&dir).unwrap().settled;
    store.settle(SETTLE_AFTER).unwrap();
    assert!(!is_settled(), "a new one waits for nobody's disk");
    store.settle(std::time::Duration::ZERO).unwrap();
    assert!(is_settled());
}

#[test]
fn a_sealed_blob_is_seen_when_it_is_published() {
    let (_dir, store) = store();
    let sealed = |bytes: &[u8]| {
        let mut writer = store.blob_writer().unwrap();
        writer.write_all(bytes).unwrap();
        writer.seal("text/plain").unwrap()
    };
    let (one, same, other) = (sealed(b"one"), sealed(b"one"), sealed(b"other"));
    let (first, second) = (one.descriptor().clone(), other.descriptor().clone());
    assert!(!store.has_blob(&first));
    publish(vec![one, same]).unwrap();
    assert_eq!(store.read_blob(&first, 9).unwrap(), b"one");
    drop(other);
    assert!(!store.has_blob(&second));
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0, "nothing is left of either");
}

fn boot_of(text: &str) -> String {
    serde_json::from_str::<LayerRecord>(text).unwrap().boot
}

#[test]
fn chain_ids_follow_the_specification() {
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    assert_eq!(chain_id(&[]), None);
    assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.clone()));
    assert_eq!(chain_id(&[a.clone(), b.clone()]), Some(Digest::of(format!("{a} {b}").as_bytes())));
}

#[test]
fn an_image_that_is_named_while_it_is_removed_stays() {
    let (_dir, store) = store();
    let manifest = put_image(&store, "a", "x");
    store.untag(&"a".parse().unwrap()).unwrap();
    store.put_nameless(&manifest).unwrap();
    let seen = store.images().unwrap();
    assert_eq!(seen.len(), 1);
    store.put_image(&"kept".parse().unwrap(), &manifest).unwrap();
    store.remove_entries(&seen).unwrap();
    let left = store.images().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].reference.as_ref().unwrap().familiar(), "kept:latest");
    store.remove_entries(&left).unwrap();
    assert_eq!(store.images().unwrap(), []);
}
