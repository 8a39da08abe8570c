//! Tokens: asked for as often as needed and no oftener, of a server that may fail, and told to nobody else.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod stub;

use std::sync::atomic::{AtomicUsize, Ordering};

use bed::Bed;
use stub::{Got, Say, Stub};

const CREDS: [&str; 4] = ["--creds", "me:hunter2", "--retry-delay", "1ms"];

/// Asks for a token of the registry's own server.
fn challenge(got: &Got) -> Say {
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", got.headers["host"]);
    Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", &realm)
}

fn holds(got: &Got, token: &str) -> bool {
    got.headers.get("authorization").is_some_and(|header| header == &format!("Bearer {token}"))
}

fn token(name: &str) -> Say {
    Say::new("200 OK", format!("{{\"token\":\"{name}\",\"expires_in\":300}}").as_bytes())
}

fn pull(bed: &Bed, stub: &Stub) -> (bool, String) {
    let output = bed.run(&[&["pull"], &CREDS[..], &[&stub.image()]].concat());
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

/// A registry that takes what it is sent, for who holds the right token.
fn takes(got: &Got) -> Say {
    match got.line.split(' ').next().unwrap() {
        "HEAD" => Say::new("404 Not Found", b""),
        "POST" | "PATCH" => Say::new("202 Accepted", b"").with("Location", "/v2/r/blobs/uploads/u?s=1"),
        _ => Say::new("201 Created", b""),
    }
}

#[test]
fn a_token_that_is_never_enough_is_not_asked_for_without_end() {
    let stub = Stub::new(|got, _| match got.line.starts_with("GET /token") {
        true => token("t"),
        false => challenge(got),
    });
    let (done, said) = pull(&Bed::new(), &stub);
    assert!(!done && said.contains("401 not authorised") && !said.contains("hunter2"), "{said}");
    assert_eq!((stub.asked("/token").len(), stub.asked("/manifests/").len()), (1, 2));
}

#[test]
fn a_token_that_ends_in_the_middle_is_replaced_once() {
    let bed = Bed::new();
    bed.image("r:t");
    // Each token is good for three requests; a push takes more.
    let (given, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let stub = Stub::new(move |got, _| {
        if got.line.starts_with("GET /token") {
            used.store(0, Ordering::SeqCst);
            return token(&format!("t{}", given.fetch_add(1, Ordering::SeqCst) + 1));
        }
        let now = format!("t{}", given.load(Ordering::SeqCst));
        match holds(got, &now) && used.fetch_add(1, Ordering::SeqCst) < 3 {
            true => takes(got),
            false => challenge(got),
        }
    });
    bed.ok(&[&["push"], &CREDS[..], &["r:t", &stub.image()]].concat());
    let tokens = stub.asked("/token").len();
    // HEAD, POST and PUT of two blobs, PUT of the manifest; each token stands for one refusal.
    let asked = stub.seen().iter().filter(|got| got.line.contains("/v2/r/")).count();
    assert_eq!((tokens, asked), (3, 7 + 3), "{:?}", stub.seen());
}

#[test]
fn a_token_server_that_fails_is_told_for_what_it_is() {
    for (status, body, reason) in [
        ("401 Unauthorized", "{}", "401 not authorised"),
        (
            "403 Forbidden",
            "{\"errors\":[{\"message\":\"no more\"}]}",
            "403 denied: this user may not: no more",
        ),
        ("503 Service Unavailable", "", "503 refused"),
        ("200 OK", "<html>", "the token server's answer is no JSON"),
        ("200 OK", "{\"token\":\"\"}", "the token server's answer has no token"),
        ("200 OK", "[]", "the token server's answer has no token"),
    ] {
        let stub = Stub::new(move |got, _| match got.line.starts_with("GET /token") {
            true => Say::new(status, body.as_bytes()),
            false => challenge(got),
        });
        let (done, said) = pull(&Bed::new(), &stub);
        assert!(!done && said.contains(reason) && !said.contains("hunter2"), "{status} {body}: {said}");
        let tries = if status.starts_with('5') { 5 } else { 1 };
        assert_eq!(stub.asked("/token").len(), tries, "{status}");
        assert_eq!(stub.asked("/blobs/").len(), 0);
    }
}

#[test]
fn a_realm_that_is_no_place_for_credentials_gets_nothing() {
    for (realm, reason) in [
        ("", "the registry's challenge has no realm"),
        ("realm=\"file:///etc/passwd\",", "is neither http nor https"),
        ("realm=\"http://me@127.0.0.1/token\",", "has a user in it"),
        ("realm=\"/token\",", "has no scheme"),
    ] {
        let challenge = format!("Bearer {realm}service=\"s\"");
        let stub =
            Stub::new(move |_, _| Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", &challenge));
        let (done, said) = pull(&Bed::new(), &stub);
        assert!(!done && said.contains(reason), "{realm}: {said}");
        assert!(!stub.seen().iter().any(|got| got.headers.contains_key("authorization")), "{realm}");
    }
}

#[test]
fn a_refresh_token_follows_no_redirect_elsewhere() {
    let elsewhere = Stub::new(|_, _| token("stolen"));
    let there = format!("http://127.0.0.1:{}/token", elsewhere.port);
    for status in ["302 Found", "307 Temporary Redirect"] {
        let there = there.clone();
        let stub = Stub::new(move |got, _| match got.line.starts_with("POST /token") {
            true => Say::new(status, b"").with("Location", &there),
            false => challenge(got),
        });
        let bed = Bed::new();
        let file = bed.path("auth.json");
        let text = format!("{{\"auths\":{{\"127.0.0.1:{}\":{{\"identitytoken\":\"r3fresh\"}}}}}}", stub.port);
        std::fs::write(&file, text).unwrap();
        let said = bed.fails(&["pull", "--authfile", &file.display().to_string(), &stub.image()]);
        assert!(said.contains("leads elsewhere, where no secret is sent"), "{status}: {said}");
        assert_eq!((stub.asked("POST /token").len(), elsewhere.seen().len()), (1, 0), "{status}");
    }
}

#[test]
fn a_redirect_and_a_next_page_elsewhere_are_not_told_the_token() {
    let elsewhere = Stub::new(|got, _| match got.line.contains("tags") {
        true => Say::new("200 OK", br#"{"tags":[]}"#),
        false => Say::new("404 Not Found", b"{}"),
    });
    let there = format!("http://127.0.0.1:{}", elsewhere.port);
    let stub = Stub::new(move |got, _| {
        let path = got.line.split(' ').nth(1).unwrap();
        match got.line.starts_with("GET /token") {
            true => token("t"),
            false if !holds(got, "t") => challenge(got),
            false if path.contains("/tags/") => {
                let next = format!("<{there}/v2/r/tags/list?last=a>; rel=\"next\"");
                Say::new("200 OK", br#"{"tags":["a"]}"#).with("Link", &next)
            }
            false => Say::new("307 Temporary Redirect", b"").with("Location", &format!("{there}{path}")),
        }
    });
    let bed = Bed::new();
    let name = format!("127.0.0.1:{}/r", stub.port);
    bed.fails(&[&["pull", "-a"], &CREDS[..], &[&name]].concat());
    let lines: Vec<String> = elsewhere.seen().into_iter().map(|got| got.line).collect();
    assert_eq!(lines, ["GET /v2/r/tags/list?last=a", "GET /v2/r/manifests/a"]);
    assert!(!elsewhere.seen().iter().any(|got| got.headers.contains_key("authorization")));
}
