//! Builds beside what takes things away from their store: prune, rmi, fsck and SIGKILL.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod making;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use hull_testkit::call::eventually;
use hull_testkit::{Outcome, Scratch, call, gate, needs, place};

use making::{LIMIT, build, builder, context, steps_of};

const STEPS: &str = "RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN mkdir /d && for i in 1 2 3; do echo $i > /d/$i; done\nCOPY . /ctx\nRUN rm -r /d; echo x > /x\n";

fn call_on(store: &Path, words: &[&str]) -> Outcome {
    let mut command = Command::new(place::program("hull-build"));
    call(command.args(words).env("HULL_ROOT", store).stdin(Stdio::null()), LIMIT)
}

/// Does something again and again until it is over; how often it worked.
fn meanwhile(over: &AtomicBool, act: impl Fn() -> bool) -> u32 {
    let mut worked = 0;
    while !over.load(Ordering::Relaxed) {
        worked += u32::from(act());
        std::thread::sleep(Duration::from_millis(20));
    }
    worked
}

/// Ends what is done meanwhile, also where the test panics: a scope waits for all of its threads.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn builds_beside_prune_rmi_fsck_and_kills_give_the_undisturbed_image() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("beside");
    let context = context(&scratch, "c", STEPS);
    let store = scratch.join("s");
    let wanted = build(&scratch.join("clean"), &context, &["-q"]).text().to_owned();
    let (over, killed) = (AtomicBool::new(false), AtomicU32::new(0));
    // Who takes away is for himself: while a build is on, he says so and takes nothing.
    let takes_away = |words: &[&str]| {
        let outcome = call_on(&store, words);
        let is_busy = outcome.stderr.contains("in use by another process");
        assert!(outcome.code == 0 || is_busy, "{words:?}: {}", outcome.stderr);
        outcome.code == 0
    };
    let kill = || {
        let mut command = builder(&store, &context, &["-q", "--no-cache"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(killed.load(Ordering::Relaxed)) * 37 % 300));
        child.kill().unwrap();
        killed.fetch_add(u32::from(!child.wait().unwrap().success()), Ordering::Relaxed);
        let gone = eventually(LIMIT, || steps_of(child.id(), &store).is_empty());
        assert!(gone, "{:?} is left", steps_of(child.id(), &store));
        true
    };
    std::thread::scope(|scope| {
        let until = Over(&over);
        let others = [
            scope.spawn(|| meanwhile(&over, || takes_away(&["prune", "-a", "-f"]))),
            scope.spawn(|| meanwhile(&over, || takes_away(&["rmi", "-f", "b0", "b1", "b2"]))),
            scope.spawn(|| meanwhile(&over, || takes_away(&["fsck"]))),
            scope.spawn(|| meanwhile(&over, kill)),
        ];
        let builds: Vec<_> = (0..3)
            .map(|number| {
                let (store, context, name) = (&store, &context, format!("b{number}"));
                scope.spawn(move || {
                    let fresh: &[&str] = if number == 0 { &["--no-cache"] } else { &[] };
                    let flags = [&["-q", "-t", &name], fresh].concat();
                    (0..6).map(|_| build(store, context, &flags)).collect::<Vec<_>>()
                })
            })
            .collect();
        let outcomes: Vec<_> = builds.into_iter().flat_map(|build| build.join().unwrap()).collect();
        drop(until);
        let worked = others.map(|other| other.join().unwrap());
        for outcome in outcomes {
            assert_eq!(outcome.text(), wanted, "{}", outcome.stderr);
        }
        assert!(worked[1] > 0 && worked[2] > 0, "rmi and fsck are not kept out: {worked:?}");
    });
    assert!(killed.load(Ordering::Relaxed) > 0, "no build was killed: the test shows little");
    assert_eq!(build(&store, &context, &["-q", "-t", "last"]).text(), wanted);
    call_on(&store, &["fsck"]).done();
    call_on(&store, &["rmi", "last"]).done();
    call_on(&store, &["prune", "-a", "-f"]).done();
    assert_eq!(
        std::fs::read_dir(store.join("blobs/sha256")).unwrap().count(),
        0,
        "nothing is left that nobody needs"
    );
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*store.to_string_lossy()), "a mount stayed");
}
