//! What `login` keeps, and that nobody sees a password that is typed.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod stub;

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use bed::Bed;
use hull_sys::tty;
use stub::{Say, Stub};

#[test]
fn login_keeps_what_the_registry_took_and_logout_forgets_it() {
    let bed = Bed::new();
    let stub = Stub::new(|got, _| match got.headers.get("authorization").map(String::as_str) {
        Some("Basic bWU6aHVudGVyMg==") => Say::new("200 OK", b"{}"),
        _ => Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let server = format!("127.0.0.1:{}", stub.port);
    let file = bed.path(".docker/config.json");
    assert!(bed.fails(&["login", "-u", "me", "-p", "wrong", &server]).contains("401"));
    assert!(!file.exists());
    let mut login = bed.command(&["login", "-u", "me", "--password-stdin", &server]);
    let mut child = login.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hunter2\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(fs::read_to_string(&file).unwrap().contains("bWU6aHVudGVyMg=="));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    bed.ok(&["logout", &server]);
    assert!(!fs::read_to_string(&file).unwrap().contains("bWU6"));
}

#[test]
fn a_password_typed_at_the_terminal_is_not_shown() {
    let bed = Bed::new();
    let stub = Stub::new(|got, _| match got.headers.get("authorization").map(String::as_str) {
        Some("Basic bWU6aHVudGVyMg==") => Say::new("200 OK", b"{}"),
        _ => Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let server = format!("127.0.0.1:{}", stub.port);
    let mut master = fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    tty::unlock_pty(master.as_fd()).unwrap();
    let peer = tty::pty_peer(master.as_fd()).unwrap();
    let mut login = bed.command(&["login", &server]);
    login.stdin(peer.try_clone().unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = login.spawn().unwrap();
    let mut prompts = child.stdout.take().unwrap();
    let mut asked = [0; 10];
    std::io::Read::read_exact(&mut prompts, &mut asked).unwrap();
    assert_eq!(&asked, b"Username: ");
    master.write_all(b"me\n").unwrap();
    let mut errors = child.stderr.take().unwrap();
    std::io::Read::read_exact(&mut errors, &mut asked).unwrap();
    assert_eq!(&asked, b"Password: ");
    master.write_all(b"hunter3\x7f2\r").unwrap();
    assert!(child.wait().unwrap().success());
    // What is typed now is shown again.
    master.write_all(b"seen\n").unwrap();
    let mut shown = Vec::new();
    while !shown.ends_with(b"seen\r\n") {
        let mut bytes = [0; 256];
        let count = std::io::Read::read(&mut master, &mut bytes).unwrap();
        shown.extend_from_slice(&bytes[..count]);
    }
    assert_eq!(String::from_utf8(shown).unwrap(), "me\r\nseen\r\n");
    assert!(fs::read_to_string(bed.path(".docker/config.json")).unwrap().contains("bWU6aHVudGVyMg=="));
    drop(peer);
}

#[test]
fn credentials_of_the_command_line_go_to_no_registry_that_only_a_dockerfile_names() {
    let refusing = || {
        Stub::new(|_, _| Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", "Basic realm=\"x\""))
    };
    let given = "Basic bWU6aHVudGVyMg==";
    // Where the image goes, and whether the registry of its base is told who asks.
    for (flags, told) in [
        (&["-t", "OTHER/x:1", "--push"][..], false),
        (&["-t", "OTHER/x:1"], false),
        (&["-t", "x:1"], false),
        (&[], false),
        (&["-t", "BASE/x:1", "-o", "type=registry,name=OTHER/x:1"], false),
        (&["-t", "OTHER/x:1", "-t", "BASE/x:1", "--push"], true),
        (&["-t", "BASE/x:1"], true),
        (&["-o", "type=image,name=BASE/x:1"], true),
        (&["-o", "type=image,name=BASE/x:1", "--push"], true),
    ] {
        let (bed, base, other) = (Bed::new(), refusing(), refusing());
        let place = |stub: &Stub| format!("127.0.0.1:{}", stub.port);
        fs::create_dir(bed.path("context")).unwrap();
        fs::write(bed.path("context/Dockerfile"), format!("FROM {}/y:1\nLABEL a=b\n", place(&base))).unwrap();
        let flags: Vec<String> = flags
            .iter()
            .map(|flag| flag.replace("BASE", &place(&base)).replace("OTHER", &place(&other)))
            .collect();
        let context = bed.path("context").display().to_string();
        let build = || {
            let mut words = vec!["build", "--retry", "0", "--creds", "me:hunter2"];
            words.extend(flags.iter().map(String::as_str));
            words.push(&context);
            bed.fails(&words)
        };
        let sent = || {
            let all = base.seen().into_iter().filter_map(|got| got.headers.get("authorization").cloned());
            all.collect::<std::collections::BTreeSet<_>>()
        };
        let said = build();
        assert!(said.contains("401") && !said.contains("hunter2"), "{said}");
        assert_eq!(said.contains("--creds"), !told, "{said}");
        assert!(!base.seen().is_empty());
        assert_eq!(sent().contains(given), told, "{flags:?}: {:?}", sent());
        // What a file says for that registry is its own.
        let file = bed.path(".docker/config.json");
        fs::create_dir(file.parent().unwrap()).unwrap();
        let auths = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"eW91Om93bg==\"}}}}}}", place(&base));
        fs::write(&file, auths).unwrap();
        build();
        assert_eq!(sent().contains("Basic eW91Om93bg=="), !told, "{flags:?}: {:?}", sent());
        assert_eq!(sent().contains(given), told, "{flags:?}: {:?}", sent());
    }
}
