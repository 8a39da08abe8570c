//! What is refused, by which rule, and what is odd and taken all the same.

use std::fs;

use hull_layer::{Error, Extractor, Whiteouts};

use super::bed::{Archive, Bed, header, seal};

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
fn links_that_never_end_are_an_error() {
    let archive = Archive::default().symlink("a", "b").symlink("b", "a").file("a/x", "").end();
    let error = Bed::new().run(&archive, &Extractor::layer()).unwrap_err();
    assert!(matches!(&error, Error::File { source, .. } if source.raw_os_error() == Some(40)), "{error}");
}

#[test]
fn marks_are_refused_where_an_archive_is_no_layer() {
    let options = Extractor { whiteouts: Whiteouts::Refuse, ..Extractor::layer() };
    let error = Bed::new().run(&Archive::default().file(".wh.x", "").end(), &options).unwrap_err();
    assert!(error.to_string().contains(".wh."), "{error}");
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
