//! Device rules as the kernel enforces them, by version 1's files and by version 2's program.
#![allow(clippy::unwrap_used, reason = "test code")]

mod bed;

use std::fs;

use bed::{Bed, Process};
use hull_cgroup::{Cgroup, Layout};
use hull_testkit::{gate, needs};

/// Opens null and kmsg for reading, and says which ones it may.
const TRY: &str = "for d in null zero kmsg; do if : < /dev/$d; then echo $d; fi; done";

fn allowed(cgroup: &mut Cgroup) -> String {
    let mut process = Process::shell(TRY);
    cgroup.attach(process.pid()).unwrap();
    process.output().replace('\n', " ").trim().to_owned()
}

#[test]
fn only_allowed_devices_can_be_opened() {
    needs!(gate::root(), gate::path("/dev/kmsg"));
    let bed = Bed::new("devices");
    let kmsg = r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
    let rules = |json: &str| bed.plan("", json).unwrap().devices.unwrap();
    let mut made = bed.make("{}");
    let v1 = bed.layout() != Layout::V2;
    made.apply_devices(&rules("{}"), false).unwrap();
    assert_eq!(allowed(&mut made), "null zero");
    if v1 {
        assert_eq!(bed.read("devices", "devices.list").lines().count(), 11);
    }
    made.update_devices(&rules(kmsg), false).unwrap();
    assert_eq!(allowed(&mut made), "null zero kmsg");
    made.update_devices(&rules("{}"), false).unwrap();
    assert_eq!(allowed(&mut made), "null zero");
    made.update_devices(&rules(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#), false).unwrap();
    assert_eq!(allowed(&mut made), "null zero kmsg");
    made.update_devices(&rules("{}"), false).unwrap();
    assert_eq!(allowed(&mut made), "null zero");
}

#[test]
fn the_version_2_program_decides_and_is_replaced() {
    let bed = Bed::new("program");
    let tree = bed.hierarchies.facts().v2().map(drop).ok_or("needs a version 2 tree".to_owned());
    needs!(gate::root(), gate::path("/dev/kmsg"), tree);
    let _made = bed.make("{}");
    let mut side = bed.only(Layout::V2, str::is_empty);
    let rules = |json: &str| bed.plan("", json).unwrap().devices.unwrap();
    side.apply_devices(&rules("{}"), false).unwrap();
    assert_eq!(allowed(&mut side), "null zero");
    let kmsg = r#"{"devices":[{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
    for _ in 0..3 {
        side.update_devices(&rules(kmsg), false).unwrap();
        assert_eq!(allowed(&mut side), "null zero kmsg");
    }
    side.update_devices(&rules("{}"), false).unwrap();
    assert_eq!(allowed(&mut side), "null zero");
    let directory = fs::File::open(bed.file("", ".")).unwrap();
    use std::os::fd::AsFd;
    assert_eq!(hull_sys::bpf::device_programs(directory.as_fd()).unwrap().len(), 1);
}
