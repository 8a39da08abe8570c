//! What leads a careless program out of its destination, and what entries may do to each other inside of it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use hull_layer::{Extractor, Kind, TarReader, Whiteouts};

use super::bed::{Archive, Bed, header, seal};

/// What a careless program does: joins paths, follows links.
fn naive(archive: &[u8], dest: &Path) {
    let mut reader = TarReader::new(archive, 1 << 20);
    while let Ok(Some(entry)) = reader.next_entry() {
        let text = String::from_utf8_lossy(&entry.name).into_owned();
        let name = Path::new(&text);
        let path = dest.join(name);
        let hidden = path.file_name().and_then(|name| name.to_str()?.strip_prefix(".wh."));
        let path_of = |target: &[u8]| dest.join(String::from_utf8_lossy(target).as_ref());
        // A careless program does not look at outcomes either.
        let _ = match (&entry.kind, hidden) {
            (_, Some(".wh..opq")) => fs::read_dir(path.parent().unwrap())
                .map(|inside| inside.flatten().for_each(|entry| drop(fs::remove_file(entry.path())))),
            (_, Some(name)) => fs::remove_file(path.with_file_name(name)),
            (Kind::File { .. }, _) => {
                let mut content = Vec::new();
                reader.read_to_end(&mut content).and_then(|_| fs::write(&path, content))
            }
            (Kind::Directory, _) => fs::create_dir(&path),
            (Kind::Symlink(target), _) => symlink(String::from_utf8_lossy(target).as_ref(), &path),
            (Kind::Hardlink(target), _) => fs::hard_link(path_of(target), &path),
            _ => Ok(()),
        };
    }
}

/// Every archive that leads a careless program out of its destination.
fn escapes(outside: &str) -> Vec<(&'static str, Vec<u8>)> {
    let new = Archive::default;
    let decoy = format!("{outside}/decoy");
    vec![
        ("dot-dot", new().file("../outside/decoy", "evil").end()),
        ("dot-dot in the middle", new().dir("a").file("a/../../outside/decoy", "evil").end()),
        ("absolute name", new().file(&decoy, "evil").end()),
        ("absolute link, then a file through it", new().symlink("l", outside).file("l/decoy", "evil").end()),
        (
            "relative link, then a file through it",
            new().symlink("l", "../outside").file("l/decoy", "evil").end(),
        ),
        ("chain of links", new().symlink("a", "..").symlink("b", "a/outside").file("b/decoy", "evil").end()),
        ("link as the file itself", new().symlink("l", "../outside/decoy").file("l", "evil").end()),
        ("hard link outside, then written", new().hardlink("h", "../outside/decoy").file("h", "evil").end()),
        ("hard link by a link", new().symlink("l", outside).hardlink("h", "l/decoy").file("h", "evil").end()),
        ("hard link absolute", new().hardlink("h", &decoy).file("h", "evil").end()),
        ("directory through a link", new().symlink("l", "../outside").dir("l/made").end()),
        ("link through a link", new().symlink("l", "../outside").symlink("l/made", "x").end()),
        ("whiteout through a link", new().symlink("l", "../outside").file("l/.wh.decoy", "").end()),
        ("whiteout with dot-dot", new().file("../outside/.wh.decoy", "").end()),
        ("opaque mark through a link", new().symlink("l", "../outside").file("l/.wh..wh..opq", "").end()),
        ("long name in PAX", new().pax(&[("path", b"../outside/decoy")]).file("fine", "evil").end()),
        (
            "long link in PAX",
            new().pax(&[("linkpath", outside.as_bytes())]).symlink("l", "x").file("l/decoy", "evil").end(),
        ),
        (
            "long name of GNU",
            new().entry(b"././@LongLink", b'L', b"", b"../outside/decoy\0").file("fine", "evil").end(),
        ),
    ]
}

#[test]
fn nothing_escapes_that_escapes_a_careless_program() {
    let mut count = 0;
    for index in 0.. {
        let (bed, control) = (Bed::new(), Bed::new());
        let of = |bed: &Bed| escapes(bed.dir.path().join("outside").to_str().unwrap()).into_iter().nth(index);
        let Some((name, archive)) = of(&bed) else { break };
        let before = control.outside();
        naive(&of(&control).unwrap().1, &control.dest());
        assert_ne!(control.outside(), before, "{name}: the control must fall for it");
        for whiteouts in [Whiteouts::Apply, Whiteouts::Overlay { user: true }] {
            let before = bed.outside();
            let outcome = bed.run(&archive, &Extractor { whiteouts, ..Extractor::layer() });
            assert_eq!(bed.outside(), before, "{name} with {whiteouts:?}: {outcome:?}");
        }
        count += 1;
    }
    assert_eq!(count, 18);
}

#[test]
fn links_of_earlier_layers_lead_to_places_below_the_root_only() {
    let bed = Bed::new();
    fs::create_dir_all(bed.dest().join("usr/lib")).unwrap();
    symlink("usr/lib", bed.dest().join("lib")).unwrap();
    symlink("/usr/lib", bed.dest().join("lib64")).unwrap();
    symlink("../../../../usr", bed.dest().join("up")).unwrap();
    let archive = Archive::default().file("lib/a", "1").file("lib64/b", "2").file("up/lib/c", "3").end();
    let before = bed.outside();
    bed.run(&archive, &Extractor::layer()).unwrap();
    for (name, content) in [("a", "1"), ("b", "2"), ("c", "3")] {
        assert_eq!(fs::read_to_string(bed.dest().join("usr/lib").join(name)).unwrap(), content);
    }
    assert_eq!(bed.outside(), before);
    assert!(fs::symlink_metadata(bed.dest().join("lib")).unwrap().is_symlink(), "the links stay");
}

#[test]
fn the_later_of_two_entries_wins_whatever_they_are() {
    let new = Archive::default;
    for (name, archive) in [
        ("file over link", new().symlink("x", "../outside/decoy").file("x", "end").end()),
        ("file over directory", new().dir("x").file("x/y", "1").file("x", "end").end()),
        ("file over file", new().file("x", "1").file("x", "end").end()),
        ("file over its hard link", new().file("o", "1").hardlink("x", "o").file("x", "end").end()),
    ] {
        let bed = Bed::new();
        bed.run(&archive, &Extractor::layer()).unwrap();
        assert_eq!(fs::read_to_string(bed.dest().join("x")).unwrap(), "end", "{name}");
        assert_eq!(fs::read_to_string(bed.dir.path().join("outside/decoy")).unwrap(), "decoy", "{name}");
    }
    let bed = Bed::new();
    let archive = new().symlink("d", "../outside").dir("d").file("d/decoy", "mine").end();
    bed.run(&archive, &Extractor::layer()).unwrap();
    assert_eq!(fs::read_to_string(bed.dest().join("d/decoy")).unwrap(), "mine", "directory over link");
    let bed = Bed::new();
    bed.run(&new().dir("d").file("d/keep", "1").dir("d").end(), &Extractor::layer()).unwrap();
    assert!(bed.dest().join("d/keep").exists(), "directory over directory keeps what is in it");
}

#[test]
fn whiteouts_remove_what_lower_layers_made_and_nothing_of_their_own() {
    for order in [true, false] {
        let bed = Bed::new();
        fs::create_dir_all(bed.dest().join("d/low")).unwrap();
        fs::write(bed.dest().join("d/old"), "").unwrap();
        fs::write(bed.dest().join("gone"), "").unwrap();
        let own = |a: Archive| a.file("d/new", "1");
        let marks = |a: Archive| a.file("d/.wh..wh..opq", "").file(".wh.gone", "").file(".wh.never", "");
        let archive = if order { marks(own(Archive::default())) } else { own(marks(Archive::default())) };
        bed.run(&archive.end(), &Extractor::layer()).unwrap();
        let names: Vec<_> =
            fs::read_dir(bed.dest().join("d")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["new"], "marks last: {order}");
        assert!(!bed.dest().join("gone").exists());
    }
}

#[test]
fn an_archive_cut_anywhere_never_panics_and_never_escapes() {
    let whole = Archive::default()
        .pax(&[("path", b"d/file"), ("SCHILY.xattr.user.k", b"v")])
        .file("short", "content of a file")
        .symlink("l", "../outside")
        .file("l/decoy", "evil")
        .hardlink("h", "d/file")
        .end();
    let bed = Bed::new();
    let before = bed.outside();
    for length in (0..whole.len()).step_by(128) {
        // Any outcome will do but a panic or an escape.
        let _ = bed.run(&whole[..length], &Extractor::layer());
        for flip in [0, 100, 124, 156, 257] {
            let mut bad = whole.clone();
            if let Some(byte) = bad.get_mut(length + flip) {
                *byte ^= 0x55;
            }
            let _ = bed.run(&bad, &Extractor::layer());
        }
    }
    assert_eq!(bed.outside(), before);
}

#[test]
fn devices_and_pipes_are_made_or_left_out_as_told() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root makes devices");
        return;
    }
    let mut device = header(b"null", b'3', b"", "00000000000");
    device[329..336].copy_from_slice(b"0000001");
    device[337..344].copy_from_slice(b"0000003");
    seal(&mut device);
    let archive = [device.to_vec(), Archive::default().entry(b"pipe", b'6', b"", b"").end()].concat();
    let bed = Bed::new();
    let skip = Extractor { devices: hull_layer::Devices::Skip, ..Extractor::layer() };
    assert_eq!(bed.run(&archive, &skip).unwrap().skipped, [b"null".to_vec()]);
    assert!(!bed.dest().join("null").exists() && bed.dest().join("pipe").exists());
    // A link to one that was left out is, too; to a file that came in its place it is made.
    let linked = Archive::default().entry(b"one", b'1', b"null", b"").file("null", "plain");
    let linked = [device.to_vec(), linked.entry(b"two", b'1', b"null", b"").end()].concat();
    let bed = Bed::new();
    let left_out = [b"null".to_vec(), b"one".to_vec()];
    assert_eq!(bed.run(&linked, &skip).unwrap().skipped, left_out);
    assert!(!bed.dest().join("one").exists());
    assert_eq!(fs::read(bed.dest().join("two")).unwrap(), b"plain");
    let bed = Bed::new();
    bed.run(&archive, &Extractor::layer()).unwrap();
    let meta = fs::metadata(bed.dest().join("null")).unwrap();
    assert_eq!((meta.rdev(), meta.mode() & 0o7777), (rustix::fs::makedev(1, 3), 0o644));
}

#[test]
fn set_id_bits_and_capabilities_survive_the_change_of_owner() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root changes owners");
        return;
    }
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut file = header(b"ping", b'0', b"", "00000000001");
    file[100..107].copy_from_slice(b"0004755");
    file[108..115].copy_from_slice(b"0000765");
    seal(&mut file);
    let mut archive = Archive::default().pax(&[("SCHILY.xattr.security.capability", &capability)]);
    archive.0.extend(file);
    let bed = Bed::new();
    bed.run(&archive.data(b"x").end(), &Extractor::layer()).unwrap();
    let path = bed.dest().join("ping");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o4755, 0o765));
    let mut value = [0u8; 64];
    let count = rustix::fs::getxattr(&path, "security.capability", &mut value).unwrap();
    assert_eq!(value[..count], capability);
}
