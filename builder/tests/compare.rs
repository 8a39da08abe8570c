//! The corpus once more, beside buildah: configurations and flattened trees are equal, or the difference is listed here.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use hull_image::Store;
use hull_layer::Kind;
use hull_testkit::{Outcome, Scratch, call, gate, needs, place, runtime};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// What Debian's buildah (1.28) can't build, by the beginning of the case's name.
const UNSUPPORTED: [&str; 16] = [
    // A flag or form that it lacks.
    "config-healthcheck",
    "copy-chmod-reaches-new-parents",
    "copy-chmod-symbolic",
    "copy-exclude",
    "copy-link",
    "copy-parents",
    "heredoc-",
    "mount-cache-private",
    "mount-options-hold-variables",
    "mount-tmpfs",
    "run-network-none",
    "variables-forms",
    // A pattern that fits nothing is an error to it, and so is a stage that comes later.
    "copy-wildcard-may-fit-nothing",
    "stage-copy-from-later-stage",
    // It tells stages apart by their case.
    "stage-name-case",
    // It makes the directory of a VOLUME, so that mkdir fails.
    "config-volume-keeps-later-changes",
];
/// Where results differ: the case, every setting and path that does, and why this project's result is the right one.
const DIFFERENT: [(&str, &[&str], &str); 15] = [
    ("arg-platform", &["o"], "TARGETSTAGE is BuildKit's"),
    ("arg-stage-inherits", &["o"], "a stage has the ARGs of the stage that it begins with"),
    ("config-expose", &["setting ExposedPorts"], "a range of ports is each of its ports"),
    ("config-shell-form", &["setting Cmd"], "CMD in shell form is for the SHELL before it"),
    ("config-volume", &["a", "b c"], "VOLUME makes no directory: the engine does"),
    ("copy-chmod-octal", &["s"], "--chmod is for the copied directory too"),
    (
        "copy-follows-destination-link-to-file",
        &["d/in/link", "d/in/old", "d/new", "d/new/a"],
        "a destination that is a link to a file, or to nothing, is followed",
    ),
    ("ignore-hides-from-bind-mounts", &["o"], "the context of a mount is that of COPY"),
    (
        "mount-bind-link-stays-inside",
        &["o"],
        "a link is resolved in the stage that it is in, not on the host",
    ),
    (
        "mount-bind-writes-are-discarded",
        &["o"],
        "what RUN writes into a bind mount is thrown away, with the step's end",
    ),
    (
        "mount-cache-id-cannot-escape",
        &["o"],
        "an id is no path: buildah shows the host's /etc (CVE-2024-9675)",
    ),
    ("parse-escape-directive", &["setting Env"], "the escape directive is for variables too"),
    ("run-epoch-of-a-directory", &["o"], "the word \"context\" is BuildKit's: the time of the context"),
    ("run-hosts-file-of-the-image-stays", &["o"], "the builder's own name is hull-build everywhere"),
    ("run-times-are-the-build-time", &["o"], "everything new has the build's one time"),
];
/// Cases about the sandbox itself: buildah's is another one.
const SANDBOX: [&str; 3] = [
    // Buildah leaves the process on the host.
    "run-background-process-ends",
    "run-namespaces",
    "run-proc-is-masked",
];
/// What buildah leaves in images that RUN was used in: places of its mounts, which BuildKit removes as this project does.
const LEFT: [&str; 9] =
    ["dev", "etc", "etc/hostname", "etc/hosts", "etc/resolv.conf", "proc", "run", "run/secrets", "sys"];
/// The settings that are compared; one that is absent is the same as an empty one.
const SETTINGS: [&str; 13] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Shell",
    "OnBuild",
    "Healthcheck",
    "ArgsEscaped",
];

#[test]
fn images_are_those_of_buildah() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("buildah"));
    let scratch = Scratch::new("compare");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut cases: Vec<PathBuf> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    let only = std::env::var("CORPUS_ONLY").unwrap_or_default();
    cases.retain(|case| case.to_string_lossy().contains(&only) && is_comparable(case));
    cases.sort();
    base(&scratch);
    let (wrong, queue) = (Mutex::new(Vec::new()), Mutex::new(cases.iter()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(case) = { queue.lock().unwrap().next() } {
                    let found = compare(&scratch, case);
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} cases", cases.len());
}

/// Cases that build without flags, from their own files alone.
fn is_comparable(case: &Path) -> bool {
    let name = case.file_name().unwrap().to_string_lossy().into_owned();
    let expect = fs::read_to_string(case.join("expect")).unwrap();
    let keys = ["args:", "env:", "stdin:", "context:", "fails:", "script:"];
    let plain = !expect.lines().any(|line| keys.iter().any(|key| line.starts_with(key)));
    plain && !UNSUPPORTED.iter().chain(&SANDBOX).any(|start| name.starts_with(start))
}

/// Builds with both; what is unexpected, or expected and not so.
fn compare(scratch: &Scratch, case: &Path) -> Option<String> {
    let name = case.file_name().unwrap().to_string_lossy().into_owned();
    // Each has a copy: buildah lets RUN change its context through a mount (CVE-2025-4953).
    let context = |builder: &str| {
        let copy = scratch.join(format!("{builder}-{name}"));
        call(Command::new("cp").arg("-a").arg(case).arg(&copy), LIMIT).done();
        fs::remove_file(copy.join("expect")).unwrap();
        copy
    };
    let ours = call(hull(scratch).args(["build", "-q", "-t", &name]).arg(context("ours")), LIMIT);
    let archive = format!("oci:{}:{name}", scratch.join(format!("layout-{name}")).display());
    let theirs = buildah(
        scratch,
        &[
            "build",
            "-q",
            "--format",
            "docker",
            "--identity-label=false",
            "-t",
            &name,
            &context("theirs").to_string_lossy(),
        ],
    );
    if ours.code != 0 || theirs.code != 0 {
        return Some(format!(
            "{name}: hull-build {}: {}\nbuildah {}: {}",
            ours.code, ours.stderr, theirs.code, theirs.stderr
        ));
    }
    buildah(scratch, &["push", "-q", "--disable-compression", "--format", "v2s2", &name, &archive]).done();
    let one = Summary::of(scratch, &scratch.join("store"), &name);
    let other = Summary::of(scratch, &scratch.join(format!("layout-{name}")), &name);
    let found = one.differs_from(&other);
    let listed = DIFFERENT.iter().find(|(case, ..)| *case == name).map_or(&[][..], |(_, what, _)| what);
    let is_listed = |key: &String| listed.contains(&key.as_str());
    let gone: Vec<&&str> = listed.iter().filter(|key| !found.contains_key(**key)).collect();
    let new: Vec<&str> =
        found.iter().filter(|(key, _)| !is_listed(key)).map(|(_, line)| line.as_str()).collect();
    match (new.is_empty(), gone.is_empty()) {
        (true, true) => None,
        (false, _) => Some(format!("{name}:\n{}", new.join("\n"))),
        (true, false) => Some(format!("{name} is equal, and listed as different, in {gone:?}")),
    }
}

/// What an image is: its settings, and a line for each path of its tree.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    lines: BTreeMap<String, String>,
}

impl Summary {
    fn of(scratch: &Scratch, layout: &Path, name: &str) -> Self {
        let store = Store::open(layout).unwrap();
        let tagged = store.find(name).unwrap();
        let image = store.image(&tagged.descriptor, None).unwrap();
        let root = scratch.join(hull_testkit::place::unique("root"));
        fs::create_dir(&root).unwrap();
        let fd = fs::File::open(&root).unwrap();
        hull_layer::Unpacker::new(&store).apply(&image, fd.as_fd()).unwrap();
        let mut lines = tree(&root);
        let config = serde_json::to_value(&image.config).unwrap();
        for name in SETTINGS {
            let value = config.pointer(&format!("/config/{name}")).cloned().unwrap_or(Value::Null);
            lines.insert(
                format!("setting {name}"),
                if is_empty(&value) { String::new() } else { value.to_string() },
            );
        }
        fs::remove_dir_all(&root).unwrap();
        Self { lines }
    }

    /// BuildKit writes the directory / into images that begin from nothing, buildah none.
    fn is_root_directory(&self, other: &Self, key: &str) -> bool {
        let value = |of: &Self| of.lines.get(key).cloned().unwrap_or_default();
        key == "setting WorkingDir" && value(self) == "\"/\"" && value(other).is_empty()
    }

    /// What only one has, or what is different, with a line that says how.
    fn differs_from(&self, other: &Self) -> BTreeMap<String, String> {
        let keys = self.lines.keys().chain(other.lines.keys()).collect::<std::collections::BTreeSet<_>>();
        keys.into_iter()
            .filter(|key| self.lines.get(*key) != other.lines.get(*key))
            .filter(|key| !LEFT.contains(&key.as_str()) || self.lines.contains_key(*key))
            .filter(|key| !self.is_root_directory(other, key))
            .map(|key| {
                let [ours, theirs] = [self, other].map(|one| one.lines.get(key));
                (key.clone(), format!("  {key}: ours {ours:?}, theirs {theirs:?}"))
            })
            .collect()
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

/// Kind, mode, owner, attributes and content of everything below a directory; no times.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let fd = fs::File::open(root).unwrap();
    let line = |entry: hull_layer::Entry| {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let what = match &entry.kind {
            Kind::File { .. } => {
                use std::os::unix::ffi::OsStrExt;
                let path = root.join(std::ffi::OsStr::from_bytes(&entry.path));
                format!("file {}", hull_image::Digest::of(&fs::read(path).unwrap()))
            }
            kind => format!("{kind:?}"),
        };
        (path, format!("{what} {:04o} {}:{} {:?}", entry.mode, entry.uid, entry.gid, entry.xattrs))
    };
    hull_layer::list(fd.as_fd()).unwrap().into_iter().map(line).collect()
}

/// The image that cases begin with, made by this project and loaded into buildah.
fn base(scratch: &Scratch) {
    let context = scratch.join("base");
    fs::create_dir(&context).unwrap();
    fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    for (name, text) in [("Dockerfile", BASE), ("passwd", PASSWD), ("group", GROUP)] {
        fs::write(context.join(name), text).unwrap();
    }
    let archive = scratch.join("base.tar").display().to_string();
    let output = format!("type=docker,dest={archive}");
    call(hull(scratch).args(["build", "-q", "-t", "base", "-o", &output]).arg(&context), LIMIT).done();
    let loaded = buildah(scratch, &["pull", "-q", &format!("docker-archive:{archive}")]);
    buildah(scratch, &["tag", loaded.text(), "localhost/base"]).done();
}

const BASE: &str = include_str!("base/Dockerfile");
const PASSWD: &str = include_str!("base/passwd");
const GROUP: &str = include_str!("base/group");

fn hull(scratch: &Scratch) -> Command {
    let mut command = Command::new(place::program("hull-build"));
    command.env("HULL_ROOT", scratch.join("store")).env("HULL_BUILD_RUNTIME", runtime::under_test());
    command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::null());
    command
}

/// buildah with a store of its own, in a mount namespace of its own: its store mounts itself.
fn buildah(scratch: &Scratch, arguments: &[&str]) -> Outcome {
    let mut command = Command::new("unshare");
    command.args(["-m", "buildah", "--storage-driver", "overlay", "--root"]).arg(scratch.join("theirs"));
    command.arg("--runroot").arg(scratch.join("theirs-run")).args(arguments);
    call(command.env("BUILDAH_ISOLATION", "chroot").stdin(Stdio::null()), LIMIT)
}

#[test]
fn a_changed_mode_owner_content_or_link_is_a_difference() {
    needs!(gate::root());
    let scratch = Scratch::new("compare-control");
    let make = |name: &str, script: &str| {
        let root = scratch.join(name);
        fs::create_dir(&root).unwrap();
        let all = format!("set -e; echo x > f; ln -s f l; mkdir d; {script}");
        call(Command::new("sh").args(["-c", &all]).current_dir(&root), LIMIT).done();
        Summary { lines: tree(&root) }
    };
    let plain = make("plain", "true");
    assert!(plain.differs_from(&make("same", "touch -d 2001-01-01 f")).is_empty(), "times don't count");
    for (name, script) in [
        ("mode", "chmod 600 f"),
        ("owner", "chown 1:1 d"),
        ("content", "echo y > f"),
        ("link", "ln -sf g l"),
        ("more", "touch z"),
        ("less", "rm f"),
    ] {
        let difference = plain.differs_from(&make(name, script));
        assert_eq!(difference.len(), 1, "{name}: {difference:?}");
    }
}
