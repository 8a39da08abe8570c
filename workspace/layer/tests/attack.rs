//! Hostile archives: whatever they hold, nothing outside the destination changes, and the answer is one clear error or
//! the right content. A naive extractor beside ours shows that each escape works where nobody prevents it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use hull_layer::{
    Compressor, Decompressor, Encoding, Error, Extractor, Kind, Limits, TarReader, Whiteouts, extract,
};

/// An archive made of raw headers: nothing is checked.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn entry(mut self, name: &[u8], flag: u8, link: &[u8], data: &[u8]) -> Self {
        self.0.extend(header(name, flag, link, &format!("{:011o}", data.len())));
        self.data(data)
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(name.as_bytes(), b'0', b"", content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(name.as_bytes(), b'5', b"", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name.as_bytes(), b'2', target.as_bytes(), b"")
    }

    fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(name.as_bytes(), b'1', target.as_bytes(), b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            bytes.extend(format!("{length} {key}=").bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.entry(b"pax", b'x', b"", &bytes)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn header(name: &[u8], flag: u8, link: &[u8], size: &str) -> [u8; 512] {
    let mut block = [0u8; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..124 + size.len().min(12)].copy_from_slice(&size.as_bytes()[..size.len().min(12)]);
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8; 512]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A destination with a decoy beside it that no archive may touch.
struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["dest", "outside", "outside/sub"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("outside/decoy"), "decoy").unwrap();
        Self { dir }
    }

    fn dest(&self) -> PathBuf {
        self.dir.path().join("dest")
    }

    /// Everything outside the destination: path, inode, mode, owner, links, size, content.
    fn outside(&self) -> Vec<(PathBuf, u64, u32, u32, u64, Vec<u8>)> {
        let mut found = Vec::new();
        let mut stack = vec![self.dir.path().to_owned()];
        while let Some(path) = stack.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if path != self.dir.path() {
                found.push((path.clone(), meta.ino(), meta.mode(), meta.uid(), meta.nlink(), content));
            }
            if meta.is_dir() && path != self.dest() {
                stack.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        found.retain(|(path, ..)| *path != self.dest());
        found.sort();
        found
    }

    fn run(&self, archive: &[u8], options: &Extractor<'_>) -> Result<hull_layer::Extracted, Error> {
        extract(archive, File::open(self.dest()).unwrap().as_fd(), options)
    }
}

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
fn links_that_never_end_are_an_error() {
    let archive = Archive::default().symlink("a", "b").symlink("b", "a").file("a/x", "").end();
    let error = Bed::new().run(&archive, &Extractor::layer()).unwrap_err();
    assert!(matches!(&error, Error::File { source, .. } if source.raw_os_error() == Some(40)), "{error}");
}

/// Archives that must be refused, with a part of the rule they break.
#[allow(clippy::too_many_lines, reason = "a table")]
fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let new = Archive::default;
    let sized = |size: &str| [header(b"f", b'0', b"", size).to_vec(), vec![0; 2048]].concat();
    let mut base256 = header(b"f", b'0', b"", "");
    base256[124..136].copy_from_slice(&[0xff; 12]);
    seal(&mut base256);
    let mut huge = base256;
    huge[124..136].copy_from_slice(&[0x80, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    seal(&mut huge);
    let mut broken = header(b"f", b'0', b"", "00000000000");
    broken[0] = b'g';
    let deep = "d/".repeat(300);
    vec![
        ("root as a link", new().symlink(".", "/etc").end(), "root of the archive"),
        ("root as a file", new().file("./", "x").end(), "root of the archive"),
        ("empty name", new().file("", "x").end(), "name is empty"),
        ("whiteout of nothing", new().file("a/.wh.", "").end(), "can be removed"),
        ("whiteout of dot-dot", new().file("a/.wh...", "").end(), "can be removed"),
        ("whiteout of dot", new().file("a/.wh..", "").end(), "can be removed"),
        ("below a whiteout", new().file(".wh.a/b", "").end(), "can be removed"),
        ("hard link to nothing", new().hardlink("h", "missing").end(), "points at nothing"),
        ("hard link to a directory", new().dir("d").hardlink("h", "d").end(), "points at a directory"),
        ("overlay's own removal", new().entry(b"c", b'3', b"", b"").end(), "device 0/0"),
        ("unknown type", new().entry(b"f", b'Z', b"", b"").end(), "type of the entry"),
        ("sparse entry of GNU", new().entry(b"f", b'S', b"", b"").end(), "sparse"),
        ("sparse entry in PAX", new().pax(&[("GNU.sparse.major", b"1")]).file("f", "").end(), "sparse"),
        ("size that is no number", sized("0000000zzzz"), "size is out of range"),
        ("negative size", base256.to_vec(), "size is out of range"),
        ("huge size", huge.to_vec(), "size is out of range"),
        ("negative size in PAX", new().pax(&[("size", b"-5")]).file("f", "").end(), "size is out of range"),
        ("wrong checksum", broken.to_vec(), "checksum"),
        (
            "directory with data",
            [header(b"d/", b'5', b"", "00000001000").to_vec(), vec![0; 1024]].concat(),
            "has data",
        ),
        (
            "PAX length that lies",
            new().entry(b"p", b'x', b"", b"99 path=x\n").file("f", "").end(),
            "length lies",
        ),
        ("PAX without an entry", new().pax(&[("path", b"x")]).end(), "belongs to a next entry"),
        ("NUL in a PAX name", new().pax(&[("path", b"a\0b")]).file("f", "").end(), "NUL"),
        (
            "trusted attribute",
            new().pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")]).dir("d").end(),
            "not for layers",
        ),
        (
            "overlay attribute",
            new().pax(&[("SCHILY.xattr.user.overlay.redirect", b"/etc")]).dir("d").end(),
            "not for layers",
        ),
        (
            "attributes without end",
            new().pax(&[("SCHILY.xattr.user.a", &[b'x'; 70_000])]).file("f", "").end(),
            "extended attributes",
        ),
        (
            "PAX data without end",
            new().pax(&[("comment", &vec![b'x'; 2 << 20])]).file("f", "").end(),
            "larger than allowed",
        ),
        ("deep path", new().pax(&[("path", deep.as_bytes())]).dir("d").end(), "parts"),
        ("long part", new().pax(&[("path", &[b'n'; 300])]).file("f", "").end(), "255 bytes"),
        ("long path", new().pax(&[("path", "abc/".repeat(1100).as_bytes())]).dir("d").end(), "4096 bytes"),
        ("owner out of range", new().pax(&[("uid", b"4294967296")]).file("f", "").end(), "out of range"),
        ("time that is none", new().pax(&[("mtime", b"noon")]).file("f", "").end(), "time"),
        (
            "endless link target",
            new().pax(&[("linkpath", &[b't'; 5000])]).symlink("l", "").end(),
            "4095 bytes",
        ),
    ]
}

#[test]
fn what_two_readers_could_see_differently_is_refused_by_rule() {
    for (name, archive, rule) in refused() {
        let bed = Bed::new();
        fs::create_dir(bed.dest().join("a")).unwrap();
        let before = bed.outside();
        let error = bed.run(&archive, &Extractor::layer()).unwrap_err();
        assert!(
            matches!(error, Error::Archive { .. }) && error.to_string().contains(rule),
            "{name}: {error}"
        );
        assert_eq!(bed.outside(), before, "{name}");
    }
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
fn marks_are_refused_where_an_archive_is_no_layer() {
    let options = Extractor { whiteouts: Whiteouts::Refuse, ..Extractor::layer() };
    let error = Bed::new().run(&Archive::default().file(".wh.x", "").end(), &options).unwrap_err();
    assert!(error.to_string().contains(".wh."), "{error}");
}

#[test]
fn limits_on_entries_and_bytes_hold() {
    let many = (0..20).fold(Archive::default(), |a, n| a.file(&format!("f{n}"), "12345")).end();
    for (limits, rule) in [
        (Limits { entries: 10, ..Limits::default() }, "more than 10 entries"),
        (Limits { bytes: 50, ..Limits::default() }, "more than 50 bytes"),
    ] {
        let error = Bed::new().run(&many, &Extractor { limits, ..Extractor::layer() }).unwrap_err();
        assert!(error.to_string().contains(rule), "{error}");
    }
    assert_eq!(Bed::new().run(&many, &Extractor::layer()).unwrap().bytes, 100);
}

#[test]
fn a_size_in_pax_beats_the_header_and_names_are_not_carried_over() {
    let mut archive = Archive::default().pax(&[("size", b"5"), ("path", b"long")]);
    archive.0.extend(header(b"short", b'0', b"", "00000000000"));
    let archive = archive.data(b"12345").file("next", "n").end();
    let bed = Bed::new();
    bed.run(&archive, &Extractor::layer()).unwrap();
    assert_eq!(fs::read_to_string(bed.dest().join("long")).unwrap(), "12345");
    assert_eq!(fs::read_to_string(bed.dest().join("next")).unwrap(), "n");
    assert!(!bed.dest().join("short").exists());
}

#[test]
fn odd_but_honest_archives_are_taken() {
    let new = Archive::default;
    let mut time = header(b"old", b'0', b"", "00000000000");
    time[136..148].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00]);
    seal(&mut time);
    let garbage = [new().file("f", "x").end(), b"trailing garbage".to_vec()].concat();
    for (name, archive, path) in [
        ("names that are no text", new().entry(b"n\xff\xfe", b'0', b"", b"x").end(), &b"n\xff\xfe"[..]),
        ("leading slashes and dots", new().file("/.//a/./f", "x").end(), b"a/f"),
        ("global records", new().entry(b"g", b'g', b"", b"12 path=evil\n").file("f", "x").end(), b"f"),
        ("trailing garbage", garbage, b"f"),
        ("a time before 1970", [time.to_vec(), vec![0; 1024]].concat(), b"old"),
        ("a time after 2106", new().pax(&[("mtime", b"5000000000.5")]).file("f", "x").end(), b"f"),
        ("names that differ in case", new().file("f", "x").file("F", "y").end(), b"F"),
        ("no end mark", new().file("f", "x").0, b"f"),
        (
            "attributes of security modules",
            new().pax(&[("SCHILY.xattr.security.selinux", b"x")]).file("f", "").end(),
            b"f",
        ),
    ] {
        use std::os::unix::ffi::OsStrExt;
        let bed = Bed::new();
        bed.run(&archive, &Extractor::layer()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(bed.dest().join(std::ffi::OsStr::from_bytes(path)).symlink_metadata().is_ok(), "{name}");
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
fn a_bomb_ends_at_the_ratio_before_it_fills_the_disk() {
    let mut compressor = Compressor::with_threads(Vec::new(), Encoding::Gzip(5), 2).unwrap();
    compressor.write_all(&header(b"ones", b'0', b"", "17777777777")).unwrap();
    (0..128).for_each(|_| compressor.write_all(&[1; 1 << 20]).unwrap());
    let bomb = compressor.finish().unwrap();
    let bed = Bed::new();
    let source = Decompressor::new(&bomb[..], 200).unwrap();
    let error = extract(source, File::open(bed.dest()).unwrap().as_fd(), &Extractor::layer()).unwrap_err();
    let text = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(text.contains("200 times"), "{text}");
    assert!(fs::metadata(bed.dest().join("ones")).map_or(0, |meta| meta.len()) < 100 << 20);
}

#[test]
fn a_file_of_zeros_is_extracted_and_takes_no_space() {
    let mut compressor = Compressor::with_threads(Vec::new(), Encoding::Gzip(5), 2).unwrap();
    compressor.write_all(&header(b"zeros", b'0', b"", "00600000000")).unwrap();
    (0..96).for_each(|_| compressor.write_all(&[0; 1 << 20]).unwrap());
    compressor.write_all(&[0; 1024]).unwrap();
    let layer = compressor.finish().unwrap();
    let bed = Bed::new();
    let source = Decompressor::new(&layer[..], 200).unwrap();
    extract(source, File::open(bed.dest()).unwrap().as_fd(), &Extractor::layer()).unwrap();
    let meta = fs::metadata(bed.dest().join("zeros")).unwrap();
    assert!(meta.len() == 96 << 20 && meta.blocks() * 512 < 1 << 20, "{meta:?}");
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
