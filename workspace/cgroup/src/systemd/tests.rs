//! A systemd that does not do what it should, behind a bus of the tests' own.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, channel};

use hull_testkit::Scratch;

use super::wire::{ERROR, FIXED, REPLY, SIGNAL, answer, length, parse};
use super::*;

/// What the systemd answers to a call: messages in this order, each a kind (see [`STRANGERS`]), a name and texts.
type Answers = Vec<(u8, &'static str, Vec<&'static str>)>;

/// A bus on which `systemd` answers what is asked of the manager, until nobody has it any more.
struct FakeBus {
    place: Scratch,
    calls: Receiver<String>,
}

impl FakeBus {
    fn start(systemd: fn(&str) -> Answers) -> Self {
        let place = Scratch::new("systemd");
        let listener = UnixListener::bind(place.join("bus")).unwrap();
        let (called, calls) = channel();
        std::thread::spawn(move || {
            for peer in listener.incoming() {
                let called = called.clone();
                // One that is given up stays open while the next one is used.
                std::thread::spawn(move || {
                    serve(peer.unwrap(), |member| {
                        // Nobody listens once the test is over.
                        let _over = called.send(member.to_owned());
                        systemd(member)
                    });
                });
            }
        });
        Self { place, calls }
    }

    fn manager(&self, patience: Duration) -> Manager {
        Manager { socket: self.place.join("bus"), patience }
    }

    /// What was asked of systemd so far, without what each connection begins with.
    fn calls(&self) -> Vec<String> {
        let beginning = ["Hello", "AddMatch", "Subscribe"];
        self.calls.try_iter().filter(|call| !beginning.contains(&call.as_str())).collect()
    }
}

/// Answers one connection; what the bus itself is asked for is granted.
fn serve(mut peer: UnixStream, systemd: impl Fn(&str) -> Answers) {
    let mut reader = BufReader::new(peer.try_clone().unwrap());
    let mut line = Vec::new();
    for (wanted, said) in [("\0AUTH EXTERNAL\r\n", ""), ("DATA\r\n", "DATA\r\nOK 1f\r\n"), ("BEGIN\r\n", "")]
    {
        line.clear();
        reader.read_until(b'\n', &mut line).unwrap();
        assert_eq!(line, wanted.as_bytes());
        peer.write_all(said.as_bytes()).unwrap();
    }
    loop {
        let mut bytes = vec![0; FIXED];
        if reader.read_exact(&mut bytes).is_err() {
            return;
        }
        bytes.resize(length(&bytes).unwrap(), 0);
        reader.read_exact(&mut bytes[FIXED..]).unwrap();
        let serial = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
        // Of a property the call is known by as well.
        let zswap = if bytes.windows(5).any(|part| part == b"ZSwap") { " with ZSwap" } else { "" };
        let mut answers = systemd(&format!("{}{zswap}", parse(&bytes).unwrap().member));
        if answers.is_empty() {
            answers = vec![(REPLY, "", vec![])];
        }
        for (kind, name, texts) in answers {
            let sender = if kind & STRANGERS == 0 { (kind, ":1.1") } else { (kind & !STRANGERS, ":1.9") };
            if kind == SWAPPED {
                // A signal without fields and body.
                let _gone = peer.write_all(b"B\x04\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0");
                continue;
            }
            // Who asked may have given up.
            let _gone = peer.write_all(&answer(sender, serial, name, &texts));
        }
    }
}

fn unit() -> Unit {
    Unit { name: "p-c.scope".to_owned(), slice: "system.slice".to_owned(), user: false }
}

/// Stands for a message of the other byte order.
const SWAPPED: u8 = 0x40;
/// Marks the kind of a message that somebody else on the bus sends.
const STRANGERS: u8 = 0x80;

fn removed(job: &'static str, result: &'static str) -> (u8, &'static str, Vec<&'static str>) {
    (SIGNAL, "JobRemoved", vec![job, "p-c.scope", result])
}

const LONG: Duration = Duration::from_secs(60);
const JOB: &str = "/org/freedesktop/systemd1/job/7";

#[test]
fn a_job_that_does_not_end_is_given_up_and_what_it_made_is_stopped() {
    let bus = FakeBus::start(|member| match member {
        "StartTransientUnit" => {
            vec![(REPLY, "", vec![JOB]), removed("/org/freedesktop/systemd1/job/8", "done")]
        }
        "StopUnit" => vec![(REPLY, "", vec!["/job/9"]), removed("/job/9", "done")],
        _ => vec![],
    });
    let failed = bus.manager(Duration::from_secs(1)).start(&unit(), &[]).unwrap_err();
    assert_eq!(
        failed.to_string(),
        "unable to apply cgroup configuration: start unit p-c.scope: no answer in time"
    );
    assert_eq!(bus.calls(), ["StartTransientUnit", "StopUnit", "ResetFailedUnit"]);
}

#[test]
fn a_job_that_ends_otherwise_is_an_error() {
    let bus = FakeBus::start(|member| match member {
        "StartTransientUnit" => vec![(REPLY, "", vec![JOB]), removed(JOB, "canceled")],
        _ => vec![],
    });
    let failed = bus.manager(LONG).start(&unit(), &[]).unwrap_err();
    assert!(failed.to_string().ends_with("canceled"), "{failed}");
    assert_eq!(bus.calls(), ["StartTransientUnit"], "there is nothing to stop");
}

#[test]
fn a_job_may_end_before_it_is_named() {
    let bus = FakeBus::start(|member| match member {
        "StartTransientUnit" => vec![removed(JOB, "done"), (REPLY, "", vec![JOB])],
        _ => vec![],
    });
    bus.manager(LONG).start(&unit(), &[]).unwrap();
}

#[test]
fn the_end_of_a_job_is_told_by_systemd_alone() {
    let bus = FakeBus::start(|member| match member {
        "StartTransientUnit" => {
            let (kind, name, texts) = removed(JOB, "canceled");
            let forged = (kind | STRANGERS, name, texts);
            vec![forged.clone(), (REPLY, "", vec![JOB]), forged, removed(JOB, "done")]
        }
        _ => vec![],
    });
    bus.manager(LONG).start(&unit(), &[]).unwrap();
}

#[test]
fn what_strangers_send_is_passed_over() {
    let bus = FakeBus::start(|member| match member {
        "StartTransientUnit" => {
            // Longer than anything of systemd's, and of the other byte order.
            let long: &'static str = Box::leak("x".repeat(2 << 20).into_boxed_str());
            let strange = [(SIGNAL | STRANGERS, "Long", vec![long]), (SWAPPED, "", vec![])];
            strange.into_iter().chain([(REPLY, "", vec![JOB]), removed(JOB, "done")]).collect()
        }
        _ => vec![],
    });
    bus.manager(LONG).start(&unit(), &[]).unwrap();
}

#[test]
fn a_property_that_this_systemd_does_not_know_yet_is_left_to_the_file() {
    fn systemd(member: &str, version: &'static str) -> Answers {
        match member {
            "Get" => vec![(REPLY, "", vec![version])],
            "StartTransientUnit" | "StartTransientUnit with ZSwap" => {
                vec![(REPLY, "", vec![JOB]), removed(JOB, "done")]
            }
            _ => vec![],
        }
    }
    let (old, new) = (
        FakeBus::start(|member| systemd(member, "252.38-1~deb12u1")),
        FakeBus::start(|member| systemd(member, "253")),
    );
    let asked = [("MemoryMax", wire::Value::Number(1)), ("MemoryZSwapMax", wire::Value::Number(0))];
    for (bus, expected) in [(&old, ""), (&new, " with ZSwap")] {
        bus.manager(LONG).start(&unit(), &asked).unwrap();
        bus.manager(LONG).change(&unit(), &asked).unwrap();
        let (start, change) =
            (format!("StartTransientUnit{expected}"), format!("SetUnitProperties{expected}"));
        assert_eq!(bus.calls(), ["Get", &start, "Get", &change]);
    }
    old.manager(LONG).start(&unit(), &asked[..1]).unwrap();
    assert_eq!(old.calls(), ["StartTransientUnit"], "nothing hangs on the version");
}

#[test]
fn a_unit_of_this_name_that_runs_is_left_alone() {
    let bus = FakeBus::start(|member| match member {
        "StartTransientUnit" => {
            vec![(ERROR, "org.freedesktop.systemd1.UnitExists", vec!["Unit p-c.scope was already loaded"])]
        }
        _ => vec![],
    });
    let failed = bus.manager(LONG).start(&unit(), &[]).unwrap_err();
    assert!(failed.to_string().contains("already loaded"), "{failed}");
    assert_eq!(bus.calls(), ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
}

#[test]
fn a_unit_that_is_gone_is_stopped() {
    let bus = FakeBus::start(|member| match member {
        "StopUnit" => vec![(ERROR, NO_SUCH_UNIT, vec!["Unit p-c.scope not loaded."])],
        _ => vec![],
    });
    bus.manager(LONG).stop(&unit()).unwrap();
    assert_eq!(bus.calls(), ["StopUnit", "ResetFailedUnit"]);
}
