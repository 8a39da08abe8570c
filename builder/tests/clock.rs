//! The same bytes an hour, a day and a month later. The clock is set, so only in a machine of its own (integration/vm).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod making;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hull_testkit::{Outcome, Scratch, call, gate, needs, place, runtime};
use serde_json::Value;

use making::context;

/// Emulation takes its time.
const LIMIT: Duration = Duration::from_secs(300);

const STEPS: &str = "RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN echo the clock shows $(date +%s)\nRUN mkdir /d && echo $HOSTNAME > /d/f && touch /d/g; ln /d/f /d/h; chown 5:6 /d/g\nCOPY --chown=7:8 . /ctx\nADD some.tar /unpacked/\nRUN rm -r /d && mkdir -m 1777 /d\nUSER 7:8\nWORKDIR /home/own\nRUN umask > f\nLABEL a=b\nFROM scratch AS other\nCOPY --from=0 /ctx /ctx\nFROM one\nCOPY --link --from=other /ctx/busybox /b\n";

/// One build: what differs from the others.
struct Way {
    /// How much later than the first, in seconds.
    later: u64,
    /// The range of ids of an ordinary user; root without one.
    range: Option<&'static str>,
    umask: &'static str,
    locale: [&'static str; 2],
    jobs: &'static str,
}

const WAYS: [Way; 4] = [
    Way { later: 0, range: None, umask: "022", locale: ["UTC", "C"], jobs: "7" },
    Way {
        later: 3600,
        range: Some("100000:65536"),
        umask: "077",
        locale: ["Pacific/Kiritimati", "tr_TR.UTF-8"],
        jobs: "1",
    },
    Way { later: 86400, range: None, umask: "000", locale: ["America/St_Johns", "C.UTF-8"], jobs: "2" },
    Way {
        later: 30 * 86400,
        range: Some("300000:65536"),
        umask: "027",
        locale: ["EST5EDT", "POSIX"],
        jobs: "3",
    },
];

#[test]
fn a_build_gives_the_same_bytes_an_hour_a_day_and_a_month_later() {
    needs!(gate::root(), gate::own_clock(), gate::path("/bin/busybox"), gate::program("newuidmap"));
    let scratch = Scratch::new("clock");
    call(Command::new("chmod").arg("755").arg(scratch.path()), LIMIT).done();
    // The tree may lie where only root can look.
    for (from, to) in [(place::program("hull-build"), "hull-build"), (runtime::under_test(), "hull")] {
        fs::copy(from, scratch.join(to)).unwrap();
    }
    let clock = Clock::read();
    let mut first: Option<(u64, Vec<String>)> = None;
    for (number, way) in WAYS.iter().enumerate() {
        clock.set(way.later);
        let place = scratch.join(number.to_string());
        fs::create_dir(&place).unwrap();
        let outcome = built(&scratch, &place, way);
        outcome.done();
        let (shown, digests) = (shown(&outcome), digests(&place.join("store")));
        let (begin, wanted) = first.get_or_insert_with(|| (shown, digests.clone()));
        let later = shown - *begin;
        let expected = way.later..way.later + 1800;
        assert!(expected.contains(&later), "steps saw a clock {later} s after the first, not {}", way.later);
        assert_eq!(&digests, wanted, "{} s later: {}", way.later, outcome.stderr);
    }
}

/// Builds in a new context and on a new store in `place`.
fn built(scratch: &Scratch, place: &Path, way: &Way) -> Outcome {
    let context =
        context(scratch, &format!("{}/context", place.file_name().unwrap().to_str().unwrap()), STEPS);
    let dockerfile = fs::read_to_string(context.join("Dockerfile")).unwrap();
    let dockerfile = dockerfile.replacen("FROM scratch\n", "FROM scratch AS one\n", 1);
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    fs::write(context.join("f"), "f").unwrap();
    call(
        Command::new("tar").args(["--mtime=2001-02-03", "-cf", "some.tar", "f"]).current_dir(&context),
        LIMIT,
    )
    .done();
    let ranges = way.range.map(|range| format!("user:{range}\n")).unwrap_or_default();
    fs::write(place.join("ranges"), ranges).unwrap();
    let script = "cd $1 && mkdir store && for f in /etc/subuid /etc/subgid; do mount --bind ranges $f; done; \
                  as=; if [ -s ranges ]; then chown -R user:user store context; \
                  as='setpriv --reuid=user --regid=user --clear-groups'; fi; umask $2; \
                  $as ../hull-build build --progress plain --jobs $3 -t it context";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(place).args([way.umask, way.jobs]);
    command.env("HULL_ROOT", place.join("store")).env("HULL_BUILD_RUNTIME", scratch.join("hull"));
    command.env("TZ", way.locale[0]).env("LC_ALL", way.locale[1]).env_remove("SOURCE_DATE_EPOCH");
    call(command.stdin(Stdio::null()), LIMIT)
}

/// The time that a step was shown.
fn shown(outcome: &Outcome) -> u64 {
    let (_, rest) = outcome.stderr.rsplit_once("the clock shows ").unwrap();
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// The digests of the only image of a store: its manifest, its configuration, its layers.
fn digests(store: &Path) -> Vec<String> {
    let document = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let text = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    let index = document(&store.join("index.json"));
    let [image] = &index["manifests"].as_array().unwrap()[..] else { panic!("not one image: {index}") };
    let manifest = document(&store.join("blobs").join(text(image).replace(':', "/")));
    let layers = manifest["layers"].as_array().unwrap();
    assert!(layers.len() >= 9, "{manifest}");
    [image, &manifest["config"]].into_iter().chain(layers).map(text).collect()
}

/// The machine's clock, which is put back when this goes.
struct Clock {
    began: Duration,
    since: Instant,
}

impl Clock {
    fn read() -> Self {
        Self { began: SystemTime::now().duration_since(UNIX_EPOCH).unwrap(), since: Instant::now() }
    }

    /// Sets it to what it would be, and so much on.
    fn set(&self, later: u64) {
        let time = (self.began + self.since.elapsed()).as_secs() + later;
        call(Command::new("date").arg("-s").arg(format!("@{time}")), LIMIT).done();
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.set(0);
    }
}
