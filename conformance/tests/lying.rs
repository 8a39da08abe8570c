//! The suite can fail: runtimes that lie or leave something out are caught by the cases that are there for it.
//!
//! Each of them is a script before the real runtime. It is run on the requirements that it breaks and on one that it
//! keeps, and exactly the first have to fail.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::call::eventually;
use hull_testkit::runtime::{ours, under_test};
use hull_testkit::{Outcome, Scratch, call, gate, needs};
use serde_json::Value;

/// What comes before the lie: the command in `$verb`, the bundle in `$bundle`.
const HEAD: &str = r#"#!/bin/sh
real='REAL' previous='' bundle='' verb=''
for word; do
  [ "$previous" != --bundle ] || bundle=$word
  case $word in create|run|start|state|kill|delete|features) [ -n "$verb" ] || verb=$word ;; esac
  previous=$word
done
edit() { [ -z "$bundle" ] || [ ! -f "$bundle/config.json" ] || sed -i "$1" "$bundle/config.json"; }
"#;

/// A lie, the requirements that it breaks, and one that it keeps.
type Lie = (&'static str, &'static [&'static str], &'static str);

const LIES: [Lie; 17] = [
    (
        r#"[ "$verb" != state ] || { told=$("$real" "$@") || exit; echo "$told" | sed 's/"created"/"running"/'; exit; }"#,
        &["L2", "L9"],
        "L5",
    ),
    (
        r#"[ "$verb" != state ] || { told=$("$real" "$@") || exit; echo "$told" | sed 's/"annotations"/"notes"/'; exit; }"#,
        &["B11"],
        "L1",
    ),
    (r#"[ "$verb" != create ] || { "$real" "$@"; exit 0; }"#, &["B1", "L10"], "L15"),
    (r#"[ "$verb" != kill ] || set -- "$1" "$2" kill "$4" KILL"#, &["L19"], "L26"),
    (
        r#"[ "$verb" != delete ] || case " $* " in *" --force "*) ;; *) exit 0 ;; esac"#,
        &["L20", "L22", "H12"],
        "L14",
    ),
    (r#"[ "$verb" != start ] || exit 0"#, &["L13", "L15", "H11"], "L9"),
    (r#"edit 's/"poststop"/"poststopped"/'"#, &["H1", "H12", "H13", "H16"], "H6"),
    (r#"edit 's/"createRuntime"/"createRuntimes"/'"#, &["H2", "H6", "H8", "H17"], "H12"),
    (r#"edit 's/"readonly":true/"readonly":false/'"#, &["R2"], "R3"),
    (r#"edit 's/"noNewPrivileges":true/"noNewPrivileges":false/'"#, &["P16"], "P13"),
    (r#"edit 's/"maskedPaths"/"masked"/; s/"readonlyPaths"/"protected"/'"#, &["S15", "S16"], "S1"),
    (r#"edit 's/"seccomp"/"filter"/'"#, &["S2", "S3", "S6", "S7", "S9"], "S14"),
    (
        r#"edit 's/"rlimits"/"limits"/; s/"oomScoreAdj"/"oom"/; s/"umask"/"mask"/'"#,
        &["P9", "P10", "P17", "P25"],
        "P6",
    ),
    (r#"edit 's/"bounding":\[/"bounding":["CAP_SETGID",/'"#, &["P13"], "P24"),
    (r#"edit 's/{"type":"network"}/{"type":"cgroup"}/'"#, &["N2"], "N13"),
    (r#"edit 's/"pids":{/"p":{/; s/"memory":{/"m":{/'"#, &["C12", "C26"], "C16"),
    (
        r#"[ "$verb" != features ] || { echo '{"ociVersionMin":"1.2.0","ociVersionMax":"1.0.0"}'; exit; }"#,
        &["F1"],
        "F4",
    ),
];

/// The program that tells the lie.
fn liar(place: &Scratch, lie: &str) -> PathBuf {
    let path = place.join("liar");
    let head = HEAD.replace("REAL", &under_test().to_string_lossy());
    fs::write(&path, format!("{head}{lie}\nexec \"$real\" \"$@\"\n")).expect("write a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
    path
}

fn suite(runtime: &Path, words: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull-conformance"));
    command.arg("--runtime").arg(runtime).args(words).stdin(Stdio::null());
    call(&mut command, Duration::from_secs(200))
}

#[test]
fn each_lie_is_caught_by_the_cases_for_it() {
    needs!(gate::root(), ours());
    for (lie, broken, kept) in LIES {
        let place = Scratch::new("lie");
        let ids: Vec<&str> = broken.iter().chain([&kept]).flat_map(|id| ["--filter", *id]).collect();
        let outcome =
            suite(&liar(&place, lie), &[&["--format", "json", "--deadline", "9"], &ids[..]].concat());
        assert_eq!(outcome.code, 1, "{lie}\n{}{}", outcome.stdout, outcome.stderr);
        let document: Value = serde_json::from_str(&outcome.stdout).expect("a JSON document");
        let results = document["results"].as_array().expect("a list of results");
        let verdict =
            |id: &str| results.iter().find(|result| result["id"] == id).map(|result| &result["verdict"]);
        for id in broken {
            assert_eq!(verdict(id), Some(&Value::from("failed")), "{id} of {lie}\n{}", outcome.stdout);
        }
        assert_eq!(verdict(kept), Some(&Value::from("passed")), "{kept} of {lie}\n{}", outcome.stdout);
    }
}

#[test]
fn a_runtime_that_does_nothing_passes_nothing() {
    needs!(gate::root());
    let place = Scratch::new("nothing");
    for status in [0, 1] {
        let path = place.join("nothing");
        script(&path, &format!("exit {status}"));
        let ids = ["B4", "B5", "L7", "L13", "H3", "H17", "R5", "P5", "P10", "P12", "N4", "C5"];
        let words: Vec<&str> = ids.into_iter().flat_map(|id| ["--filter", id]).collect();
        let outcome = suite(&path, &[&["--format", "json", "--deadline", "5"], &words[..]].concat());
        assert_eq!(outcome.code, 1, "{}{}", outcome.stdout, outcome.stderr);
        let document: Value = serde_json::from_str(&outcome.stdout).expect("a JSON document");
        assert_eq!(document["counts"]["failed"], ids.len(), "status {status}\n{}", outcome.stdout);
    }
}

/// Directories that a case about paths of control groups makes a runtime make.
fn climbed() -> Vec<PathBuf> {
    let below = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let hierarchies = below(Path::new("/sys/fs/cgroup")).flat_map(|path| below(&path).collect::<Vec<_>>());
    let all = below(Path::new("/sys/fs/cgroup")).chain(hierarchies);
    all.filter(|path| path.to_string_lossy().contains("climbed-")).collect()
}

#[test]
fn what_a_runtime_makes_outside_of_the_hierarchies_is_seen_and_removed() {
    // On version 2 there is no file system above the hierarchy where anything could be made.
    needs!(gate::root(), ours(), gate::cgroup_v1());
    let place = Scratch::new("climb");
    let lie = r#"
path=$(sed -n 's/.*"cgroupsPath":"\([^"]*climbed[^"]*\)".*/\1/p' "$bundle/config.json" 2>/dev/null)
if [ "$verb" = create ] && [ -n "$path" ]; then
  group=/sys/fs/cgroup/${path##*/}
  mkdir -p "$group/inner" "/sys/fs/cgroup/memory/${path##*/}" && echo $$ >"$group/cgroup.procs"
  exit 0
fi"#;
    let outcome = suite(&liar(&place, lie), &["--filter", "C5", "--deadline", "20"]);
    assert_eq!(outcome.code, 1, "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("nothing outside of the hierarchy for /../climbed-"),
        "{}",
        outcome.stdout
    );
    assert_eq!(climbed(), Vec::<PathBuf>::new());
}

#[test]
fn a_runtime_that_never_answers_ends_at_the_deadline() {
    needs!(gate::root());
    let place = Scratch::new("hang");
    let path = place.join("hang");
    script(&path, "[ \"$1\" != --version ] || exec echo 'hang version 1'\nexec sleep 600");
    let outcome = suite(&path, &["--filter", "L25", "--deadline", "1"]);
    assert_eq!(outcome.code, 1, "{}", outcome.stdout);
    assert!(outcome.stdout.contains("no end before the deadline"), "{}", outcome.stdout);
}

/// Writes a runtime that is a script.
fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("write a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("make it executable");
}

#[test]
fn a_runtime_that_writes_without_end_is_stopped_with_what_it_started() {
    needs!(gate::root());
    let place = Scratch::new("flood");
    let path = place.join("flood");
    script(&path, &format!("yes & echo $! >>{}; wait", place.join("writers").display()));
    let outcome = suite(&path, &["--filter", "L25", "--format", "json", "--deadline", "100"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let document: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert!(document.to_string().contains("no end of its output"), "{document}");
    assert!(outcome.stdout.len() < 100_000, "{} bytes", outcome.stdout.len());
    let writers = fs::read_to_string(place.join("writers")).expect("the scripts' children");
    // One that is dead and not waited for yet has no program.
    let runs = |pid: &str| fs::read_link(Path::new("/proc").join(pid).join("exe")).is_ok();
    let ended = eventually(Duration::from_secs(20), || !writers.lines().any(runs));
    assert!(ended, "{writers}");
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    needs!(gate::root(), gate::cgroups(), ours());
    let place = Scratch::new("interrupt");
    let (path, reached) = (place.join("slow"), place.join("reached"));
    let real = under_test();
    // A container is there when the run is interrupted.
    script(
        &path,
        &format!(
            "case $* in *' start '*) echo $* >{}; sleep 600 ;; esac\nexec {} \"$@\"",
            reached.display(),
            real.display()
        ),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull-conformance"));
    let mut run = command
        .arg("--runtime")
        .arg(&path)
        .args(["--filter", "L15", "--deadline", "500"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the suite");
    let started = || fs::read_to_string(&reached).is_ok_and(|text| text.ends_with('\n'));
    assert!(eventually(Duration::from_secs(100), started));
    let line = fs::read_to_string(&reached).expect("the call that is going to be interrupted");
    let id = line.split_whitespace().last().expect("the container's name");
    let place_of_run = std::env::temp_dir().join(format!("oci-conformance-{}", run.id()));
    assert!(!named(id).is_empty() && place_of_run.exists(), "what is to be cleared up is not there");
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("interrupt the suite");
    assert_eq!(run.wait().expect("wait for the suite").code(), Some(130));
    assert_eq!(named(id), Vec::<PathBuf>::new());
    assert!(!place_of_run.exists(), "{}", place_of_run.display());
}

/// The control groups of this name.
fn named(id: &str) -> Vec<PathBuf> {
    let tree = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(tree).into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies.chain([tree.to_path_buf()]).map(|at| at.join(id)).filter(|path| path.exists()).collect()
}

#[test]
fn results_are_valid_for_readers_of_their_formats() {
    needs!(gate::root(), ours(), gate::program("python3"));
    // L21 fails, L5 passes, F3 is skipped.
    let words = ["--filter", "L21", "--filter", "L5", "--filter", "F3", "--format"];
    let runtime = under_test();
    let read = |format: &str, script: &str| {
        let outcome = suite(&runtime, &[&words[..], &[format]].concat());
        let place = Scratch::new("format");
        fs::write(place.join("out"), &outcome.stdout).expect("write the output");
        let mut python = Command::new("python3");
        python.arg("-c").arg(script).arg(place.join("out")).stdin(Stdio::null());
        call(&mut python, Duration::from_secs(60)).text().to_owned()
    };
    let junit = "import sys, xml.etree.ElementTree as tree\n\
                 suite = tree.parse(sys.argv[1]).getroot().find('testsuite')\n\
                 kinds = [[child.tag for child in case] for case in suite.findall('testcase')]\n\
                 print(suite.get('tests'), suite.get('failures'), suite.get('skipped'), kinds)";
    assert_eq!(read("junit", junit), "3 1 1 [[], ['failure'], ['skipped']]");
    let json = "import sys, json\nfound = json.load(open(sys.argv[1]))\n\
                print([result['verdict'] for result in found['results']], found['counts'])";
    assert_eq!(
        read("json", json),
        "['passed', 'failed', 'skipped'] {'failed': 1, 'passed': 1, 'skipped': 1}"
    );
    let tap = "import sys, re\nlines = open(sys.argv[1]).read().splitlines()\n\
               assert lines[:2] == ['TAP version 13', '1..3'], lines\n\
               print([line.split(' - ')[0] + (' SKIP' if ' # SKIP ' in line else '') for line in lines if re.match('(not )?ok ', line)])";
    assert_eq!(read("tap", tap), "['ok 1', 'not ok 2', 'ok 3 SKIP']");
}

#[test]
fn exit_statuses_tell_failures_from_bad_usage() {
    needs!(gate::root(), ours());
    let runtime = under_test();
    assert_eq!(suite(&runtime, &["--filter", "L5"]).code, 0);
    assert_eq!(suite(&runtime, &["--filter", "L21"]).code, 1);
    assert_eq!(suite(&runtime, &["--filter", "L21", "--todo", "L21"]).code, 0);
    assert_eq!(suite(&runtime, &["--filter", "there is no such thing"]).code, 2);
    assert_eq!(suite(&runtime, &["--level", "perhaps"]).code, 2);
    assert_eq!(suite(Path::new("/nowhere/runtime"), &["--filter", "L5"]).code, 2);
    assert_eq!(suite(&runtime, &["--filter", "L5", "--todo", "L2l"]).code, 2);
    let place = Scratch::new("plain");
    fs::write(place.join("plain"), "no program").expect("write a file");
    assert_eq!(suite(&place.join("plain"), &["--filter", "L5"]).code, 2);
}
