//! The parsers of foreign bytes end without a panic whatever they get, and say the same each time.
#![allow(clippy::unwrap_used)] // Functions of a test are tests.

use hull_rooted::accounts::{parse_groups, parse_users};
use hull_rooted::mountinfo;
use std::path::Path;

const TABLE: &[u8] = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:7 master:1 - ext3 /dev/root rw\n\
    37 36 0:5 / /x ro unbindable - tmpfs none rw,size=64k\n";
const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# remark\nuser:x:1000:1000::/home/user:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:root,user\n";

/// Numbers that look random and are the same in each run (an xorshift generator).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    /// A copy of `seed` with some bytes changed, taken out, doubled or moved.
    fn change(&mut self, seed: &[u8]) -> Vec<u8> {
        const TELLING: &[u8] = b" \n\\:-,0379#\0\xff\t";
        let mut bytes = seed.to_vec();
        for _ in 0..=self.roll(8) {
            let at = self.roll(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match self.roll(4) {
                0 if !bytes.is_empty() => bytes[at] = TELLING[self.roll(TELLING.len())],
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 => bytes.insert(at, TELLING[self.roll(TELLING.len())]),
                _ => bytes.truncate(at.max(seed.len() / 2)),
            }
        }
        bytes
    }
}

#[test]
fn changed_tables_and_accounts_are_parsed_or_refused_the_same_way_each_time() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let table = dice.change(TABLE);
        let parsed = mountinfo::parse(&table);
        assert_eq!(parsed, mountinfo::parse(&table));
        match parsed {
            Ok(mounts) => {
                assert!(mounts.len() <= table.split(|byte| *byte == b'\n').count());
                read += 1;
            }
            Err(error) => {
                assert!(error.line >= 1 && !error.field.is_empty());
                refused += 1;
            }
        }
        let (passwd, group) = (dice.change(PASSWD), dice.change(GROUP));
        let users = parse_users(Path::new("passwd"), &passwd).unwrap();
        assert!(users.iter().all(|user| user.uid != u32::MAX && !user.name.is_empty()));
        let groups = parse_groups(Path::new("group"), &group).unwrap();
        assert!(groups.iter().all(|group| group.members.iter().all(|member| !member.is_empty())));
    }
    assert!(read > 1000 && refused > 1000, "{read} {refused}");
}
