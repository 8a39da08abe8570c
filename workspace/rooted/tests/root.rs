//! Lookups and creations under a root whose links lead everywhere.
#![allow(clippy::unwrap_used)] // Functions of a test are tests.

use hull_rooted::{Error, Proc, Root, View};
use hull_sys::fs::{FileType, OFlags, makedev};
use hull_testkit::{Scratch, gate, needs};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// A root beside a directory that nothing may touch.
struct Place {
    scratch: Scratch,
    root: Root,
}

impl Place {
    fn new() -> Self {
        let scratch = Scratch::new("root");
        fs::create_dir(scratch.join("root")).unwrap();
        fs::create_dir(scratch.join("decoy")).unwrap();
        fs::write(scratch.join("decoy/file"), "host").unwrap();
        let root = Root::at(scratch.join("root")).unwrap();
        Self { scratch, root }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.scratch.join("root").join(path.trim_start_matches('/'))
    }

    fn link(&self, target: impl AsRef<Path>, path: &str) {
        symlink(target, self.inside(path)).unwrap();
    }

    /// The absolute path of the decoy, as a link could hold it.
    fn decoy(&self) -> PathBuf {
        self.scratch.join("decoy")
    }

    fn decoy_is_untouched(&self) {
        let names: Vec<_> = fs::read_dir(self.decoy()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::read(self.decoy().join("file")).unwrap(), b"host");
    }
}

fn same_inode(fd: impl AsFd, path: &Path) -> bool {
    let (a, b) = (hull_sys::fs::fstat(fd.as_fd()).unwrap(), fs::symlink_metadata(path).unwrap());
    (a.st_dev, a.st_ino) == (b.dev(), b.ino())
}

/// Where a link named `at` may lead, and which directory `at/deep` then is.
fn links(place: &Place) -> Vec<(&'static str, PathBuf, String)> {
    let decoy = place.decoy();
    let decoy_inside = format!("{}/deep", decoy.display());
    vec![
        ("absolute", "/there".into(), "there/deep".into()),
        ("relative", "there".into(), "there/deep".into()),
        ("above the root", "../../../../there".into(), "there/deep".into()),
        ("to the host by its absolute path", decoy, decoy_inside),
        ("to the host by a relative path", "../decoy".into(), "decoy/deep".into()),
        ("through dots", "./there/./more/../".into(), "there/deep".into()),
        ("to the root", "/".into(), "deep".into()),
        ("above the root itself", "..".into(), "deep".into()),
    ]
}

#[test]
fn a_directory_is_made_where_the_links_lead_inside_the_root() {
    for dangling in [true, false] {
        let count = links(&Place::new()).len();
        for index in 0..count {
            let place = Place::new();
            let (name, target, expected) = links(&place).swap_remove(index);
            if !dangling || name == "through dots" {
                fs::create_dir_all(place.inside(&expected).parent().unwrap().join("more")).unwrap();
            }
            place.link(&target, "at");
            let made = place.root.open_or_create_dir("/at/deep", 0o750).unwrap();
            assert!(same_inode(&made, &place.inside(&expected)), "{name}, dangling {dangling}");
            let again = place.root.open_or_create_dir("at/deep", 0o700).unwrap();
            assert!(same_inode(&again, &place.inside(&expected)), "{name}, again");
            assert_eq!(fs::metadata(place.inside(&expected)).unwrap().mode() & 0o777, 0o750);
            place.decoy_is_untouched();
        }
    }
}

#[test]
fn a_file_is_made_where_a_link_to_nothing_leads_inside_the_root() {
    let place = Place::new();
    fs::create_dir_all(place.inside("etc")).unwrap();
    place.link("../run/resolve/stub.conf", "etc/resolv.conf");
    place.link(place.decoy().join("new"), "etc/hosts");
    let made = place.root.open_or_create_file("etc/resolv.conf").unwrap();
    assert!(same_inode(made, &place.inside("run/resolve/stub.conf")));
    let made = place.root.open_or_create_file("etc/hosts").unwrap();
    assert!(same_inode(made, &place.inside(&format!("{}/new", place.decoy().display()))));
    place.decoy_is_untouched();
}

#[test]
fn a_chain_of_forty_links_is_followed_and_one_more_is_not() {
    for (count, dangling) in [(40, false), (40, true), (41, false), (41, true)] {
        let place = Place::new();
        for index in 0..count {
            place.link(format!("l{}", index + 1), &format!("l{index}"));
        }
        let end = format!("l{count}");
        if !dangling {
            fs::create_dir(place.inside(&end)).unwrap();
        }
        let result = place.root.open_or_create_dir("l0", 0o755);
        if count == 40 {
            assert!(same_inode(result.unwrap(), &place.inside(&end)), "{count} {dangling}");
        } else {
            assert!(result.unwrap_err().is(libc::ELOOP), "{count} {dangling}");
        }
    }
}

#[test]
fn a_loop_of_links_is_refused() {
    let place = Place::new();
    place.link("b", "a");
    place.link("a", "b");
    place.link("self", "self");
    for path in ["a", "a/x", "self", "self/x"] {
        assert!(place.root.open(path).unwrap_err().is(libc::ELOOP), "{path}");
        assert!(place.root.open_or_create_dir(path, 0o755).unwrap_err().is(libc::ELOOP), "{path}");
        assert!(place.root.open_or_create_file(path).unwrap_err().is(libc::ELOOP), "{path}");
    }
}

#[test]
fn nothing_is_made_through_a_file_or_back_up_from_what_is_missing() {
    let place = Place::new();
    fs::write(place.inside("file"), "").unwrap();
    fs::create_dir(place.inside("dir")).unwrap();
    assert!(place.root.open_or_create_dir("file/x", 0o755).unwrap_err().is(libc::ENOTDIR));
    assert!(matches!(place.root.open_or_create_dir("new/../x", 0o755), Err(Error::Path { .. })));
    assert!(!place.inside("x").exists());
    let error = place.root.open_or_create_dir("file", 0o755).unwrap_err();
    assert_eq!(error.to_string(), "\"file\" is a regular file, not a directory");
    let error = place.root.open_or_create_file("dir").unwrap_err();
    assert_eq!(error.to_string(), "\"dir\" is a directory, not a file");
    assert!(place.root.open_with("none", OFlags::CREATE | OFlags::RDWR).unwrap_err().is(libc::EINVAL));
}

#[test]
fn lookups_stay_inside_whatever_the_path_and_its_links_say() {
    let place = Place::new();
    fs::create_dir(place.inside("decoy")).unwrap();
    fs::write(place.inside("decoy/file"), "image").unwrap();
    place.link("../decoy", "up");
    place.link("/decoy/file", "absolute");
    place.link(place.decoy(), "host");
    for path in
        ["decoy/file", "/decoy/file", "../decoy/file", "up/file", "absolute", "/../../up/../decoy/file"]
    {
        let found = place.root.open(path).unwrap();
        assert!(same_inode(found, &place.inside("decoy/file")), "{path}");
    }
    assert!(place.root.find("host/file").unwrap().is_none(), "the path exists on the host only");
    assert!(same_inode(place.root.open_nofollow("absolute").unwrap(), &place.inside("absolute")));
    for path in ["", "/", ".", "..", "../..", "decoy/.."] {
        assert!(same_inode(place.root.open(path).unwrap(), &place.inside("")), "{path}");
    }
}

#[test]
fn the_strict_lookup_follows_no_link_and_leaves_by_no_dots() {
    let place = Place::new();
    fs::create_dir(place.inside("dir")).unwrap();
    fs::write(place.inside("dir/file"), "").unwrap();
    place.link("dir", "link");
    place.link("file", "dir/link");
    assert!(same_inode(
        place.root.open_strict("/dir/file", OFlags::PATH).unwrap(),
        &place.inside("dir/file")
    ));
    for (path, errno) in [("link/file", libc::ELOOP), ("dir/link", libc::ELOOP), ("../decoy", libc::EXDEV)] {
        assert!(place.root.open_strict(path, OFlags::PATH).unwrap_err().is(errno), "{path}");
    }
}

#[test]
fn the_last_name_is_never_followed_when_something_is_made_or_removed() {
    let place = Place::new();
    place.link(place.decoy().join("file"), "link");
    place.link("nothing", "dangling");
    for path in ["link", "dangling"] {
        assert!(place.root.symlink("x", path).unwrap_err().is(libc::EEXIST), "{path}");
        assert!(place.root.mknod(path, FileType::Fifo, 0o600, 0).unwrap_err().is(libc::EEXIST), "{path}");
        assert_eq!(place.root.kind_of(path).unwrap(), Some(FileType::Symlink));
        assert!(place.root.remove(path).unwrap());
        assert!(!place.root.remove(path).unwrap(), "it is gone");
        assert_eq!(place.root.kind_of(path).unwrap(), None);
    }
    place.root.symlink("/any text", "fresh").unwrap();
    assert_eq!(fs::read_link(place.inside("fresh")).unwrap(), Path::new("/any text"));
    let fifo = place.root.mknod("fifo", FileType::Fifo, 0o600, 0).unwrap();
    assert!(same_inode(fifo, &place.inside("fifo")));
    fs::create_dir(place.inside("empty")).unwrap();
    assert!(place.root.remove("empty").unwrap());
    assert!(!place.root.remove("no/such").unwrap());
    for path in ["", "/", "..", "dir/.."] {
        assert!(matches!(place.root.remove(path), Err(Error::NoName { .. })), "{path}");
    }
    place.decoy_is_untouched();
}

#[test]
fn a_device_node_has_the_number_that_was_asked_for() {
    needs!(gate::root());
    let place = Place::new();
    let null = place.root.mknod("null", FileType::CharacterDevice, 0o600, makedev(1, 3)).unwrap();
    let found = fs::symlink_metadata(place.inside("null")).unwrap();
    assert!(found.file_type().is_char_device());
    assert_eq!((found.rdev(), same_inode(null, &place.inside("null"))), (makedev(1, 3), true));
}

#[test]
fn only_regular_files_within_the_limit_are_read() {
    let place = Place::new();
    let proc = Proc::open(View::Processes).unwrap();
    fs::write(place.inside("small"), "12345").unwrap();
    fs::create_dir(place.inside("dir")).unwrap();
    place.link("/small", "link");
    place.root.mknod("fifo", FileType::Fifo, 0o600, 0).unwrap();
    assert_eq!(place.root.read_file("link", &proc, 5).unwrap(), b"12345");
    let error = place.root.read_file("small", &proc, 4).unwrap_err();
    assert_eq!(error.to_string(), "\"small\" has more than 4 bytes");
    for (path, text) in [("fifo", "a fifo"), ("dir", "a directory")] {
        let error = place.root.read_file(path, &proc, 5).unwrap_err();
        assert_eq!(error.to_string(), format!("\"{path}\" is {text}, not a regular file"));
    }
}

#[test]
fn accounts_come_from_the_image_and_never_from_the_host() {
    let place = Place::new();
    let proc = Proc::open(View::Processes).unwrap();
    assert_eq!(hull_rooted::accounts::home_of(&place.root, &proc, 0).unwrap(), None, "no file is no user");
    fs::create_dir(place.inside("etc")).unwrap();
    place.link("/etc/passwd.real", "etc/passwd");
    fs::write(place.inside("etc/passwd.real"), "a:x:0:0::/image:/sh\nb:x:7:7::relative:/sh\n").unwrap();
    fs::write(place.inside("etc/group"), "g:x:9:a\n").unwrap();
    let home = |uid| hull_rooted::accounts::home_of(&place.root, &proc, uid).unwrap();
    assert_eq!((home(0), home(7), home(1)), (Some("/image".into()), None, None));
    let groups = hull_rooted::accounts::groups(&place.root, &proc).unwrap();
    assert_eq!(groups.iter().map(|group| group.gid).collect::<Vec<_>>(), [9]);
    fs::remove_file(place.inside("etc/group")).unwrap();
    place.root.mknod("etc/group", FileType::Fifo, 0o600, 0).unwrap();
    assert!(matches!(hull_rooted::accounts::groups(&place.root, &proc), Err(Error::Kind { .. })));
}

#[test]
fn names_made_on_the_way_are_exactly_those_of_the_path() {
    let place = Place::new();
    place.root.open_or_create_file("/a/b/../b/./c").unwrap_err();
    place.root.open_or_create_file("/a//b/./c").unwrap();
    let mut seen = BTreeSet::new();
    let mut left = vec![place.inside("")];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            seen.insert(path.strip_prefix(place.inside("")).unwrap().to_owned());
            if path.is_dir() {
                left.push(path);
            }
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "a/b", "a/b/c"].map(PathBuf::from));
}

/// Numbers that look random and are the same in each run (an xorshift generator).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    /// Up to five names, with dots, slashes and roots between them.
    fn path(&mut self) -> String {
        let parts = ["a", "b", "c", "d", "..", ".", "", "a/b", "../.."];
        let names: Vec<_> = (0..=self.roll(5)).map(|_| parts[self.roll(parts.len())]).collect();
        names.join("/")
    }

    /// Something in the way: a directory, file or link.
    fn plant(&mut self, place: &Place) {
        let directory = place.inside(["", "a", "b", "a/b"][self.roll(4)]);
        let inside = directory.join(["a", "b", "c"][self.roll(3)]);
        let planting = self.roll(4);
        let target =
            if planting > 1 { Path::new(["/", ""][self.roll(2)]).join(self.path()) } else { PathBuf::new() };
        // Here the host follows the links that were planted before.
        let root = place.inside("").canonicalize().unwrap();
        if !directory.canonicalize().is_ok_and(|directory| directory.starts_with(root)) {
            return;
        }
        // What is there already stays as it is.
        let _ = match planting {
            0 => fs::create_dir(inside),
            1 if inside.is_symlink() => Ok(()),
            1 => fs::write(inside, ""),
            _ => symlink(target, inside),
        };
    }
}

#[test]
fn any_path_through_any_links_is_made_or_refused_and_never_leaves() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut made, mut refused) = (0, 0);
    for _ in 0..100 {
        let place = Place::new();
        (0..12).for_each(|_| dice.plant(&place));
        for _ in 0..20 {
            let path = dice.path();
            let result = match dice.roll(2) {
                0 => place.root.open_or_create_dir(&path, 0o755),
                _ => place.root.open_or_create_file(&path),
            };
            match result {
                // What was made is what a lookup finds from now on.
                Ok(fd) => {
                    let found = place.root.open(&path).unwrap();
                    let inode = |fd: &std::os::fd::OwnedFd| hull_sys::fs::fstat(fd.as_fd()).unwrap().st_ino;
                    assert_eq!(inode(&fd), inode(&found), "{path:?}");
                    made += 1;
                }
                Err(Error::Kind { .. } | Error::Path { .. }) => refused += 1,
                Err(error) => {
                    let expected = error.is(libc::ELOOP) || error.is(libc::ENOTDIR);
                    assert!(expected, "{path:?}: {error:?}");
                    refused += 1;
                }
            }
        }
        place.decoy_is_untouched();
    }
    assert!(made > 300 && refused > 300, "{made} {refused}");
}
