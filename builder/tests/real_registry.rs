//! Debian's registry: images go there and come back, builds are pushed, uploads break.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod distribution;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bed::{Bed, program};
use distribution::Real;
use hull_testkit::{gate, needs};
use serde_json::{Value, json};

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
fn each_layer_that_goes_or_comes_is_told_of() {
    let bed = Bed::new();
    let Some(real) = Real::start(&bed) else { return };
    bed.image("lab/a:1");
    let (first, second) =
        (format!("127.0.0.1:{}/x/a:1", real.port), format!("127.0.0.1:{}/y/b:1", real.port));
    let told = |bed: &Bed, words: &[&str]| {
        let output = bed.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    };
    let layer = bed.ok(&["inspect", "-f", "json", "lab/a:1"]);
    let layer: Value = serde_json::from_str(&layer).unwrap();
    let manifest = layer[0]["Descriptor"]["digest"].as_str().unwrap();
    let manifest = fs::read(bed.path("store/blobs/sha256").join(&manifest[7..])).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let short = manifest["layers"][0]["digest"].as_str().unwrap()[7..19].to_owned();
    let other = Bed::new();
    for (bed, words, wanted) in [
        (&bed, &["push", "-q", "lab/a:1", &first][..], ""),
        (&bed, &["push", "lab/a:1", &first], "Layer already exists"),
        (&bed, &["push", "lab/a:1", &second], "Mounted from x/a"),
        (&other, &["pull", &first], "Pull complete"),
        (&other, &["pull", &second], "Already exists"),
        (&other, &["pull", "-q", &second], ""),
    ] {
        let line = if wanted.is_empty() { String::new() } else { format!("{short}: {wanted}\n") };
        assert_eq!(told(bed, words), line, "{words:?}");
    }
    let elsewhere = Bed::new();
    let fresh = Real::start(&elsewhere).unwrap();
    let third = format!("127.0.0.1:{}/x/a:1", fresh.port);
    assert_eq!(told(&bed, &["push", "lab/a:1", &third]), format!("{short}: Pushed\n"));
    // On a terminal what moves is there at once, and goes when it is done.
    let Some(script) = program("script") else { return };
    let last = Bed::new();
    let command = last.command(&["pull", &first]);
    let mut terminal = Command::new(script);
    let line = format!("stty rows 24 cols 100; {} pull {first}", command.get_program().display());
    terminal.args(["-qec", &line, "/dev/null"]).env_clear().stdin(Stdio::null());
    terminal.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = terminal.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let wanted = ["Downloading [>", "\u{1b}[1A\u{1b}[J", "Extracting", "Pull complete\r\nDigest:"];
    let mut rest = &said[..];
    for part in wanted {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} in {said:?}"));
        rest = &rest[at..];
    }
}

const OWNED_BASE: &str = "mkdir -p bin dev etc home/app opt && cp /bin/busybox bin/busybox && ln -s busybox bin/sh && \
    printf 'root:x:0:0::/:/bin/sh\\napp:x:1000:1000::/home/app:/bin/sh\\n' > etc/passwd && echo x > home/app/f && \
    chown -R 1000:1000 home/app && chmod 700 home/app && echo x > opt/far && chown 70000:5 opt/far && \
    cp bin/busybox bin/su && chown 0:8 bin/su && chmod 4755 bin/su && mknod dev/null c 1 3 && ln dev/null dev/zero";
const ON_OWNED_BASE: &str = "USER app\nRUN /bin/busybox touch /home/app/mine\nUSER 0\nRUN /bin/busybox chown 3:4 /etc/passwd; /bin/busybox rm /bin/su\n";

#[test]
fn an_ordinary_user_builds_on_a_base_of_several_owners() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("newuidmap"), gate::program("setpriv"));
    let bed = Bed::new();
    let Some(real) = Real::start(&bed) else { return };
    for dir in ["root", "user", "context"] {
        fs::create_dir(bed.path(dir)).unwrap();
    }
    let shell = |script: &str, dir: &str| {
        let output =
            Command::new("unshare").args(["-m", "sh", "-c", script]).current_dir(bed.path(dir)).output();
        let output = output.unwrap();
        let [out, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.success(), out, error)
    };
    let archive = format!("{OWNED_BASE} && tar --numeric-owner -cf ../base.tar .");
    assert!(shell(&archive, "root").0);
    let (base, made) =
        (format!("127.0.0.1:{}/a/base:1", real.port), format!("127.0.0.1:{}/a/made:1", real.port));
    bed.ok(&["import", &bed.path("base.tar").display().to_string(), &base]);
    bed.ok(&["push", &base]);
    fs::write(bed.path("context/Dockerfile"), format!("FROM {base}\n{ON_OWNED_BASE}")).unwrap();
    let runtime = hull_testkit::runtime::under_test();
    let mut build = bed.command(&["build", "-q"]);
    let wanted = build.arg(bed.path("context")).env("HULL_BUILD_RUNTIME", &runtime).output().unwrap().stdout;
    // Programs may lie where others can't look: the user gets copies.
    fs::copy(env!("CARGO_BIN_EXE_hull-build"), bed.path("hull-build")).unwrap();
    fs::copy(runtime, bed.path("hull")).unwrap();
    let user = |ranges: &str, commands: &str| {
        fs::write(bed.path("ranges"), ranges).unwrap();
        let script = format!(
            "chmod 755 .. && rm -rf s && mkdir s && chown 65534:65534 . s && for f in /etc/subuid /etc/subgid; do \
             mount --bind ../ranges $f; done; export HULL_ROOT=$PWD/s HOME=$PWD HULL_BUILD_RUNTIME=$PWD/../hull; \
             b='setpriv --reuid=65534 --regid=65534 --clear-groups ../hull-build'; {commands}"
        );
        shell(&script, "user")
    };
    let all = format!(
        "$b pull -q {base} >&2 && $b build -q -t {made} ../context && $b push {made} >&2 && $b rmi {made} {base} >&2 && \
         $b prune -a -f >&2 && ls s/layers | wc -l"
    );
    let (done, out, error) = user("nobody:500000:65536\n", &all);
    assert!(done, "{error}");
    let wanted = String::from_utf8(wanted).unwrap();
    assert_eq!(out.lines().collect::<Vec<_>>(), [wanted.trim(), "0"], "{error}");
    let notice = "device nodes left out, which only root can make: 2; files of owners without an id here, which are root's now: 1";
    assert_eq!(error.matches(notice).count(), 1, "{error}");
    // The base's layer went on as it came: root still gets its devices and owners.
    let other = Bed::new();
    other.ok(&["pull", &made]);
    other.ok(&["run", "--rm", "--network=none", &made, "/bin/busybox", "test", "-c", "/dev/zero"]);
    let seen = shell(
        &format!("cd {}/store/layers/*/fs/opt && stat -c %u:%g far ../dev/null", other.dir.path().display()),
        "root",
    );
    assert_eq!(seen.1, "70000:5\n0:0\n", "{}", seen.2);
    // An archive with others' files and devices is a context as any other, and what ADD unpacks.
    let add = "echo 'FROM scratch\nADD base.tar /' > add && cp ../base.tar . && tar --owner=7 -cf ../context.tar add base.tar opt dev";
    assert!(shell(add, "root").0);
    // Without a range all is root's, which a step that is another user's is told.
    let all = format!(
        "$b pull -q {base} >&2; $b build -q ../context; $b build -q -f add - < ../context.tar >&2; stat -c %u s/layers/*/fs/home/app"
    );
    let (_, out, error) = user("", &all);
    assert_eq!(out, "65534\n65534\n", "{error}");
    assert!(error.contains("user 1000:1000 has no id here"), "{error}");
    let made = error.lines().rfind(|line| line.starts_with("sha256:"));
    assert!(made.is_some() && error.matches("which are root's now: 4").count() == 2, "{error}");
}

#[test]
fn where_no_namespace_can_be_had_images_come_and_go_as_files() {
    needs!(gate::root(), gate::program("setpriv"));
    let bed = Bed::new();
    let Some(real) = Real::start(&bed) else { return };
    let base = format!("127.0.0.1:{}/a/base:1", real.port);
    bed.image(&base);
    bed.ok(&["push", &base]);
    fs::create_dir(bed.path("context")).unwrap();
    fs::write(bed.path("context/Dockerfile"), format!("FROM {base}\nRUN true\n")).unwrap();
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && export HULL_ROOT=$PWD/user && \
                  $1 pull -q $2 && $1 save -o saved.tar $2 && $1 rmi $2 && $1 build context";
    let mut command = Command::new("unshare");
    command.args(["-U", "--map-user=65534", "--map-group=65534", "--keep-caps", "sh", "-c", script, "sh"]);
    command.args([env!("CARGO_BIN_EXE_hull-build"), &base]).current_dir(bed.dir.path());
    let output = command.output().unwrap();
    let [out, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(!output.status.success() && out.contains("Deleted: sha256:"), "{out}{error}");
    assert!(error.contains("root: forbidden here by sysctl user.max_user_namespaces is 0"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(fs::metadata(bed.path("saved.tar")).unwrap().len() > 1000);
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

#[test]
fn a_large_layer_is_sent_while_it_is_built_and_cancelled_when_the_build_fails() {
    needs!(gate::root());
    let bed = Bed::new();
    let Some(real) = Real::start(&bed) else { return };
    let context = bed.path("context");
    fs::create_dir(&context).unwrap();
    let mut seed = 1u64;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed ^ seed >> 29).to_le_bytes()
    });
    fs::write(context.join("noise"), noise.take(4 << 20).flatten().collect::<Vec<u8>>()).unwrap();
    let dockerfile = |text: &str| fs::write(context.join("Dockerfile"), text).unwrap();
    let place = context.display().to_string();
    let names = ["x/app:1", "y/app:2"].map(|name| format!("127.0.0.1:{}/{name}", real.port));
    dockerfile("FROM scratch\nCOPY noise /\nCOPY --chown=nobody Dockerfile /\n");
    assert!(bed.fails(&["build", "--push", "-t", &names[0], &place]).contains("nobody"));
    let repository = bed.path("registry/docker/registry/v2/repositories/x/app");
    // Of a cancelled upload this registry forgets the bytes and keeps the directory.
    let uploads = || fs::read_dir(repository.join("_uploads")).unwrap().map_while(Result::ok);
    let with_data = || uploads().filter(|upload| upload.path().join("data").exists()).count();
    assert!(repository.join("_uploads").is_dir() && with_data() == 0, "it was begun and is cancelled");
    assert!(!repository.join("_layers").exists());
    dockerfile("FROM scratch\nCOPY noise /\n");
    let mut arguments = vec!["build", "-q", "--no-cache", "--push"];
    arguments.extend(["-t", &names[0], "-t", &names[1], &place]);
    let id = bed.ok(&arguments);
    assert_eq!(with_data(), 0);
    let other = Bed::new();
    for name in &names {
        other.ok(&["pull", name]);
        assert_eq!(other.ok(&["inspect", "-f", "{{.Id}}", name]), id);
    }
    assert_eq!(other.ok(&["fsck"]), "0 problems\n");
}

/// Passes on to a port, and cuts the first connection on which so many bytes went there; tells all bytes that did.
fn cutting(port: u16, after: u64) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let total = Arc::new(AtomicU64::new(0));
    let (sum, cut) = (Arc::clone(&total), Arc::new(AtomicBool::new(false)));
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut to_client, mut from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                // Either end may go: that is the game.
                let _ = std::io::copy(&mut from_server, &mut to_client);
                let _ = to_client.shutdown(Shutdown::Both);
            });
            let (sum, cut) = (Arc::clone(&sum), Arc::clone(&cut));
            std::thread::spawn(move || relay(client, server, after, &sum, &cut));
        }
    });
    (own, total)
}

fn relay(mut client: TcpStream, mut server: TcpStream, after: u64, sum: &AtomicU64, cut: &AtomicBool) {
    let (mut buffer, mut passed) = (vec![0; 64 << 10], 0);
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        sum.fetch_add(count as u64, Ordering::Relaxed);
        passed += count as u64;
        if server.write_all(&buffer[..count]).is_err() || passed > after && !cut.swap(true, Ordering::Relaxed)
        {
            break;
        }
    }
    for end in [client, server] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

#[test]
fn a_real_registry_has_the_whole_image_after_a_broken_upload() {
    let bed = Bed::new();
    let Some(real) = Real::start(&bed) else { return };
    bed.image("lab/a:1");
    let mut state = 1u64;
    let noise: Vec<u8> = (0..12 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    fs::write(bed.path("rootfs/data/noise"), noise).unwrap();
    let id = bed.image("lab/a:1");
    let (port, total) = cutting(real.port, 8 << 20);
    bed.ok(&["push", "--retry-delay", "200ms", "lab/a:1", &format!("127.0.0.1:{port}/x/a:1")]);
    let sent = total.load(Ordering::Relaxed);
    // This one refuses an upload whose place it did not confirm itself: it is begun again.
    assert!((20 << 20..24 << 20).contains(&sent), "{sent} bytes: cut once, then sent");
    let other = Bed::new();
    let name = format!("127.0.0.1:{}/x/a:1", real.port);
    other.ok(&["pull", &name]);
    assert_eq!(other.ok(&["inspect", "-f", "{{.Id}}", &name]).trim(), id);
}

#[test]
fn an_index_of_several_platforms_is_made_changed_and_pushed() {
    let bed = Bed::new();
    let Some(real) = Real::start(&bed) else { return };
    let repository = format!("127.0.0.1:{}/x/a", real.port);
    let name = |tag: &str| format!("{repository}:{tag}");
    bed.image("lab/a:1");
    let archive = bed.path("rootfs.tar").display().to_string();
    bed.ok(&["import", "--platform", "linux/arm64", &archive, "lab/arm:1"]);
    bed.ok(&["push", "lab/arm:1", &name("arm")]);
    bed.ok(&["rmi", "lab/arm:1"]);
    // One is in the store, the other in the registry only.
    bed.ok(&["manifest", "create", "--annotation", "k=v", &name("all"), "lab/a:1", &name("arm")]);
    assert!(bed.fails(&["manifest", "create", &name("all"), "lab/a:1"]).contains("use --amend"));
    bed.ok(&[
        "manifest",
        "annotate",
        "--variant",
        "v8",
        "--annotation",
        "note=x",
        &name("all"),
        &name("arm"),
    ]);
    let index = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    let before = index(&bed.ok(&["manifest", "inspect", &name("all")]));
    let of = |index: &Value, field: &str| {
        let all = index["manifests"].as_array().unwrap();
        all.iter().map(|entry| entry["platform"][field].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        of(&before, "architecture"),
        [json!(hull_image::Platform::host().architecture), json!("arm64")]
    );
    assert_eq!(of(&before, "variant")[1], "v8");
    assert_eq!(
        (&before["annotations"]["k"], &before["manifests"][1]["annotations"]["note"]),
        (&json!("v"), &json!("x"))
    );
    assert_eq!(before["manifests"][0]["annotations"], Value::Null, "no name of the store's own");
    let digest = bed.ok(&["manifest", "push", "--purge", &name("all")]);
    assert!(bed.fails(&["manifest", "push", &name("all")]).contains("there is no"));
    // Now it is the registry's alone.
    let raw = bed.run(&["manifest", "inspect", "--raw", &name("all")]).stdout;
    assert_eq!(hull_image::Digest::of(&raw).to_string(), digest.trim());
    assert_eq!(index(&String::from_utf8(raw).unwrap()), before);
    let other = Bed::new();
    other.ok(&["pull", "--platform", "linux/arm64", &name("all")]);
    assert_eq!(other.ok(&["fsck"]), "0 problems\n");
    // In another repository the second image is neither here nor there.
    let elsewhere = format!("127.0.0.1:{}/y/b:1", real.port);
    bed.ok(&["manifest", "create", "--amend", "lab/list:1", &name("all")]);
    assert!(bed.fails(&["manifest", "push", "lab/list:1", &elsewhere]).contains("push it there first"));
}
