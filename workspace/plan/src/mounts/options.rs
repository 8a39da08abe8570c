//! Mount options: what each known word means (config.md, mount options; mount(8)).

use crate::plan::{Attributes, PropagationPlan};
use crate::root::{PROPAGATIONS, propagation_named};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const RELATIME: u64 = 0x0;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// File systems that keep nothing: read-only is an attribute of the mount alone, so that mount points can still be
/// made in a tmpfs, and a proc or sysfs superblock that others share stays as it is.
const KEEPS_NOTHING: [&str; 12] = [
    "bpf",
    "cgroup",
    "cgroup2",
    "debugfs",
    "devpts",
    "mqueue",
    "proc",
    "ramfs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Bind {
        recursive: bool,
    },
    Remount,
    Set(u64),
    Clear(u64),
    /// Access times are one value, not a set of flags.
    Atime(u64),
    /// Takes back one access-time word; what remains is the kernel's default, relatime.
    NotAtime(u64),
    /// A flag of the superblock, for fsconfig(2).
    Superblock(&'static str),
    IdMap {
        recursive: bool,
    },
    CopyUp,
    Nothing,
}

use Meaning::{Atime, Bind, Clear, CopyUp, IdMap, NotAtime, Nothing, Remount, Set, Superblock};

/// `iversion` has been the kernel's own choice since 5.19, `silent` only spares lines in the kernel's log, mandatory
/// locks are gone since 5.15: none of them reaches the kernel.
const WORDS: [(&str, Meaning); 36] = [
    ("async", Superblock("async")),
    ("atime", NotAtime(NOATIME)),
    ("bind", Bind { recursive: false }),
    ("defaults", Nothing),
    ("dev", Clear(NODEV)),
    ("diratime", Clear(NODIRATIME)),
    ("dirsync", Superblock("dirsync")),
    ("exec", Clear(NOEXEC)),
    ("idmap", IdMap { recursive: false }),
    ("iversion", Nothing),
    ("lazytime", Superblock("lazytime")),
    ("loud", Nothing),
    ("mand", Nothing),
    ("noatime", Atime(NOATIME)),
    ("nodev", Set(NODEV)),
    ("nodiratime", Set(NODIRATIME)),
    ("noexec", Set(NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", Superblock("nolazytime")),
    ("nomand", Nothing),
    ("norelatime", NotAtime(RELATIME)),
    ("nostrictatime", NotAtime(STRICTATIME)),
    ("nosuid", Set(NOSUID)),
    ("nosymfollow", Set(NOSYMFOLLOW)),
    ("rbind", Bind { recursive: true }),
    ("relatime", Atime(RELATIME)),
    ("remount", Remount),
    ("ridmap", IdMap { recursive: true }),
    ("ro", Set(RDONLY)),
    ("rw", Clear(RDONLY)),
    ("silent", Nothing),
    ("strictatime", Atime(STRICTATIME)),
    ("suid", Clear(NOSUID)),
    ("symfollow", Clear(NOSYMFOLLOW)),
    ("sync", Superblock("sync")),
    ("tmpcopyup", CopyUp),
];
/// Words for the whole tree.
const RECURSIVE_WORDS: [(&str, Meaning); 18] = [
    ("ratime", NotAtime(NOATIME)),
    ("rdev", Clear(NODEV)),
    ("rdiratime", Clear(NODIRATIME)),
    ("rexec", Clear(NOEXEC)),
    ("rnoatime", Atime(NOATIME)),
    ("rnodev", Set(NODEV)),
    ("rnodiratime", Set(NODIRATIME)),
    ("rnoexec", Set(NOEXEC)),
    ("rnorelatime", NotAtime(RELATIME)),
    ("rnostrictatime", NotAtime(STRICTATIME)),
    ("rnosuid", Set(NOSUID)),
    ("rnosymfollow", Set(NOSYMFOLLOW)),
    ("rrelatime", Atime(RELATIME)),
    ("rro", Set(RDONLY)),
    ("rrw", Clear(RDONLY)),
    ("rstrictatime", Atime(STRICTATIME)),
    ("rsuid", Clear(NOSUID)),
    ("rsymfollow", Clear(NOSYMFOLLOW)),
];

/// Words of fstab(5) that are for mount(8) itself and do what they do there.
const FSTAB_WORDS: [(&str, Meaning); 8] = [
    ("_netdev", Nothing),
    ("auto", Nothing),
    ("group", Set(NOSUID | NODEV)),
    ("noauto", Nothing),
    ("nofail", Nothing),
    ("nouser", Nothing),
    ("owner", Set(NOSUID | NODEV)),
    ("user", Set(NOSUID | NODEV | NOEXEC)),
];

/// What the options of one mount ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub bind: Option<Recursive>,
    pub remount: bool,
    pub attributes: Attributes,
    pub recursive_attributes: Attributes,
    pub propagation: Vec<PropagationPlan>,
    pub id_map: Option<Recursive>,
    pub copy_up: bool,
    /// `sync`, `lazytime`, ...
    pub superblock: Vec<&'static str>,
    /// Everything unknown: flags and `key=value` for the file system.
    pub data: Vec<(String, Option<String>)>,
}

/// For the whole tree.
pub(super) type Recursive = bool;

impl Options {
    /// Superblock flags and data for fsconfig(2) on a file system of `kind`.
    pub(super) fn for_superblock(&self, kind: &str) -> Vec<(String, Option<String>)> {
        let read_only = self.attributes.set & RDONLY != 0 && !KEEPS_NOTHING.contains(&kind);
        let flags = read_only.then_some("ro").into_iter().chain(self.superblock.iter().copied());
        flags.map(|flag| (flag.to_string(), None)).chain(self.data.iter().cloned()).collect()
    }

    /// True when something about an existing mount changes.
    pub(super) fn change_something(&self) -> bool {
        let none = Attributes::default();
        !self.propagation.is_empty() || self.attributes != none || self.recursive_attributes != none
    }

    /// Makes the mount read-only whatever the words say.
    pub(super) fn force_read_only(&mut self) {
        set(&mut self.attributes, RDONLY);
    }
}

/// Reads the options in order; a later word wins over an earlier one.
pub(super) fn parse(options: &[String]) -> Options {
    let mut parsed = Options::default();
    for option in options.iter().flat_map(|option| split(option)) {
        if let Some(meaning) = of(&WORDS, option).or_else(|| of(&FSTAB_WORDS, option)) {
            parsed.take(meaning);
        } else if let Some(meaning) = of(&RECURSIVE_WORDS, option) {
            change_tree(&mut parsed.recursive_attributes, meaning);
        } else if let Some(propagation) = propagation_named(option) {
            parsed.propagation.push(propagation);
        } else if !option.starts_with("x-") && !option.starts_with("X-") {
            parsed.data.push(match option.split_once('=') {
                Some((key, value)) => (key.to_string(), Some(value.to_string())),
                None => (option.to_string(), None),
            });
        }
    }
    parsed
}

/// Meaning of `option` in a table that is sorted by its words.
fn of(table: &[(&str, Meaning)], option: &str) -> Option<Meaning> {
    table.binary_search_by_key(&option, |(word, _)| word).ok().map(|place| table[place].1)
}

/// Splits at commas, but not inside double quotes (SELinux contexts) nor after a backslash (overlay paths).
fn split(option: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in option.bytes().enumerate() {
        match byte {
            b',' if !quoted && !escaped => {
                parts.push(&option[start..at]);
                start = at + 1;
            }
            b'"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts.push(&option[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

impl Options {
    fn take(&mut self, meaning: Meaning) {
        match meaning {
            Bind { recursive } => self.bind = Some(recursive),
            Remount => self.remount = true,
            Superblock(flag) => self.superblock.push(flag),
            IdMap { recursive } => self.id_map = Some(recursive),
            CopyUp => self.copy_up = true,
            Set(_) | Clear(_) | Atime(_) | NotAtime(_) | Nothing => change(&mut self.attributes, meaning),
        }
    }
}

fn change(attributes: &mut Attributes, meaning: Meaning) {
    match meaning {
        Set(flags) => set(attributes, flags),
        Clear(flags) => {
            attributes.set &= !flags;
            attributes.clear |= flags;
        }
        // mount_setattr(2) wants the whole field cleared before any of its values is set.
        Atime(value) => {
            attributes.set = attributes.set & !ATIME | value;
            attributes.clear |= ATIME;
        }
        // Only takes back an earlier word: where none was given a bind mount keeps what its source has (mount(2),
        // MS_REMOUNT), and a new file system has the kernel's default.
        NotAtime(value) if attributes.clear & ATIME != 0 && attributes.set & ATIME == value => {
            attributes.set &= !ATIME;
            attributes.clear &= !ATIME;
        }
        _ => {}
    }
}

/// mount_setattr(2) on a tree: a word that takes back the access times sets the default.
fn change_tree(attributes: &mut Attributes, meaning: Meaning) {
    match meaning {
        NotAtime(value) => {
            let chosen = attributes.clear & ATIME != 0;
            if !chosen || attributes.set & ATIME == value {
                attributes.set &= !ATIME;
                attributes.clear |= ATIME;
            }
        }
        other => change(attributes, other),
    }
}

fn set(attributes: &mut Attributes, flags: u64) {
    attributes.set |= flags;
    attributes.clear &= !flags;
}

/// Every option of the specification and of the peers that is known, sorted, for the features document.
pub fn known() -> Vec<&'static str> {
    let mut words: Vec<_> = WORDS.iter().chain(&RECURSIVE_WORDS).map(|(word, _)| *word).collect();
    words.extend(PROPAGATIONS.iter().map(|(word, ..)| *word));
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Propagation;
    use alloc::vec;

    #[test]
    fn tables_are_sorted_for_the_search() {
        for table in [&WORDS[..], &FSTAB_WORDS, &RECURSIVE_WORDS] {
            assert!(table.is_sorted_by_key(|(word, _)| word), "{table:?}");
        }
    }

    fn given(words: &[&str]) -> Options {
        parse(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn attributes_follow_the_last_word() {
        let table: [(&[&str], u64, u64); 11] = [
            (&[], 0, 0),
            (&["defaults"], 0, 0),
            (&["ro", "nosuid", "nodev", "noexec"], 0xf, 0),
            (&["ro", "rw"], 0, 0x1),
            (&["rw", "ro"], 0x1, 0),
            (&["suid", "dev", "exec", "diratime", "symfollow"], 0, 0x20_008e),
            (&["nodiratime", "nosymfollow"], 0x20_0080, 0),
            (&["noatime"], 0x10, 0x70),
            (&["strictatime", "relatime"], 0, 0x70),
            (&["relatime", "noatime"], 0x10, 0x70),
            (&["strictatime", "atime"], 0x20, 0x70),
        ];
        for (words, set, clear) in table {
            assert_eq!(given(words).attributes, Attributes { set, clear }, "{words:?}");
            let recursive: Vec<String> = words.iter().map(|word| alloc::format!("r{word}")).collect();
            if words != ["defaults"] {
                assert_eq!(
                    parse(&recursive).recursive_attributes,
                    Attributes { set, clear },
                    "{recursive:?}"
                );
            }
        }
    }

    #[test]
    fn an_access_time_taken_back_is_none_for_a_mount_and_the_default_for_a_tree() {
        for words in [&["noatime", "atime"][..], &["strictatime", "nostrictatime"], &["norelatime"]] {
            assert_eq!(given(words).attributes, Attributes::default(), "{words:?}");
            let recursive: Vec<String> = words.iter().map(|word| alloc::format!("r{word}")).collect();
            let expected = Attributes { set: 0, clear: ATIME };
            assert_eq!(parse(&recursive).recursive_attributes, expected, "{recursive:?}");
        }
    }

    #[test]
    fn unknown_words_are_data_in_order() {
        let options =
            given(&["mode=755,size=65536k", "nr_inodes=5", "newinstance", "x-mount.mkdir", "nofail"]);
        let pair = |key: &str, value: Option<&str>| (key.to_string(), value.map(str::to_string));
        let expected = vec![
            pair("mode", Some("755")),
            pair("size", Some("65536k")),
            pair("nr_inodes", Some("5")),
            pair("newinstance", None),
        ];
        assert_eq!(options.data, expected);
        assert_eq!(options.for_superblock("tmpfs"), expected);
    }

    #[test]
    fn commas_in_quotes_and_after_a_backslash_do_not_split() {
        assert_eq!(split(r#"context="a:b:c0,c1",ro"#), [r#"context="a:b:c0,c1""#, "ro"]);
        assert_eq!(split(r"lowerdir=/a\,b,ro"), [r"lowerdir=/a\,b", "ro"]);
        assert_eq!(split(r"a\\,b,,"), [r"a\\", "b"]);
    }

    #[test]
    fn superblock_flags_come_before_data() {
        let options = given(&["lazytime", "ro", "sync", "errors=panic"]);
        let pair = |key: &str, value: Option<&str>| (key.to_string(), value.map(str::to_string));
        let expected =
            [pair("ro", None), pair("lazytime", None), pair("sync", None), pair("errors", Some("panic"))];
        assert_eq!(options.for_superblock("ext4"), expected);
        assert_eq!(options.for_superblock("tmpfs"), expected[1..]);
    }

    #[test]
    fn every_word_of_the_specification_is_known() {
        let words = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime \
             noexec noiversion nolazytime norelatime nostrictatime nosuid relatime remount ro rw silent strictatime suid \
             sync mand nomand private rprivate slave rslave shared rshared unbindable runbindable nosymfollow symfollow \
             rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnodiratime rdiratime rrelatime rnorelatime rnoatime ratime \
             rstrictatime rnostrictatime rnosymfollow rsymfollow rbind idmap ridmap tmpcopyup";
        for word in words.split_whitespace() {
            assert_eq!(given(&[word]).data, [], "{word}");
            assert!(known().contains(&word), "{word}");
        }
    }

    #[test]
    fn other_words_set_what_they_name() {
        assert_eq!((given(&["bind"]).bind, given(&["bind", "rbind"]).bind), (Some(false), Some(true)));
        assert_eq!((given(&["idmap"]).id_map, given(&["ridmap"]).id_map), (Some(false), Some(true)));
        assert!(given(&["remount"]).remount && given(&["tmpcopyup"]).copy_up);
        let propagation = |kind, recursive| PropagationPlan { kind, recursive };
        let expected = [propagation(Propagation::Slave, true), propagation(Propagation::Shared, false)];
        assert_eq!(given(&["rslave", "shared"]).propagation, expected);
    }
}
