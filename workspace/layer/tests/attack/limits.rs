//! Archives that have more of something than they may, or seem to.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use hull_layer::{Compressor, Decompressor, Encoding, Extractor, Limits, extract};

use super::bed::{Archive, Bed, header};

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
