//! Registries that fail, lie and lead astray: never a wrong image, never a leaked credential.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod stub;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use bed::Bed;
use serde_json::Value;
use stub::{Got, Say, Stub};

/// The documents of a real image, to be served.
#[derive(Clone)]
struct Served {
    manifest: Vec<u8>,
    digest: String,
    layer: String,
    blobs: BTreeMap<String, Vec<u8>>,
}

fn served() -> Served {
    let bed = Bed::new();
    bed.image("r:t");
    of_store(&bed)
}

/// What a store has as `r:t`.
fn of_store(bed: &Bed) -> Served {
    let text: Value = serde_json::from_str(&bed.ok(&["inspect", "-f", "json", "r:t"])).unwrap();
    let digest = text[0]["Descriptor"]["digest"].as_str().unwrap().to_owned();
    let read = |digest: &str| fs::read(bed.path("store/blobs/sha256").join(&digest[7..])).unwrap();
    let manifest = read(&digest);
    let document: Value = serde_json::from_slice(&manifest).unwrap();
    let layers: Vec<&str> = document["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["digest"].as_str().unwrap())
        .collect();
    let layer = layers[0].to_owned();
    let config = document["config"]["digest"].as_str().unwrap();
    let all = layers.iter().chain([&config]);
    let blobs = all.map(|digest| ((*digest).to_owned(), read(digest))).collect();
    Served { manifest, digest, layer, blobs }
}

impl Served {
    /// An honest answer.
    fn answer(&self, got: &Got) -> Say {
        if got.line == "GET /v2/" {
            return Say::new("200 OK", b"{}");
        }
        if got.line.contains("/manifests/") {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            return Say::new("200 OK", &self.manifest)
                .with("Content-Type", kind)
                .with("Docker-Content-Digest", &self.digest);
        }
        match self.blobs.iter().find(|(digest, _)| got.line.ends_with(digest.as_str())) {
            Some((_, bytes)) => Say::new("200 OK", bytes),
            None => Say::new("404 Not Found", b"{}"),
        }
    }
}

const QUICK: [&str; 2] = ["--retry-delay", "1ms"];

fn pull(bed: &Bed, stub: &Stub, more: &[&str]) -> std::process::Output {
    let image = stub.image();
    let mut arguments = vec!["pull"];
    arguments.extend(QUICK);
    arguments.extend(more);
    arguments.push(&image);
    bed.run(&arguments)
}

fn pulled(bed: &Bed, stub: &Stub, more: &[&str]) {
    let output = pull(bed, stub, more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(bed.ok(&["images", "-q"]).lines().count(), 1);
    assert_eq!(bed.ok(&["fsck"]), "0 problems\n");
}

/// The pull fails, tells why, and leaves no image.
fn refused(bed: &Bed, stub: &Stub, reason: &str) {
    let output = pull(bed, stub, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(reason), "{said}");
    assert_eq!(bed.ok(&["images", "-q"]), "");
    assert_eq!(bed.ok(&["fsck"]), "0 problems\n");
}

#[test]
fn too_many_requests_and_server_errors_are_tried_again() {
    let image = served();
    let stub = Stub::new(move |got, before| match (got.line.contains("/manifests/"), before) {
        (true, 0) => Say::new("429 Too Many Requests", b"{}").with("Retry-After", "0"),
        (true, 1) => Say::new("503 Service Unavailable", b""),
        (true, 2) => Say::new("500 Internal Server Error", b"oops"),
        _ => image.answer(got),
    });
    pulled(&Bed::new(), &stub, &[]);
    assert_eq!(stub.asked("/manifests/").len(), 4);
}

#[test]
fn a_storm_of_errors_ends_after_a_few_tries() {
    let stub = Stub::new(|got, _| match got.line.as_str() {
        "GET /v2/" => Say::new("200 OK", b"{}"),
        _ => Say::new("502 Bad Gateway", b""),
    });
    refused(&Bed::new(), &stub, "502 refused");
    assert_eq!(stub.asked("/manifests/").len(), 5);
}

#[test]
fn a_broken_body_goes_on_where_it_ended() {
    let image = served();
    let (layer, size) = (image.layer.clone(), image.blobs[&image.layer].len());
    let stub = Stub::new(move |got, before| {
        let mut say = image.answer(got);
        if got.line.ends_with(&image.layer) {
            let start: usize =
                got.headers.get("range").map_or(0, |text| text[6..text.len() - 1].parse().unwrap());
            if start > 0 {
                say.body.drain(..start);
                say = Say { status: "206 Partial Content", ..say };
                say = say.with("Content-Range", &format!("bytes {start}-{}/{size}", size - 1));
            }
            say.cut = (before < 2).then_some(say.body.len() / 2);
        }
        say
    });
    pulled(&Bed::new(), &stub, &[]);
    let ranges: Vec<_> = stub.asked(&layer).iter().map(|got| got.headers.get("range").cloned()).collect();
    assert_eq!(ranges.len(), 3);
    assert!(ranges[0].is_none() && ranges[1].is_some() && ranges[2].is_some(), "{ranges:?}");
}

#[test]
fn a_range_that_is_ignored_or_refused_starts_again() {
    for refuse in [false, true] {
        let image = served();
        let stub = Stub::new(move |got, before| {
            let mut say = image.answer(got);
            if got.line.ends_with(&image.layer) {
                say.cut = (before == 0).then_some(1000);
                if refuse && got.headers.contains_key("range") {
                    return Say::new("416 Range Not Satisfiable", b"");
                }
            }
            say
        });
        pulled(&Bed::new(), &stub, &[]);
    }
}

#[test]
fn a_range_from_another_place_is_not_put_together() {
    let image = served();
    let stub = Stub::new(move |got, before| {
        let mut say = image.answer(got);
        if got.line.ends_with(&image.layer) {
            say.cut = (before == 0).then_some(1000);
            if before == 1 {
                // Claims to be a part, but is the whole from the start.
                say = Say { status: "206 Partial Content", ..say }.with("Content-Range", "bytes 0-9/10");
            }
        }
        say
    });
    pulled(&Bed::new(), &stub, &[]);
}

#[test]
fn content_that_is_not_its_digest_never_becomes_an_image() {
    let image = served();
    let stub = Stub::new(move |got, _| {
        let mut say = image.answer(got);
        if got.line.ends_with(&image.layer) {
            say.body[100] ^= 1;
        }
        say
    });
    refused(&Bed::new(), &stub, "verify sha256:");
    let image = served();
    let stub = Stub::new(move |got, _| {
        let mut say = image.answer(got);
        if got.line.ends_with(&image.layer) {
            say.body.push(0);
        }
        say
    });
    refused(&Bed::new(), &stub, "longer than described");
}

#[test]
fn manifests_that_lie_are_refused() {
    for (change, reason) in [
        ("digest", "verify sha256:"),
        ("type", "announcement"),
        ("both", "both a manifest and an index"),
        ("size", "longer than"),
        ("html", "read manifest"),
    ] {
        let mut image = served();
        let text = String::from_utf8(image.manifest.clone()).unwrap();
        match change {
            "digest" => image.digest = format!("sha256:{}", "0".repeat(64)),
            "both" => image.manifest = text.replacen('{', "{\"manifests\":[],", 1).into_bytes(),
            "size" => image.manifest.resize(5 << 20, b' '),
            "html" => image.manifest = b"<html>".to_vec(),
            _ => {}
        }
        let stub = Stub::new(move |got, _| {
            let mut say = image.answer(got);
            if change == "type" && got.line.contains("/manifests/") {
                say.headers[0].1 = "application/vnd.oci.image.index.v1+json".to_owned();
            }
            say
        });
        refused(&Bed::new(), &stub, reason);
    }
}

#[test]
fn a_digest_in_the_name_is_held_against_the_content() {
    let image = served();
    let right = image.digest.clone();
    let stub = Stub::new(move |got, _| image.answer(got));
    let bed = Bed::new();
    let name = |digest: &str| format!("127.0.0.1:{}/r:t@{digest}", stub.port);
    let wrong = format!("sha256:{}", "1".repeat(64));
    assert!(bed.fails(&["pull", &name(&wrong)]).contains("verify"));
    bed.ok(&["pull", &name(&right)]);
}

#[test]
fn an_image_of_another_platform_is_not_taken_for_the_wanted_one() {
    let image = served();
    let stub = Stub::new(move |got, _| image.answer(got));
    let bed = Bed::new();
    let output = pull(&bed, &stub, &["--platform", "linux/riscv64"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("not for linux/riscv64"), "{said}");
    assert_eq!(bed.ok(&["images", "-q"]), "");
}

#[test]
fn a_mirror_is_asked_first_and_never_trusted_with_anything() {
    for honest in ["yes", "empty", "lies", "begs"] {
        let image = served();
        let copy = image.clone();
        let mirror = Stub::new(move |got, _| match honest {
            "empty" => Say::new("404 Not Found", b"{}"),
            "begs" => Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", "Basic realm=\"x\""),
            "lies" if got.line.ends_with(&copy.layer) => Say::new("200 OK", b"something else"),
            _ => copy.answer(got),
        });
        let stub = Stub::new(move |got, _| match authorized(got) || got.line == "GET /v2/" {
            true => image.answer(got),
            false => Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", "Basic realm=\"x\""),
        });
        let place = format!("127.0.0.1:{}=http://127.0.0.1:{}", stub.port, mirror.port);
        let bed = Bed::new();
        pulled(&bed, &stub, &["--registry-mirror", &place, "--creds", "me:hunter2", "--retry", "1"]);
        assert!(!mirror.seen().is_empty() && !mirror.seen().iter().any(authorized), "{honest}");
        let asked = stub.asked("/blobs/").len();
        match honest {
            "yes" => assert_eq!(asked, 0),
            _ => assert!(asked >= 1, "{honest}"),
        }
    }
}

#[test]
fn a_mirror_is_reached_by_https_or_at_loopback() {
    let bed = Bed::new();
    let said = bed.fails(&["pull", "--registry-mirror", "http://192.0.2.1", "lab/a"]);
    assert!(said.contains("mirror http://192.0.2.1: is not reached by https"), "{said}");
}

fn authorized(got: &Got) -> bool {
    got.headers.contains_key("authorization")
}

#[test]
fn a_redirect_to_another_origin_carries_no_credential() {
    let image = served();
    let blobs = image.clone();
    let elsewhere = Stub::new(move |got, _| blobs.answer(got));
    let target = format!("http://127.0.0.1:{}", elsewhere.port);
    let stub = Stub::new(move |got, _| {
        if !authorized(got) && got.line != "GET /v2/" {
            return Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match got.line.contains("/blobs/") {
            true => {
                let path = got.line.split(' ').nth(1).unwrap();
                Say::new("307 Temporary Redirect", b"").with("Location", &format!("{target}{path}"))
            }
            false => image.answer(got),
        }
    });
    pulled(&Bed::new(), &stub, &["--creds", "me:hunter2"]);
    assert!(stub.asked("/blobs/").iter().any(authorized), "the registry itself is told who asks");
    assert!(elsewhere.seen().len() >= 2);
    assert!(!elsewhere.seen().iter().any(authorized), "nobody else is");
}

#[test]
fn a_token_server_elsewhere_gets_no_credential() {
    let image = served();
    let tokens = Stub::new(|_, _| Say::new("200 OK", br#"{"token":"tok","expires_in":300}"#));
    let realm = format!("http://127.0.0.1:{}/token", tokens.port);
    let stub = Stub::new(move |got, _| match got.headers.get("authorization").map(String::as_str) {
        Some("Bearer tok") => image.answer(got),
        _ => {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"s,t\",scope=\"repository:r:pull\"");
            Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", &challenge)
        }
    });
    pulled(&Bed::new(), &stub, &["--creds", "me:hunter2"]);
    assert!(!tokens.seen().is_empty() && !tokens.seen().iter().any(authorized));
    assert!(
        tokens.seen()[0].line.contains("service=s%2Ct&scope=repository%3Ar%3Apull"),
        "{:?}",
        tokens.seen()[0]
    );
}

#[test]
fn the_registrys_own_token_server_gets_the_credential() {
    let image = served();
    let stub = Stub::new(move |got, _| {
        if got.line.starts_with("GET /token") {
            return Say::new("200 OK", br#"{"access_token":"tok"}"#);
        }
        match got.headers.get("authorization").map(String::as_str) {
            Some("Bearer tok") => image.answer(got),
            _ => {
                let host = &got.headers["host"];
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
                Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", &challenge)
            }
        }
    });
    pulled(&Bed::new(), &stub, &["--creds", "me:hunter2"]);
    let asked = stub.asked("GET /token");
    assert_eq!(asked[0].headers["authorization"], "Basic bWU6aHVudGVyMg==");
}

#[test]
fn a_wrong_password_is_told_and_not_tried_forever_nor_shown() {
    let stub =
        Stub::new(|_, _| Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", "Basic realm=\"x\""));
    let output = pull(&Bed::new(), &stub, &["--creds", "me:hunter2"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("401 not authorised") && !said.contains("hunter2"), "{said}");
    assert_eq!(stub.asked("/manifests/").len(), 2);
}

fn helper(bed: &Bed, script: &str) {
    fs::create_dir_all(bed.path("bin")).unwrap();
    let path = bed.path("bin/docker-credential-lab");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(bed.path(".docker")).unwrap();
    fs::write(bed.path(".docker/config.json"), r#"{"credsStore":"lab"}"#).unwrap();
}

#[test]
fn a_failing_helper_stops_everything() {
    let bed = Bed::new();
    helper(&bed, "echo broken; exit 1");
    let stub =
        Stub::new(|_, _| Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", "Basic realm=\"x\""));
    refused(&bed, &stub, "credential helper lab");
    assert!(!stub.seen().iter().any(authorized));
}

#[test]
fn a_helper_gives_takes_and_forgets_credentials() {
    let bed = Bed::new();
    helper(
        &bed,
        r#"cat > "$HOME/helper-$1"; [ "$1" != get ] || echo '{"Username":"me","Secret":"hunter2"}'"#,
    );
    let image = served();
    let stub = Stub::new(move |got, _| match authorized(got) {
        true => image.answer(got),
        false => Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    pulled(&bed, &stub, &[]);
    let server = format!("127.0.0.1:{}", stub.port);
    assert_eq!(fs::read_to_string(bed.path("helper-get")).unwrap(), server);
    bed.ok(&["login", "-u", "me", "-p", "hunter2", &server]);
    let kept: Value = serde_json::from_slice(&fs::read(bed.path("helper-store")).unwrap()).unwrap();
    assert_eq!(kept, serde_json::json!({"ServerURL": server, "Username": "me", "Secret": "hunter2"}));
    bed.ok(&["logout", &server]);
    assert_eq!(fs::read_to_string(bed.path("helper-erase")).unwrap(), server);
    assert!(!fs::read_to_string(bed.path(".docker/config.json")).unwrap().contains("auth"));
}

#[test]
fn redirects_without_end_are_an_error() {
    let stub = Stub::new(|got, _| match got.line.as_str() {
        "GET /v2/" => Say::new("200 OK", b"{}"),
        line => Say::new("302 Found", b"").with("Location", line.split(' ').nth(1).unwrap()),
    });
    refused(&Bed::new(), &stub, "redirects more than 5 times");
}

#[test]
fn search_lists_a_private_catalogue_page_by_page() {
    let stub = Stub::new(|got, _| match got.line.contains("last=b") {
        true => Say::new("200 OK", br#"{"repositories":["lab/c"]}"#),
        false if got.line.contains("_catalog") => Say::new("200 OK", br#"{"repositories":["lab/a","x/b"]}"#)
            .with("Link", "</v2/_catalog?last=b>; rel=\"next\""),
        false => Say::new("200 OK", b"{}"),
    });
    let bed = Bed::new();
    let term = format!("127.0.0.1:{}/lab", stub.port);
    let names = bed.ok(&["search", "--format", "{{.Name}}", &term]);
    assert_eq!(names, format!("127.0.0.1:{0}/lab/a\n127.0.0.1:{0}/lab/c\n", stub.port));
}

#[test]
fn a_pull_killed_at_any_moment_leaves_a_sound_store() {
    let image = served();
    let stub = Stub::new(move |got, _| image.answer(got));
    let mut killed = 0;
    for moment in 0..16 {
        let bed = Bed::new();
        let name = stub.image();
        let mut command = bed.command(&["pull", &name]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(moment * 3));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        assert_eq!(bed.ok(&["fsck"]), "0 problems\n");
        pulled(&bed, &stub, &[]);
    }
    assert!(killed > 0, "no pull was killed in time");
}

#[test]
fn a_layer_is_unpacked_while_another_is_on_its_way() {
    let bed = Bed::new();
    fs::create_dir(bed.path("context")).unwrap();
    let text = "FROM scratch\nCOPY <<EOF /a\none\nEOF\nCOPY <<EOF /b\ntwo\nEOF\n";
    fs::write(bed.path("context/Dockerfile"), text).unwrap();
    bed.ok(&["build", "-q", "-t", "r:t", &bed.path("context").display().to_string()]);
    let image = of_store(&bed);
    let puller = Bed::new();
    let layers = puller.path("store/layers");
    let unpacked = move || {
        let made = fs::read_dir(&layers)
            .map(|all| all.filter(|one| one.as_ref().unwrap().path().join("fs/a").exists()));
        made.is_ok_and(|mut made| made.next().is_some())
    };
    let first = image.layer.clone();
    let early = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&early);
    let stub = Stub::new(move |got, _| {
        let is_layer = got.line.contains("/blobs/") && image.answer(got).body.starts_with(&[0x1f, 0x8b]);
        if is_layer && !got.line.ends_with(&first) {
            // The second layer is held back until the first one is there as files.
            let there = (0..1000).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                unpacked()
            });
            seen.store(there, std::sync::atomic::Ordering::Relaxed);
        }
        image.answer(got)
    });
    pulled(&puller, &stub, &[]);
    assert!(early.load(std::sync::atomic::Ordering::Relaxed));
}
