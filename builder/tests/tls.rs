//! Registries behind TLS: whose certificates count, which one is shown, and that nothing is said before that is clear.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod distribution;
mod stub;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bed::{Bed, program};
use distribution::Real;
use stub::{Say, Stub};

/// An authority, what it has signed for a registry on loopback and for a client, and another authority.
struct Authority {
    openssl: PathBuf,
    dir: PathBuf,
}

impl Authority {
    fn new(bed: &Bed) -> Option<Self> {
        let made = Self { openssl: program("openssl")?, dir: bed.path("authority") };
        fs::create_dir(&made.dir).unwrap();
        for name in ["ca", "other"] {
            let subject = format!("/CN={name}");
            made.call(
                &format!("req -x509 -keyout {name}.key -out {name}.crt -addext keyUsage=keyCertSign -subj"),
                &[&subject],
            );
        }
        for (name, extension) in
            [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
        {
            fs::write(made.dir.join("extension"), extension).unwrap();
            made.call(&format!("req -keyout {name}.key -out {name}.csr -subj"), &[&format!("/CN={name}")]);
            let out = format!("{name}.cert");
            let sign = "x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extension -in";
            made.call(sign, &[&format!("{name}.csr"), "-out", &out]);
        }
        Some(made)
    }

    fn call(&self, words: &str, more: &[&str]) {
        let mut command = Command::new(&self.openssl);
        let mut words = words.split_whitespace();
        command.arg(words.next().unwrap()).current_dir(&self.dir);
        let words: Vec<&str> = words.collect();
        if !words.contains(&"-req") {
            command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        }
        let output = command.args(words).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// How a registry serves with it; with `clients` only those that show a certificate of the authority.
    fn serving(&self, clients: bool) -> String {
        let clients = if clients { format!(", clientcas: [{}]", self.path("ca.crt")) } else { String::new() };
        let (certificate, key) = (self.path("server.cert"), self.path("server.key"));
        format!(", tls: {{certificate: {certificate}, key: {key}{clients}}}")
    }

    /// A directory with copies of some of the files.
    fn folder(&self, at: PathBuf, names: &[(&str, &str)]) -> String {
        fs::create_dir_all(&at).unwrap();
        for (from, to) in names {
            fs::copy(self.dir.join(from), at.join(to)).unwrap();
        }
        at.display().to_string()
    }
}

/// Pushes and pulls with some flags, and some variables.
fn goes_both_ways(bed: &Bed, port: u16, flags: &[&str], variables: &[(&str, &str)]) {
    let name = format!("127.0.0.1:{port}/x/a:1");
    for command in ["push", "pull"] {
        let words = [&[command, "--retry", "0"], flags, &[&name]].concat();
        let mut command = bed.command(&words);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_registry_with_an_authority_of_its_own_is_trusted_where_that_is_given() {
    let bed = Bed::new();
    let Some(authority) = Authority::new(&bed) else { return };
    let Some(real) = Real::serving(&bed, &authority.serving(false), "") else { return };
    let (host, name) = (format!("127.0.0.1:{}", real.port), format!("127.0.0.1:{}/x/a:1", real.port));
    bed.image(&name);
    let unknown = |flags: &[&str]| {
        let said = bed.fails(&[&["push"], flags, &[&name]].concat());
        assert!(said.contains("certificate") && said.contains("after 1 attempts"), "{said}");
    };
    unknown(&[]);
    let other = authority.folder(bed.path("other"), &[("other.crt", "ca.crt")]);
    unknown(&["--cert-dir", &other]);
    goes_both_ways(&bed, real.port, &["--tls-verify=false"], &[]);
    let right = authority.folder(bed.path("right"), &[("ca.crt", "lab.crt")]);
    goes_both_ways(&bed, real.port, &["--cert-dir", &right], &[]);
    goes_both_ways(&bed, real.port, &[], &[("SSL_CERT_FILE", &authority.path("ca.crt"))]);
    // A folder of the person's own, for this registry and no other port of it.
    let folders = bed.path(".config/containers/certs.d");
    authority.folder(folders.join("127.0.0.1:1"), &[("ca.crt", "ca.crt")]);
    authority.folder(folders.join("127.0.0.1"), &[("ca.crt", "ca.crt")]);
    unknown(&[]);
    authority.folder(folders.join(&host), &[("ca.crt", "ca.crt")]);
    goes_both_ways(&bed, real.port, &[], &[]);
    assert!(bed.fails(&["pull", "--cert-dir", "/nowhere", &name]).contains("read certificates /nowhere"));
}

#[test]
fn the_folders_of_the_machine_count() {
    let bed = Bed::new();
    if !rustix::process::geteuid().is_root() {
        return hull_testkit::gate::skipped("needs root");
    }
    let Some(authority) = Authority::new(&bed) else { return };
    let Some(real) = Real::serving(&bed, &authority.serving(true), "") else { return };
    let (host, name) = (format!("127.0.0.1:{}", real.port), format!("127.0.0.1:{}/x/a:1", real.port));
    bed.image(&name);
    // In a mount namespace of its own, /etc is another one.
    let script = "mount -t tmpfs none /etc && mkdir -p $1 && cp $2/ca.crt $1 && cp $2/client.cert $2/client.key $1 && exec $0 push $3";
    for place in ["/etc/hull/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d"] {
        let mut command = bed.command(&[]);
        let mut unshare = Command::new("unshare");
        unshare.args([
            "-m",
            "sh",
            "-c",
            script,
            env!("CARGO_BIN_EXE_hull-build"),
            &format!("{place}/{host}"),
        ]);
        unshare.arg(&authority.dir).arg(&name).env_clear();
        unshare.envs(command.arg("x").get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = unshare.output().unwrap();
        assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_registry_that_asks_for_a_certificate_is_shown_ours() {
    let bed = Bed::new();
    let Some(authority) = Authority::new(&bed) else { return };
    let Some(real) = Real::serving(&bed, &authority.serving(true), "") else { return };
    let name = format!("127.0.0.1:{}/x/a:1", real.port);
    bed.image(&name);
    let ca = authority.folder(bed.path("ca"), &[("ca.crt", "ca.crt")]);
    bed.fails(&["push", "--retry", "0", "--cert-dir", &ca, &name]);
    let files = [("ca.crt", "ca.crt"), ("client.cert", "me.cert"), ("client.key", "me.key")];
    let own = authority.folder(bed.path("own"), &files);
    goes_both_ways(&bed, real.port, &["--cert-dir", &own], &[]);
    // Every command that speaks to a registry knows the flag.
    fs::create_dir(bed.path("context")).unwrap();
    fs::write(bed.path("context/Dockerfile"), format!("FROM {name}\nLABEL a=b\n")).unwrap();
    let context = bed.path("context").display().to_string();
    let server = format!("127.0.0.1:{}", real.port);
    let built = format!("{server}/x/b:1");
    bed.ok(&["build", "-q", "--pull", "--push", "--cert-dir", &own, "-t", &built, &context]);
    let found = bed.ok(&["search", "--cert-dir", &own, "--format", "{{.Name}}", &format!("{server}/x")]);
    assert_eq!(found, format!("{server}/x/a\n{server}/x/b\n"));
    bed.ok(&["manifest", "inspect", "--cert-dir", &own, &built]);
    fs::remove_file(Path::new(&own).join("me.key")).unwrap();
    let said = bed.fails(&["push", "--cert-dir", &own, &name]);
    assert!(said.contains("read key") && said.contains("me.key"), "{said}");
}

#[test]
fn a_mirror_is_trusted_by_the_authorities_of_the_flag() {
    let bed = Bed::new();
    let Some(authority) = Authority::new(&bed) else { return };
    let Some(real) = Real::serving(&bed, &authority.serving(false), "") else { return };
    bed.image("lab/a:1");
    let right = authority.folder(bed.path("right"), &[("ca.crt", "lab.crt")]);
    let place = format!("127.0.0.1:{}", real.port);
    bed.ok(&["push", "--cert-dir", &right, "lab/a:1", &format!("{place}/x/a:1")]);
    // Nobody listens at the registry itself: only the mirror can give the image.
    let mirror = format!("127.0.0.1:1=https://{place}");
    bed.ok(&[
        "pull",
        "--retry",
        "0",
        "--cert-dir",
        &right,
        "--registry-mirror",
        &mirror,
        "127.0.0.1:1/x/a:1",
    ]);
}

/// A server with TLS that answers each path with a file, and notes which certificates it is shown.
struct Files {
    server: Child,
    port: u16,
    log: PathBuf,
}

impl Files {
    fn start(authority: &Authority, dir: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = dir.join("log");
        let mut command = Command::new(&authority.openssl);
        command.args(["s_server", "-HTTP", "-accept", &format!("127.0.0.1:{port}")]).current_dir(dir);
        command.args(["-verify", "1", "-CAfile", &authority.path("ca.crt")]);
        command.args(["-cert", &authority.path("server.cert"), "-key", &authority.path("server.key")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let started = Self { server: command.spawn().unwrap(), port, log };
        let up = |_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        };
        assert!((0..500).any(up), "the server comes up");
        started
    }

    /// Whether it was shown the client's certificate.
    fn knows_the_client(&self) -> bool {
        fs::read_to_string(&self.log).unwrap().contains("CN = client")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = self.server.kill().and_then(|()| self.server.wait());
    }
}

#[test]
fn nothing_is_followed_or_asked_for_from_https_to_http() {
    let bed = Bed::new();
    let Some(authority) = Authority::new(&bed) else { return };
    let open = Stub::new(|_, _| Say::new("200 OK", b"{\"token\":\"t\"}"));
    let there = format!("http://127.0.0.1:{}", open.port);
    let redirect = format!("302 Found\r\nLocation: {there}/v2/r/manifests/t");
    let challenge =
        format!("401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"{there}/token\",service=\"s\"");
    for (answer, reason) in [(redirect, "leads from https to http"), (challenge, "is not reached by https")] {
        let dir = bed.path(&reason.replace(' ', "-"));
        fs::create_dir_all(dir.join("v2/r/manifests")).unwrap();
        let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        fs::write(dir.join("v2/r/manifests/t"), text).unwrap();
        let server = Files::start(&authority, &dir);
        let name = format!("127.0.0.1:{}/r:t", server.port);
        let flags = ["--tls-verify=false", "--creds", "me:hunter2", "--retry", "0"];
        let said = bed.fails(&[&["pull"], &flags[..], &[&name]].concat());
        assert!(said.contains(reason) && !said.contains("hunter2"), "{said}");
    }
    assert!(open.seen().is_empty(), "{:?}", open.seen());
}

#[test]
fn our_certificate_is_shown_to_nobody_whom_a_registry_leads_to() {
    let bed = Bed::new();
    let Some(authority) = Authority::new(&bed) else { return };
    let files = [("ca.crt", "ca.crt"), ("client.cert", "me.cert"), ("client.key", "me.key")];
    let own = authority.folder(bed.path("own"), &files);
    let dir = bed.path("served");
    fs::create_dir_all(dir.join("v2/r/manifests")).unwrap();
    fs::write(
        dir.join("v2/r/manifests/t"),
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    let server = Files::start(&authority, &dir);
    let there = format!("https://127.0.0.1:{}", server.port);
    let leading = Stub::new(move |got, _| match got.line.as_str() {
        "GET /v2/" => Say::new("200 OK", b"{}"),
        line => Say::new("307 Temporary Redirect", b"")
            .with("Location", &format!("{there}{}", line.split(' ').nth(1).unwrap())),
    });
    let pull = |port: u16, more: &[&str]| {
        let name = format!("127.0.0.1:{port}/r:t");
        bed.fails(&[&["pull", "--retry", "0", "--cert-dir", &own], more, &[&name]].concat())
    };
    let said = pull(leading.port, &[]);
    assert!(said.contains("404 not found"), "its authority counts there: {said}");
    assert!(!server.knows_the_client());
    let mirror = format!("127.0.0.1:{}=https://127.0.0.1:{}", leading.port, server.port);
    let said = pull(leading.port, &["--registry-mirror", &mirror]);
    let passed_over = said.lines().find(|line| line.contains("passed over")).unwrap();
    assert!(passed_over.contains("404"), "it is trusted: {said}");
    assert!(!server.knows_the_client());
    // Nor to a registry that a Dockerfile alone names.
    fs::create_dir(bed.path("context")).unwrap();
    fs::write(bed.path("context/Dockerfile"), format!("FROM 127.0.0.1:{}/r:t\n", server.port)).unwrap();
    let context = bed.path("context").display().to_string();
    let build = |name: &str, flags: &[&str]| {
        bed.fails(&[&["build", "--retry", "0"], flags, &["-t", name, &context]].concat())
    };
    let own_name = format!("127.0.0.1:{}/x:1", server.port);
    for flags in [&["--tls-verify=false"][..], &["--cert-dir", &own]] {
        // Whoever made an authority for the other registry is not trusted with the bases of all.
        let said = build("r.example/x:1", flags);
        assert!(!said.contains("404") && said.contains("--tls-verify and --plain-http are for"), "{said}");
        assert!(said.contains("invalid peer certificate"), "{said}");
        assert!(!server.knows_the_client());
        assert!(build(&own_name, flags).contains("404"), "{flags:?}");
    }
    let mirror = format!("127.0.0.1:{0}=https://127.0.0.1:{0}", server.port);
    let said = build("r.example/x:1", &["--cert-dir", &own, "--registry-mirror", &mirror]);
    assert!(said.contains("404"), "the command line names the mirror, too: {said}");
    build(&own_name, &["--cert-dir", &own]);
    assert!(server.knows_the_client(), "to the registry itself it is shown");
}
