//! Uploads that break: what a registry has is not sent again, and it is told when nothing more comes.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod stub;

use std::fs;

use bed::Bed;
use serde_json::Value;
use stub::{Say, Stub};

/// A store with an image whose layer is larger than what is sent at once; gives the layer's digest and size.
fn large(bed: &Bed) -> (String, u64) {
    bed.image("r:t");
    let mut state = 1u64;
    let noise: Vec<u8> = (0..6 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    fs::write(bed.path("rootfs/data/noise"), noise).unwrap();
    bed.image("r:t");
    let text: Value = serde_json::from_str(&bed.ok(&["manifest", "inspect", "r:t"])).unwrap();
    let layer = &text["layers"][0];
    (layer["digest"].as_str().unwrap().to_owned(), layer["size"].as_u64().unwrap())
}

#[test]
fn an_upload_goes_on_where_the_registry_says_it_broke() {
    let bed = Bed::new();
    let (layer, size) = large(&bed);
    let of_layer = layer.clone();
    let stub = Stub::new(move |got, before| {
        let (method, path) = got.line.split_once(' ').unwrap();
        let upload = "/v2/r/blobs/uploads/u";
        match (method, before) {
            ("GET", _) if path == "/v2/" => Say::new("200 OK", b"{}"),
            ("HEAD", _) if path.ends_with(&of_layer) => Say::new("404 Not Found", b""),
            ("HEAD", _) => Say::new("200 OK", b""),
            ("POST", _) => Say::new("202 Accepted", b"").with("Location", "/v2/r/blobs/uploads/u?state=0"),
            // It breaks twice: by itself, and because the client is said to be wrong about the place.
            ("PATCH", 0) if path.ends_with("?state=0") => Say::new("500 Internal Server Error", b""),
            ("GET", _) if path.ends_with("?state=0") => Say::new("204 No Content", b"")
                .with("Range", "0-1999999")
                .with("Location", &format!("{upload}?state=1")),
            ("PATCH", 0) if path.ends_with("?state=1") => {
                Say::new("416 Requested Range Not Satisfiable", b"").with("Range", "0-999999")
            }
            ("GET", _) => Say::new("204 No Content", b"").with("Range", "bytes=0-999999"),
            ("PATCH", _) => Say::new("202 Accepted", b"").with("Location", &format!("{upload}?state=9")),
            ("PUT", _) => Say::new("201 Created", b""),
            _ => Say::new("404 Not Found", b"{}"),
        }
    });
    bed.ok(&["push", "--retry-delay", "1ms", "r:t", &stub.image()]);
    let patches: Vec<_> = stub
        .asked("PATCH")
        .iter()
        .map(|got| {
            (got.headers.get("content-range").cloned(), got.headers["content-length"].parse::<u64>().unwrap())
        })
        .collect();
    let from = |start: u64| (Some(format!("{start}-{}", size - 1)), size - start);
    assert_eq!(patches, [(None, size), from(2_000_000), from(1_000_000)]);
    let puts = stub.asked("PUT /v2/r/blobs");
    let digest = layer.replace(':', "%3A");
    assert_eq!(puts.len(), 1);
    assert!(puts[0].line.ends_with(&format!("?state=9&digest={digest}")), "{}", puts[0].line);
    assert_eq!(puts[0].headers["content-length"], "0");
}

#[test]
fn an_upload_that_is_gone_begins_again_and_one_that_is_refused_ends() {
    let bed = Bed::new();
    let (layer, _) = large(&bed);
    for (status, begun, worked) in [("404 Not Found", 2, true), ("403 Forbidden", 1, false)] {
        let layer = layer.clone();
        let stub = Stub::new(move |got, before| {
            let (method, path) = got.line.split_once(' ').unwrap();
            match (method, before) {
                ("GET", _) if path == "/v2/" => Say::new("200 OK", b"{}"),
                ("HEAD", _) if path.ends_with(&layer) => Say::new("404 Not Found", b""),
                ("HEAD", _) => Say::new("200 OK", b""),
                ("POST", _) => Say::new("202 Accepted", b"").with("Location", "u"),
                ("PATCH", 0) => Say::new(status, b""),
                ("PATCH", _) => Say::new("202 Accepted", b"").with("Location", "u"),
                ("PUT", _) => Say::new("201 Created", b""),
                _ => Say::new("404 Not Found", b"{}"),
            }
        });
        let output = bed.run(&["push", "--retry-delay", "1ms", "r:t", &stub.image()]);
        assert_eq!(output.status.success(), worked, "{status}");
        assert_eq!(stub.asked("POST").len(), begun, "{status}");
        assert_eq!(stub.asked("DELETE").len(), 1, "{status}: the registry is told");
    }
}

#[test]
fn a_registry_that_mounts_nothing_is_sent_the_blob() {
    for status in ["400 Bad Request", "403 Forbidden", "404 Not Found", "405 Method Not Allowed"] {
        let bed = Bed::new();
        bed.image("r:t");
        let stub = Stub::new(move |got, _| {
            let (method, path) = got.line.split_once(' ').unwrap();
            match method {
                "GET" => Say::new("200 OK", b"{}"),
                "HEAD" => Say::new("404 Not Found", b""),
                "POST" if path.contains("mount=") => Say::new(status, b"{}"),
                "POST" => Say::new("202 Accepted", b"").with("Location", "/v2/u"),
                _ => Say::new("201 Created", b""),
            }
        });
        bed.ok(&["push", "r:t", &stub.image()]);
        let other = format!("127.0.0.1:{}/other:t", stub.port);
        bed.ok(&["push", "r:t", &other]);
        let mounts = stub.asked("?mount=").len();
        assert_eq!((mounts, stub.asked("PUT /v2/u?digest=").len()), (2, 4), "{status}");
    }
}
