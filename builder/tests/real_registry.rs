//! Debian's registry: images go there and come back, builds are pushed, passwords are asked for.
#![allow(clippy::unwrap_used)]

#[path = "bed/mod.rs"]
mod bed;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use bed::{Bed, program};
use hull_testkit::{gate, needs};

/// Debian's registry on a port of its own, killed at the end.
struct Real {
    child: Child,
    port: u16,
}

impl Real {
    fn start(bed: &Bed) -> Option<Self> {
        Self::with(bed, "")
    }

    /// With a part of its configuration that says who may use it.
    fn with(bed: &Bed, auth: &str) -> Option<Self> {
        let program = program("docker-registry")?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n{auth}",
            bed.path("registry").display()
        );
        fs::write(bed.path("registry.yml"), config).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(bed.path("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let real = Self { child: command.spawn().unwrap(), port };
        let up = |_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        };
        assert!((0..500).any(up), "the registry comes up");
        Some(real)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn a_real_registry_takes_mounts_and_gives_back() {
    let bed = Bed::new();
    let Some(real) = Real::start(&bed) else { return };
    let id = bed.image("lab/a:1");
    let (first, second) =
        (format!("127.0.0.1:{}/x/a:1", real.port), format!("localhost:{}/y/b:2", real.port));
    bed.ok(&["tag", "lab/a:1", &first]);
    bed.ok(&["tag", "lab/a:1", &second]);
    assert!(bed.ok(&["push", &first]).contains("2 blobs pushed"));
    assert!(bed.ok(&["push", &first]).contains("0 blobs pushed"), "what is there is not sent again");
    let third = format!("127.0.0.1:{}/z/c:3", real.port);
    let sent = bed.ok(&["push", &first, &third]);
    assert!(sent.contains("0 blobs pushed"), "both are mounted from the first repository: {sent}");
    bed.ok(&["push", &second]);
    let other = Bed::new();
    for name in [&first, &second, &third] {
        other.ok(&["pull", name]);
        assert_eq!(other.ok(&["inspect", "-f", "{{.Id}}", name]).trim(), id);
    }
    assert!(other.ok(&["pull", &first]).contains("up to date"));
    let missing = format!("127.0.0.1:{}/x/none:1", real.port);
    assert!(other.fails(&["pull", &missing]).contains("404 not found"));
    assert_eq!(other.ok(&["fsck"]), "0 problems\n");
}

#[test]
fn a_real_registry_with_passwords_serves_who_logged_in() {
    let bed = Bed::new();
    // bcrypt of "hunter2"
    let line = "me:$2b$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";
    fs::write(bed.path("htpasswd"), line).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: lab, path: {}}}}}\n", bed.path("htpasswd").display());
    let Some(real) = Real::with(&bed, &auth) else { return };
    bed.image("lab/a:1");
    let server = format!("127.0.0.1:{}", real.port);
    let name = format!("{server}/x/a:1");
    assert!(bed.fails(&["push", "lab/a:1", &name]).contains("401 not authorised"));
    assert!(bed.fails(&["login", "-u", "me", "-p", "wrong", &server]).contains("401"));
    bed.ok(&["login", "-u", "me", "-p", "hunter2", &server]);
    assert!(bed.ok(&["push", "lab/a:1", &name]).contains("2 blobs pushed"));
    bed.ok(&["rmi", "lab/a:1"]);
    bed.ok(&["pull", &name]);
    let found = bed.ok(&["search", "--format", "{{.Name}}", &format!("{server}/x")]);
    assert_eq!(found.trim(), format!("{server}/x/a"));
    bed.ok(&["logout", &server]);
    assert!(bed.fails(&["pull", &name]).contains("401 not authorised"));
}

#[test]
fn a_build_is_pushed_under_its_names() {
    needs!(gate::root());
    let bed = Bed::new();
    let Some(real) = Real::start(&bed) else { return };
    let context = bed.path("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY <<EOF /f\npushed\nEOF\n").unwrap();
    let context = context.display().to_string();
    let server = format!("127.0.0.1:{}", real.port);
    let names = ["a/app:1", "b/app:2", "c/app:3"].map(|name| format!("{server}/{name}"));
    let id = bed.ok(&["build", "-q", "-t", &names[0], "-t", &names[1], "--push", &context]);
    let output = format!("type=registry,name={}", names[2]);
    assert_eq!(bed.ok(&["build", "-q", "-o", &output, &context]), id);
    let other = Bed::new();
    for name in &names {
        other.ok(&["pull", name]);
        assert_eq!(other.ok(&["inspect", "-f", "{{.Id}}", name]), id);
    }
    assert!(bed.fails(&["build", "--push", &context]).contains("the image needs a name"));
    let nobody = format!("127.0.0.1:1/a:{}", real.port);
    assert!(bed.fails(&["build", "-q", "-t", &nobody, "--push", &context]).contains("push 127.0.0.1:1/a"));
}
