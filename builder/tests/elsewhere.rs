//! Contexts and sources from elsewhere: repositories, archives from URLs, layouts, directories by name.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod making;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_testkit::call::eventually;
use hull_testkit::{Outcome, Scratch, call, gate, needs};

use making::{LIMIT, build, builder, context};

const DAEMON: &str = "/usr/lib/git-core/git-daemon";

/// A repository that a server on loopback gives out.
struct Served {
    work: PathBuf,
    url: String,
    server: Child,
}

impl Served {
    fn new(scratch: &Scratch) -> Self {
        let work = scratch.join("served/repo");
        fs::create_dir_all(work.join("sub")).unwrap();
        fs::write(work.join("top"), "top").unwrap();
        fs::write(work.join("sub/file"), "one").unwrap();
        fs::write(work.join("sub/Dockerfile"), "FROM scratch\nCOPY file /from-git\n").unwrap();
        symlink("/etc", work.join("out")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut server = Command::new(DAEMON);
        server.args(["--reuseaddr", "--export-all", "--listen=127.0.0.1"]);
        server.arg(format!("--port={}", address.port()));
        server.arg(format!("--base-path={}", scratch.join("served").display()));
        server.arg(scratch.join("served")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = server.spawn().unwrap();
        let served = Self { work, url: format!("git://{address}/repo"), server };
        served.git(&["init", "-q", "-b", "main"]);
        served.commit("first");
        served.git(&["tag", "-a", "v1", "-m", "a tag that is an object"]);
        assert!(eventually(Duration::from_secs(10), || TcpStream::connect(address).is_ok()));
        served
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]);
        call(git.arg("-C").arg(&self.work).args(arguments), LIMIT).text().to_owned()
    }

    /// Commits everything and gives the commit's name.
    fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It ends with the test at the latest.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// Builds a context and gives the outcome and the image's files.
fn files(scratch: &Scratch, store: &str, context: &Path, arguments: &[&str]) -> (Outcome, PathBuf) {
    let local = scratch.join("local");
    drop(fs::remove_dir_all(&local));
    let output = format!("type=local,dest={}", local.display());
    let outcome = build(&scratch.join(store), context, &[arguments, &["-o", &output]].concat());
    (outcome, local)
}

#[test]
fn add_checks_a_repository_out_and_knows_when_it_moved() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::path(DAEMON));
    let scratch = Scratch::new("add-git");
    let served = Served::new(&scratch);
    let add =
        |flags: &str, what: &str| context(&scratch, "c", &format!("ADD {flags} {}{what} /d/\n", served.url));
    let (outcome, local) = files(&scratch, "s", &add("", "#v1:sub"), &[]);
    outcome.done();
    assert_eq!(fs::read_to_string(local.join("d/file")).unwrap(), "one");
    assert!(!local.join("d/top").exists() && !local.join("d/.git").exists());
    let first = served.git(&["rev-parse", "HEAD"]);
    let (outcome, local) =
        files(&scratch, "s", &add(&format!("--keep-git-dir --checksum={first}"), "#main"), &[]);
    outcome.done();
    assert_eq!(fs::read_to_string(local.join("d/top")).unwrap(), "top");
    assert!(local.join("d/.git/HEAD").exists());
    let again = files(&scratch, "s", &add(&format!("--keep-git-dir --checksum={first}"), "#main"), &[]).0;
    assert!(again.stderr.contains("#3 CACHED"), "{}", again.stderr);
    fs::write(served.work.join("top"), "changed").unwrap();
    let second = served.commit("second");
    files(&scratch, "s", &add(&format!("--checksum={first}"), "#main"), &[])
        .0
        .failed(1, &format!("is {second}, not {first}"));
    let (outcome, local) = files(&scratch, "s", &add("", "#main"), &[]);
    outcome.done();
    assert_eq!(fs::read_to_string(local.join("d/top")).unwrap(), "changed");
    let (outcome, local) = files(&scratch, "s", &add("", &format!("#{first}")), &[]);
    outcome.done();
    assert_eq!(fs::read_to_string(local.join("d/top")).unwrap(), "top", "a commit that is no branch's end");
}

#[test]
fn a_repository_is_a_context_and_its_links_lead_nowhere() {
    needs!(gate::root(), gate::path(DAEMON));
    let scratch = Scratch::new("git-context");
    let served = Served::new(&scratch);
    let at = |fragment: &str| PathBuf::from(format!("{}#{fragment}", served.url));
    let (outcome, local) = files(&scratch, "s", &at("main:sub"), &[]);
    outcome.done();
    assert_eq!(fs::read_to_string(local.join("from-git")).unwrap(), "one");
    let again = files(&scratch, "s", &at(":sub"), &[]).0;
    assert!(again.stderr.contains("#1 CACHED"), "{}", again.stderr);
    assert!(Path::new("/etc/passwd").exists(), "what the link in it leads to");
    for (fragment, reason) in [
        ("main:out", "has no directory out"),
        ("main:top", "has no directory top"),
        ("main:../..", "the directory is outside"),
        ("nothing", "has no reference nothing"),
        ("-x", "no reference has this name"),
    ] {
        build(&scratch.join("s"), &at(fragment), &[]).failed(1, reason);
    }
    assert_eq!(fs::read_dir(scratch.join("s/tmp")).unwrap().count(), 0);
}

#[test]
fn the_next_command_removes_the_context_of_a_build_that_was_killed() {
    needs!(gate::root(), gate::program("git"));
    let scratch = Scratch::new("killed-context");
    // A server that takes calls and never answers.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("git://{}/repo", server.local_addr().unwrap());
    let mut build = builder(&scratch.join("s"), Path::new(&url), &[]).spawn().unwrap();
    let left = || fs::read_dir(scratch.join("s/tmp")).map_or(0, Iterator::count);
    let is_made = eventually(LIMIT, || left() == 1);
    build.kill().unwrap();
    build.wait().unwrap();
    assert!(is_made && left() == 1);
    let mut list = Command::new(hull_testkit::place::program("hull-build"));
    call(list.env("HULL_ROOT", scratch.join("s")).arg("images"), LIMIT).done();
    assert_eq!(left(), 0);
}

#[test]
fn git_reads_no_configuration_and_runs_no_hook() {
    needs!(gate::root(), gate::path(DAEMON));
    let scratch = Scratch::new("git-config");
    let served = Served::new(&scratch);
    let (home, marker) = (scratch.join("home"), scratch.join("ran"));
    fs::create_dir_all(home.join("template/hooks")).unwrap();
    let hook = home.join("template/hooks/post-checkout");
    fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!("[init]\n\ttemplateDir = {}\n", home.join("template").display());
    fs::write(home.join(".gitconfig"), config).unwrap();
    let mut plain = Command::new("git");
    plain.env("HOME", &home).args(["clone", "-q", &served.url]).arg(scratch.join("clone"));
    call(&mut plain, LIMIT).done();
    assert!(fs::remove_file(&marker).is_ok(), "the attack works where the configuration is read");
    let url = PathBuf::from(format!("{}#main:sub", served.url));
    let mut command = builder(&scratch.join("s"), &url, &[]);
    call(command.env("HOME", &home), LIMIT).done();
    assert!(!marker.exists());
}

#[test]
fn a_submodule_of_the_host_is_refused() {
    needs!(gate::root(), gate::path(DAEMON));
    let scratch = Scratch::new("submodule");
    let served = Served::new(&scratch);
    let secret = scratch.join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "host secret").unwrap();
    for arguments in [&["init", "-q", "-b", "main"][..], &["add", "-A"], &["commit", "-q", "-m", "x"]] {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-C"]).arg(&secret).args(arguments);
        call(&mut git, LIMIT).done();
    }
    served.git(&["submodule", "--quiet", "add", &secret.display().to_string(), "sub/module"]);
    served.commit("with a submodule");
    let clone = scratch.join("clone");
    let mut plain = Command::new("git");
    plain.args(["-c", "protocol.file.allow=always", "clone", "-q", "--recursive", &served.url]).arg(&clone);
    call(&mut plain, LIMIT).done();
    assert!(clone.join("sub/module/key").exists(), "the attack works where files may be fetched");
    let url = PathBuf::from(format!("{}#main:sub", served.url));
    build(&scratch.join("s"), &url, &[]).failed(1, "git submodule");
}

/// A server that answers every request with these bytes.
fn serve(content: Vec<u8>) -> String {
    serve_with("", content)
}

/// The same with more lines of a head, each with its end.
fn serve_with(headers: &'static str, content: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let head = format!(
                "HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
                content.len()
            );
            // A client that hangs up has what it wants.
            drop(stream.read(&mut request));
            drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content)));
        }
    });
    format!("http://{address}")
}

fn archive(directory: &Path, flags: &str) -> Vec<u8> {
    let output = Command::new("tar").arg("-C").arg(directory).args([flags, "-", "."]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn archives_and_dockerfiles_from_urls_are_contexts() {
    needs!(gate::root());
    let scratch = Scratch::new("url-context");
    let inside = scratch.join("inside");
    fs::create_dir_all(inside.join("deep")).unwrap();
    fs::write(inside.join("deep/f"), "from a URL").unwrap();
    fs::write(inside.join("Dockerfile"), "FROM scratch\nCOPY deep/f /f\n").unwrap();
    for flags in ["-czf", "-cJf", "-cjf", "-cf"] {
        let url = format!("{}/context", serve(archive(&inside, flags)));
        let (outcome, local) = files(&scratch, "s", Path::new(&url), &[]);
        outcome.done();
        assert_eq!(fs::read_to_string(local.join("f")).unwrap(), "from a URL", "{flags}");
    }
    let alone = serve(b"FROM scratch\nCOPY <<EOF /alone\nno context\nEOF\n".to_vec());
    let (outcome, local) = files(&scratch, "s", Path::new(&format!("{alone}/Dockerfile")), &[]);
    outcome.done();
    assert_eq!(fs::read_to_string(local.join("alone")).unwrap(), "no context\n");
    let wrong = format!("{}/Dockerfile?token=s3cret", serve(b"FROM scratch\nCOPPY a b\n".to_vec()));
    let named = format!("c={wrong}");
    for arguments in [&[][..], &["--build-context", &named]] {
        let context = if arguments.is_empty() { Path::new(&wrong) } else { &*inside };
        let outcome = build(&scratch.join("s"), context, arguments);
        let told = outcome.code == 1 && outcome.stderr.contains("/Dockerfile");
        assert!(told && !outcome.stderr.contains("s3cret"), "{}", outcome.stderr);
    }
}

#[test]
fn the_time_of_a_context_from_elsewhere_can_be_the_builds() {
    needs!(gate::root(), gate::path(DAEMON));
    let scratch = Scratch::new("context-time");
    let asked = ["--build-arg", "SOURCE_DATE_EPOCH=context"];
    let time = |context: &Path, file: &str| {
        let (outcome, local) = files(&scratch, "s", context, &asked);
        outcome.done();
        fs::metadata(local.join(file)).unwrap().mtime()
    };
    let served = Served::new(&scratch);
    let committed: i64 = served.git(&["show", "-s", "--format=%ct", "HEAD"]).parse().unwrap();
    assert_eq!(time(&PathBuf::from(format!("{}#main:sub", served.url)), "from-git"), committed);
    let inside = scratch.join("inside");
    fs::create_dir_all(&inside).unwrap();
    fs::write(inside.join("Dockerfile"), "FROM scratch\nCOPY f /f\n").unwrap();
    fs::write(inside.join("f"), "f").unwrap();
    for (name, seconds) in [("f", "@1000000007"), ("Dockerfile", "@1000000001"), (".", "@1000000003")] {
        call(Command::new("touch").args(["-d", seconds]).arg(inside.join(name)), LIMIT).done();
    }
    let at = |headers, content| PathBuf::from(format!("{}/context", serve_with(headers, content)));
    assert_eq!(time(&at("", archive(&inside, "-czf")), "f"), 1_000_000_007, "the newest entry");
    let changed = "Last-Modified: Sun, 09 Sep 2001 01:46:45 GMT\r\n";
    assert_eq!(time(&at(changed, archive(&inside, "-cf")), "f"), 1_000_000_005, "what the server says");
    let alone = b"FROM scratch\nCOPY <<EOF /alone\nno context\nEOF\n".to_vec();
    assert_eq!(time(&at(changed, alone), "alone"), 1_000_000_005);
    assert_eq!(time(&inside, "f"), 315_532_800, "a directory has no time that means anything");
}

#[test]
fn contexts_by_name_are_bases_and_sources() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("named");
    let layout = scratch.join("layout");
    let base = context(&scratch, "base", "COPY f /in-layout\nENV FROM_LAYOUT=1\n");
    fs::write(base.join("f"), "layout").unwrap();
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    build(&scratch.join("first"), &base, &["-t", "base:7", "-o", &output]).done();
    let directory = scratch.join("directory");
    fs::create_dir_all(directory.join("bin")).unwrap();
    fs::write(directory.join("bin/g"), "directory").unwrap();
    let url = format!("{}/x.tgz", serve(archive(&directory, "-czf")));
    let user = scratch.join("user");
    fs::create_dir(&user).unwrap();
    let text = "FROM layout\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo $FROM_LAYOUT > /one\"]\nFROM dir AS d\nCOPY --from=0 /one /in-layout /\nCOPY --from=url bin/g /from-url\n";
    fs::write(user.join("Dockerfile"), text).unwrap();
    let contexts = [
        format!("layout=oci-layout://{}:7", layout.display()),
        format!("dir={}", directory.display()),
        format!("url={url}"),
    ];
    let arguments: Vec<&str> = contexts.iter().flat_map(|text| ["--build-context", text]).collect();
    let (outcome, local) = files(&scratch, "second", &user, &arguments);
    outcome.done();
    let read = |name: &str| fs::read_to_string(local.join(name)).unwrap();
    assert_eq!((read("one"), read("in-layout")), ("1\n".into(), "layout".into()));
    assert_eq!((read("bin/g"), read("from-url")), ("directory".into(), "directory".into()));
    let wrong = format!("layout=oci-layout://{}:8", layout.display());
    let arguments = [&["--build-context", &wrong][..], &arguments[2..]].concat();
    build(&scratch.join("second"), &user, &arguments).failed(1, "has no such image");
    let unknown = build(&scratch.join("second"), &user, &["--build-context", "layout=ftp://host/x"]);
    unknown.failed(1, "this kind of --build-context is not known");
}

#[test]
fn a_step_has_a_socket_of_its_own_in_front_of_the_agent() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("agent");
    let agent = scratch.join("agent");
    let listener = std::os::unix::net::UnixListener::bind(&agent).unwrap();
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o600)).unwrap();
    let look = "[\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox stat -c '%a %u:%g %F %n' $SSH_AUTH_SOCK >> /seen\"]";
    let text = format!(
        "RUN --mount=type=ssh {look}\nRUN --mount=type=ssh,mode=0666,uid=5,gid=6,target=/run/a {look}\n"
    );
    let context = context(&scratch, "c", &text);
    let given = format!("default={}", agent.display());
    let (outcome, local) = files(&scratch, "s", &context, &["--ssh", &given]);
    outcome.done();
    let seen = fs::read_to_string(local.join("seen")).unwrap();
    let wanted = "600 0:0 socket /run/buildkit/ssh_agent.0\n666 5:6 socket /run/a\n";
    assert_eq!(seen, wanted);
    assert_eq!(fs::metadata(&agent).unwrap().permissions().mode() & 0o7777, 0o600, "the agent's own");
    drop(listener);
    fs::remove_file(&agent).unwrap();
    build(&scratch.join("s"), &context, &["--no-cache", "--ssh", &given])
        .failed(1, "there is no agent's socket");
}
