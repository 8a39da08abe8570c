use super::*;

fn configured(json: &str) -> Vec<LinuxDeviceCgroup> {
    serde_json::from_str(json).unwrap()
}

fn rules(json: &str) -> DeviceRules {
    DeviceRules::read(&configured(json), true).unwrap()
}

/// Runs a program as the kernel would: an independent reading of the instruction format.
fn run(program: &[u64], kind: u64, access: u64, major: u64, minor: u64) -> u64 {
    let context = [access << 16 | kind, major, minor];
    let mut registers = [0_u64; 11];
    let mut at = 0;
    loop {
        let bytes = program[at].to_le_bytes();
        let (to, from) = (usize::from(bytes[1] & 15), usize::from(bytes[1] >> 4));
        let offset = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        let value = u64::from(u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]));
        at += 1;
        match bytes[0] {
            0x61 => registers[to] = context[offset / 4],
            0xb7 => registers[to] = value,
            0xbf => registers[to] = registers[from],
            0x57 => registers[to] &= value,
            0x77 => registers[to] >>= value,
            0x05 => at += offset,
            0x56 if registers[to] as u32 != value as u32 => at += offset,
            0x46 if registers[to] as u32 & value as u32 != 0 => at += offset,
            0x56 | 0x46 => {}
            0x95 => return registers[0],
            code => panic!("instruction {code:#x}"),
        }
    }
}

const BLOCK: u64 = 1;
const CHARACTER: u64 = 2;
const MKNOD: u64 = 1;
const READ: u64 = 2;
const WRITE: u64 = 4;

#[test]
fn without_rules_only_the_default_devices_are_allowed() {
    let program = rules("[]").program();
    let cases = [
        (CHARACTER, READ | WRITE, 1, 3, 1),
        (CHARACTER, READ | WRITE, 136, 77, 1),
        (CHARACTER, MKNOD, 99, 99, 1),
        (BLOCK, MKNOD, 8, 0, 1),
        (BLOCK, READ, 8, 0, 0),
        (BLOCK, READ | MKNOD, 8, 0, 0),
        (CHARACTER, READ, 1, 11, 0),
        (BLOCK, READ, 1, 3, 0),
    ];
    for (kind, access, major, minor, expected) in cases {
        assert_eq!(run(&program, kind, access, major, minor), expected, "{kind} {access} {major}:{minor}");
    }
}

#[test]
fn the_last_matching_rule_decides_each_access() {
    let json = r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"},
        {"allow":false,"type":"c","major":10,"minor":4000000000,"access":"rw"},
        {"allow":true,"type":"b","major":8,"minor":1,"access":"w"}]"#;
    let program = DeviceRules::read(&configured(json), false).unwrap().program();
    let cases = [
        (BLOCK, READ, 8, 0, 1),
        (BLOCK, WRITE, 8, 0, 0),
        (BLOCK, READ | WRITE, 8, 0, 0),
        (BLOCK, READ | WRITE, 8, 1, 1),
        (BLOCK, WRITE, 9, 0, 1),
        (CHARACTER, READ, 10, 4_000_000_000, 0),
        (CHARACTER, READ, 10, 200, 1),
    ];
    for (kind, access, major, minor, expected) in cases {
        assert_eq!(run(&program, kind, access, major, minor), expected, "{kind} {access} {major}:{minor}");
    }
}

#[test]
fn rules_before_a_total_one_do_not_count() {
    let early = r#"[{"allow":true,"type":"b","major":8,"access":"r"},{"allow":false,"access":"rwm"}]"#;
    assert_eq!(rules(early).policy(), rules("[]").policy());
    assert_eq!(run(&rules(early).program(), BLOCK, READ, 8, 0), 0);
    assert_eq!(run(&rules(r#"[{"allow":true}]"#).program(), BLOCK, READ | WRITE | MKNOD, 8, 0), 1);
}

#[test]
fn a_new_version_1_group_is_reset_and_then_filled() {
    let writes = rules(r#"[{"allow":false},{"allow":true,"type":"b","major":8,"minor":0,"access":"rw"}]"#)
        .policy()
        .transition(None);
    let texts: Vec<_> = writes.iter().map(|(file, value)| format!("{file} {value}")).collect();
    assert_eq!(
        texts,
        [
            "devices.deny a",
            "devices.allow b 8:0 rw",
            "devices.allow c *:* m",
            "devices.allow b *:* m",
            "devices.allow c 1:3 rwm",
            "devices.allow c 1:8 rwm",
            "devices.allow c 1:7 rwm",
            "devices.allow c 5:0 rwm",
            "devices.allow c 1:5 rwm",
            "devices.allow c 1:9 rwm",
            "devices.allow c 136:* rwm",
            "devices.allow c 5:2 rwm",
            "devices.allow c 10:200 rwm",
        ]
    );
}

#[test]
fn a_version_1_update_writes_the_difference_only() {
    let list = "b *:* m\nc *:* m\nb 8:0 rw\nb 8:16 r\nc 1:3 rwm\nc 1:5 rwm\nc 1:7 rwm\nc 1:8 rwm\nc 1:9 rwm\nc 5:0 rwm\n\
                c 5:2 rwm\nc 10:200 rwm\nc 136:* rwm\n";
    let policy = rules(r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"rm"}]"#);
    let expected = [
        ("devices.allow", "b 8:0 m".to_owned()),
        ("devices.deny", "b 8:0 w".to_owned()),
        ("devices.deny", "b 8:16 r".to_owned()),
    ];
    assert_eq!(policy.policy().transition(Some(list)), expected);
    let open = rules(r#"[{"allow":true}]"#);
    assert_eq!(open.policy().transition(Some(list)), [("devices.allow", "a".to_owned())]);
    let writes = rules("[]").policy().transition(Some("a *:* rwm\n"));
    assert_eq!(writes[0], ("devices.deny", "a".to_owned()));
}

#[test]
fn all_is_denied_by_its_letter_and_never_allowed_by_it() {
    let rule =
        |allow: bool| format!(r#"[{{"allow":{allow},"type":"c","major":1,"minor":11,"access":"rwa"}}]"#);
    let read = DeviceRules::read(&configured(&rule(false)), true).expect("a denial");
    assert_eq!(
        read,
        DeviceRules::read(&configured(&rule(false).replace("rwa", "rwm")), true).expect("a denial")
    );
    let refusal = DeviceRules::read(&configured(&rule(true)), true).unwrap_err();
    assert_eq!(refusal.field, "/linux/resources/devices/0/access");
}

#[test]
fn impossible_rules_are_refused() {
    let cases = [
        (r#"[{"allow":true,"type":"p"}]"#, "0/type", "a fifo is no device"),
        (r#"[{"allow":true},{"allow":true,"access":"rx"}]"#, "1/access", "other letters than r, w and m"),
        (r#"[{"allow":true,"type":"c","major":-2}]"#, "0/major", "no device number"),
        (r#"[{"allow":true,"type":"c","minor":4294967296}]"#, "0/minor", "no device number"),
        (
            r#"[{"allow":true,"type":"c","major":1},{"allow":false,"type":"c","major":1,"minor":3}]"#,
            "1",
            "exception inside of a range",
        ),
    ];
    for (json, field, reason) in cases {
        let refusal = DeviceRules::read(&configured(json), true).unwrap_err();
        assert_eq!(refusal.field, format!("/linux/resources/devices/{field}"));
        assert!(refusal.reason.contains(reason), "{json}: {}", refusal.reason);
    }
    let hole = r#"[{"allow":true,"type":"c","major":7},{"allow":false,"type":"c","major":7,"minor":3}]"#;
    let program = DeviceRules::read(&configured(hole), false).unwrap().program();
    assert_eq!([3, 4].map(|minor| run(&program, CHARACTER, READ, 7, minor)), [0, 1]);
}

#[test]
fn any_kind_with_numbers_means_both_kinds() {
    let policy = rules(r#"[{"allow":true,"type":"a","major":7,"access":"r"}]"#).policy().transition(None);
    let texts: Vec<_> = policy.iter().skip(1).take(2).map(|(_, value)| value.as_str()).collect();
    assert_eq!(texts, ["b 7:* r", "c 7:* r"]);
}

#[test]
fn a_default_device_can_be_denied_where_everything_else_is_allowed() {
    let rules = rules(r#"[{"allow":true},{"allow":false,"type":"c","major":10}]"#);
    assert_eq!(run(&rules.program(), CHARACTER, READ, 10, 200), 0);
    assert_eq!(run(&rules.program(), CHARACTER, READ, 1, 3), 1);
    let writes = rules.policy().transition(None);
    // Making a node is allowed for every device, by a later rule.
    assert_eq!(writes, [("devices.allow", "a".to_owned()), ("devices.deny", "c 10:* rw".to_owned())]);
}
