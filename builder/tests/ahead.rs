//! Large layers are sent while they are written: whatever a registry does meanwhile, it gets the same image, or none.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod stub;

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bed::Bed;
use hull_image::Digest;
use hull_testkit::call::eventually;
use hull_testkit::{gate, needs};
use stub::{Got, Say, Stub};

const SIZE: usize = 24 << 20;
/// Longest that a push waits for a layer to be on its way.
const LIMIT: Duration = Duration::from_secs(30);

/// What an honest registry keeps.
#[derive(Default)]
struct Kept {
    uploads: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: Vec<Vec<u8>>,
    begun: usize,
    /// The requests, as they were answered.
    answered: Vec<String>,
}

/// A registry that keeps what it is sent, apart from what a test makes of it.
#[derive(Clone, Default)]
struct Registry(Arc<Mutex<Kept>>);

impl Registry {
    fn answer(&self, got: &Got) -> Say {
        let mut kept = self.0.lock().unwrap();
        kept.answered.push(got.line.clone());
        let (method, target) = got.line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let name = path.rsplit('/').next().unwrap();
        let is_upload = path.contains("/uploads/");
        match method {
            "GET" if path == "/v2/" => Say::new("200 OK", b"{}"),
            "HEAD" if kept.blobs.contains_key(name) => Say::new("200 OK", b""),
            "POST" => {
                kept.begun += 1;
                let id = kept.begun.to_string();
                kept.uploads.insert(id.clone(), Vec::new());
                Say::new("202 Accepted", b"").with("Location", &format!("/v2/r/blobs/uploads/{id}"))
            }
            "PUT" if path.contains("/manifests/") => {
                kept.manifests.push(got.body.clone());
                Say::new("201 Created", b"")
            }
            "DELETE" if kept.uploads.remove(name).is_some() => Say::new("204 No Content", b""),
            _ if !is_upload || !kept.uploads.contains_key(name) => Say::new("404 Not Found", b"{}"),
            "GET" => {
                let last = kept.uploads[name].len().saturating_sub(1);
                Say::new("204 No Content", b"").with("Range", &format!("0-{last}"))
            }
            "PATCH" => {
                kept.uploads.get_mut(name).unwrap().extend(&got.body);
                Say::new("202 Accepted", b"").with("Location", path)
            }
            _ => {
                let mut bytes = kept.uploads.remove(name).unwrap();
                bytes.extend(&got.body);
                let digest = query.strip_prefix("digest=").unwrap().replace("%3A", ":");
                if digest != Digest::of(&bytes).as_str() {
                    kept.uploads.insert(name.to_owned(), bytes);
                    return Say::new("400 Bad Request", br#"{"errors":[{"message":"digest invalid"}]}"#);
                }
                kept.blobs.insert(digest.clone(), bytes);
                Say::new("201 Created", b"").with("Docker-Content-Digest", &digest)
            }
        }
    }

    /// The same, but a push hears nothing before a request of this method came: which of two threads is quicker, the one that
    /// sends a layer ahead or the one that ends the build, is not what is tested.
    fn answer_behind(&self, method: &str, got: &Got) -> Say {
        if got.line.starts_with("HEAD") {
            // In vain it ends as well: what is missing is seen by the test.
            eventually(LIMIT, || self.0.lock().unwrap().answered.iter().any(|line| line.starts_with(method)));
        }
        self.answer(got)
    }

    /// Uploads that were begun before a push heard what is missing.
    fn begun_ahead(&self) -> usize {
        let kept = self.0.lock().unwrap();
        let before = kept.answered.iter().take_while(|line| !line.starts_with("HEAD"));
        before.filter(|line| line.starts_with("POST")).count()
    }

    /// The registry has one whole image, and no upload is left open.
    fn has_image(&self, case: &str) {
        let kept = self.0.lock().unwrap();
        assert_eq!(kept.manifests.len(), 1, "{case}");
        let manifest: serde_json::Value = serde_json::from_slice(&kept.manifests[0]).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        let named = layers.iter().chain([&manifest["config"]]);
        for blob in named {
            let bytes = &kept.blobs[blob["digest"].as_str().unwrap()];
            assert_eq!(bytes.len() as u64, blob["size"].as_u64().unwrap(), "{case}");
        }
        assert_eq!(kept.uploads.len(), 0, "{case}: all uploads are closed or cancelled");
    }
}

/// A context whose one large file doesn't shrink.
fn context(bed: &Bed, dockerfile: &str) -> String {
    let context = bed.path("context");
    fs::create_dir_all(&context).unwrap();
    let mut state = 1u64;
    let noise: Vec<u8> = (0..SIZE / 8)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state ^ state >> 29).to_le_bytes()
        })
        .collect();
    fs::write(context.join("noise"), noise).unwrap();
    fs::write(context.join("small"), "small").unwrap();
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    context.display().to_string()
}

const PLAIN: &str = "FROM scratch\nCOPY noise /\nCOPY small /\n";

fn build(bed: &Bed, dockerfile: &str, stub: &Stub, more: &[&str]) -> Output {
    let (context, name) = (context(bed, dockerfile), stub.image());
    let mut arguments = vec!["build", "-q", "--push", "-t", &name];
    arguments.extend(more);
    arguments.push(&context);
    bed.run(&arguments)
}

fn built(bed: &Bed, stub: &Stub, more: &[&str], case: &str) {
    let output = build(bed, PLAIN, stub, more);
    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(bed.ok(&["fsck"]), "0 problems\n", "{case}");
}

/// The first part of a layer that is sent ahead, to the first upload; it has all of one that is no larger than a part.
fn is_first_part(got: &Got, before: usize) -> bool {
    got.line == "PATCH /v2/r/blobs/uploads/1" && before == 0
}

#[test]
fn a_large_layer_is_on_its_way_before_the_image_is_there() {
    needs!(gate::root());
    let (bed, registry) = (Bed::new(), Registry::default());
    let honest = registry.clone();
    let stub = Stub::new(move |got, _| honest.answer_behind("PATCH", got));
    built(&bed, &stub, &[], "honest");
    registry.has_image("honest");
    let lines = registry.0.lock().unwrap().answered.clone();
    let first = |part: &str| lines.iter().position(|line| line.contains(part)).unwrap();
    let last = lines.len() - 1;
    assert!(first("PATCH /v2/r/blobs/uploads/1") < first("HEAD"), "{lines:#?}");
    assert!(first("PUT /v2/r/blobs/uploads/1?digest=") < last, "{lines:#?}");
    assert!(lines[last].starts_with("PUT /v2/r/manifests/t"), "{lines:#?}");
    assert_eq!(registry.begun_ahead(), 1);
    assert_eq!(lines.iter().filter(|line| line.starts_with("PATCH")).count(), 1, "nothing is sent twice");
    // What is known to be there is not sent again: by the cache, and by the registry.
    built(&bed, &stub, &[], "cached");
    assert_eq!(registry.0.lock().unwrap().begun, 3, "the uploads of two layers and the configuration");
    let other = Registry::default();
    let honest = other.clone();
    let second = Stub::new(move |got, _| honest.answer(got));
    built(&bed, &second, &[], "cached, elsewhere");
    other.has_image("cached, elsewhere");
    assert_eq!(other.begun_ahead(), 0, "its digest and length are known");
}

#[test]
fn a_very_large_layer_goes_in_parts() {
    needs!(gate::root());
    let (bed, registry) = (Bed::new(), Registry::default());
    let honest = registry.clone();
    let stub = Stub::new(move |got, _| honest.answer(got));
    let context = context(&bed, "FROM scratch\nCOPY noise /\n");
    let noise = fs::read(bed.path("context/noise")).unwrap();
    fs::write(bed.path("context/noise"), noise.repeat(11)).unwrap();
    bed.ok(&["build", "-q", "--push", "-t", &stub.image(), &context]);
    registry.has_image("parts");
    let mut end = 0;
    for got in stub.asked("PATCH") {
        let length: usize = got.headers["content-length"].parse().unwrap();
        let place = (end > 0).then(|| format!("{end}-{}", end + length - 1));
        assert_eq!(got.headers.get("content-range"), place.as_ref());
        assert!(length <= 128 << 20, "{length} bytes at once");
        end += length;
    }
    let largest = registry.0.lock().unwrap().blobs.values().map(Vec::len).max();
    assert_eq!(Some(end), largest, "nothing twice");
}

#[test]
fn a_registry_that_breaks_an_upload_gets_the_image_in_the_usual_way() {
    needs!(gate::root());
    let usual = || Say::new("500 Internal Server Error", b"");
    // How much it reads, what it says, and whether what it read counts.
    type Fault = (&'static str, usize, fn() -> Say, bool);
    let faults: [Fault; 6] = [
        ("refuses", 0, || Say::new("405 Method Not Allowed", b""), false),
        ("has enough", 5 << 20, || Say::new("429 Too Many Requests", b"").with("Retry-After", "0"), false),
        ("breaks and keeps", 5 << 20, || Say::new("503 Service Unavailable", b""), true),
        ("breaks and keeps all", usize::MAX, usual, true),
        ("loses all", usize::MAX, usual, false),
        ("hangs up", 1 << 20, || Say::new("", b""), false),
    ];
    for (case, reads, says, keeps) in faults {
        let (bed, registry) = (Bed::new(), Registry::default());
        let honest = registry.clone();
        let stub = Stub::hasty(
            move |got, before| if is_first_part(got, before) { reads } else { usize::MAX },
            move |got, before| match is_first_part(got, before) {
                true => {
                    if keeps {
                        honest.answer(got);
                    }
                    says()
                }
                false => honest.answer_behind("POST", got),
            },
        );
        built(&bed, &stub, &["--retry", "1"], case);
        registry.has_image(case);
        assert_eq!(registry.begun_ahead(), 1, "{case}");
        let patches = stub.asked("PATCH").into_iter();
        let rest: Vec<_> = patches.skip(1).map(|got| got.headers.contains_key("content-range")).collect();
        let wanted: &[bool] = match (keeps, reads) {
            (true, usize::MAX) => &[],
            (true, _) => &[true],
            (false, _) => &[false],
        };
        assert_eq!(rest, wanted, "{case}: what is kept is not sent again");
    }
}

#[test]
fn an_upload_that_turns_out_wrong_is_done_again_in_the_usual_way() {
    needs!(gate::root());
    let other = Digest::of(b"other").to_string();
    for case in ["short", "session lost", "another digest"] {
        let (bed, registry) = (Bed::new(), Registry::default());
        let (honest, other) = (registry.clone(), other.clone());
        let stub = Stub::new(move |got, before| {
            let is_first = got.line.contains("/uploads/1?digest");
            match case {
                "short" if is_first_part(got, before) => {
                    let half = Got { body: got.body[..got.body.len() / 2].to_vec(), ..got.clone() };
                    honest.answer(&half)
                }
                "session lost" if is_first && before == 0 => {
                    honest.0.lock().unwrap().uploads.remove("1");
                    honest.answer(got)
                }
                "another digest" if is_first => {
                    honest.0.lock().unwrap().uploads.remove("1");
                    Say::new("201 Created", b"").with("Docker-Content-Digest", &other)
                }
                _ => honest.answer_behind("POST", got),
            }
        });
        built(&bed, &stub, &[], case);
        registry.has_image(case);
        assert_eq!((registry.begun_ahead(), stub.asked("PATCH").len()), (1, 2), "{case}");
    }
}

#[test]
fn a_registry_that_always_has_another_digest_is_an_error() {
    needs!(gate::root());
    let (bed, registry) = (Bed::new(), Registry::default());
    let other = Digest::of(b"other").to_string();
    let stub = Stub::new(move |got, _| match registry.answer(got) {
        say if got.line.contains("?digest=") => {
            Say { headers: vec![("Docker-Content-Digest", other.clone())], ..say }
        }
        say => say,
    });
    let output = build(&bed, PLAIN, &stub, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("the registry says that sha256:"), "{said}");
    assert_eq!(stub.asked("/manifests/").len(), 0);
}

#[test]
fn an_upload_that_is_led_elsewhere_takes_no_credential_along() {
    needs!(gate::root());
    for case in ["redirect", "location"] {
        let (bed, registry) = (Bed::new(), Registry::default());
        let at_other = registry.clone();
        let other = Stub::new(move |got, _| at_other.answer(got));
        let there = format!("http://localhost:{}", other.port);
        let honest = registry.clone();
        let stub = Stub::new(move |got, _| {
            if !got.headers.contains_key("authorization") {
                return Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", "Basic realm=\"r\"");
            }
            let path = got.line.split(' ').nth(1).unwrap();
            match got.line.split(' ').next().unwrap() {
                "PATCH" if case == "redirect" => {
                    Say::new("307 Temporary Redirect", b"").with("Location", &format!("{there}{path}"))
                }
                "POST" if case == "location" => {
                    let say = honest.answer(got);
                    let location = format!("{there}{}", say.headers[0].1);
                    Say { headers: vec![("Location", location)], ..say }
                }
                _ => honest.answer(got),
            }
        });
        built(&bed, &stub, &["--creds", "me:hunter2"], case);
        registry.has_image(case);
        let elsewhere = other.seen();
        // To whichever upload was begun first: layers that are made at once are sent in any order.
        let patches = elsewhere.iter().filter(|got| got.line.starts_with("PATCH /v2/r/blobs/uploads/"));
        assert_eq!(patches.count(), 1, "{case}");
        assert!(elsewhere.iter().all(|got| !got.headers.contains_key("authorization")), "{case}");
    }
}

#[test]
fn of_a_build_that_fails_the_registry_keeps_nothing() {
    needs!(gate::root());
    let (bed, registry) = (Bed::new(), Registry::default());
    let honest = registry.clone();
    let stub = Stub::new(move |got, _| honest.answer(got));
    let output = build(&bed, "FROM scratch\nCOPY noise /\nCOPY --chown=nobody small /\n", &stub, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("nobody"), "{said}");
    assert_eq!(["POST", "DELETE", "PUT"].map(|method| stub.asked(method).len()), [1, 1, 0]);
    let kept = registry.0.lock().unwrap();
    assert_eq!((kept.uploads.len(), kept.blobs.len(), kept.manifests.len()), (0, 0, 0));
}

#[test]
fn layers_that_are_not_the_images_and_builds_that_are_looked_over_first_are_not_sent_ahead() {
    needs!(gate::root());
    let stages = "FROM scratch AS hidden\nCOPY noise small /\nFROM scratch\nCOPY --from=hidden small /\n";
    for (dockerfile, more, size) in [
        (stages, &[][..], 0),
        (PLAIN, &["--audit-secrets"][..], SIZE),
        (PLAIN, &["--verify-reproducible"][..], SIZE),
    ] {
        let (bed, registry) = (Bed::new(), Registry::default());
        let honest = registry.clone();
        let stub = Stub::new(move |got, _| honest.answer(got));
        let output = build(&bed, dockerfile, &stub, more);
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
        registry.has_image("not ahead");
        assert_eq!(registry.begun_ahead(), 0, "{more:?}");
        let blobs: usize = registry.0.lock().unwrap().blobs.values().map(Vec::len).sum();
        assert!(blobs >= size && blobs < size + (1 << 20), "{more:?}: {blobs} bytes");
    }
}
