//! Random trees and edits: packing the difference and applying it gives the new tree, whichever way it is stored.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use hull_layer::{
    Change, Effect, Entry, Extractor, TarWriter, TimeRule, Whiteouts, copy_merged, diff_copy, diff_trees,
    diff_upper, extract, list, pack,
};

#[derive(Debug, Clone, PartialEq)]
enum Node {
    File(Vec<u8>, u32),
    Directory(u32),
    Link(String),
}

type Model = BTreeMap<String, Node>;

/// A small generator: the same seed gives the same tree on any machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }

    fn node(&mut self) -> Node {
        let mode = [0o644, 0o755, 0o4755, 0o600, 0][self.below(5) as usize];
        match self.below(8) {
            0 => Node::Link(["/", "..", "a", "../../../etc", "missing/x"][self.below(5) as usize].to_owned()),
            1..=3 => Node::Directory(if mode == 0 { 0o1777 } else { mode & 0o1777 | 0o700 }),
            _ => Node::File(vec![b'0' + self.below(10) as u8; self.below(3000) as usize], mode),
        }
    }

    fn path(&mut self, model: &Model) -> String {
        let name = ["a", "b", "c.d", "-x", "z z", "ü", "A", "_", &"n".repeat(150)][self.below(9) as usize]
            .to_owned();
        let directories: Vec<&String> = model
            .iter()
            .filter(|(_, node)| matches!(node, Node::Directory(_)))
            .map(|(path, _)| path)
            .collect();
        match directories.is_empty() || self.below(4) == 0 {
            true => name,
            false => format!("{}/{name}", directories[self.below(directories.len() as u64) as usize]),
        }
    }

    fn edit(&mut self, model: &mut Model) {
        let path = self.path(model);
        let gone = |model: &mut Model, path: &str| {
            let below = format!("{path}/");
            model.retain(|other, _| other != path && !other.starts_with(&below));
        };
        if self.below(3) == 0 {
            gone(model, &path);
            return;
        }
        let node = self.node();
        if !matches!((model.get(&path), &node), (Some(Node::Directory(_)), Node::Directory(_))) {
            gone(model, &path);
        }
        model.insert(path, node);
    }
}

fn make(model: &Model, root: &Path, time: i64) {
    fs::create_dir_all(root).unwrap();
    for (path, node) in model {
        let path = root.join(path);
        match node {
            Node::File(content, mode) => {
                fs::write(&path, content).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Node::Directory(mode) => {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Node::Link(target) => symlink(target, &path).unwrap(),
        }
    }
    for path in model.keys().rev() {
        touch(&root.join(path), time + path.len() as i64);
    }
}

fn touch(path: &Path, seconds: i64) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
    let time = Timespec { tv_sec: seconds, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn tar_of(changes: &[Change], root: &Path) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new(), TimeRule::Keep);
    pack(changes, File::open(root).unwrap().as_fd(), &mut writer).unwrap();
    writer.finish().unwrap()
}

fn tree(root: &Path) -> Vec<(Entry, Vec<u8>)> {
    let dir = File::open(root).unwrap();
    let content = |entry: &Entry| match entry.kind {
        hull_layer::Kind::File { .. } => {
            fs::read(root.join(std::str::from_utf8(&entry.path).unwrap())).unwrap()
        }
        _ => Vec::new(),
    };
    list(dir.as_fd()).unwrap().into_iter().map(|entry| (entry.clone(), content(&entry))).collect()
}

#[test]
fn packing_a_difference_and_applying_it_gives_the_new_tree() {
    for seed in 0..150 {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut random = Random(seed);
        let mut model = Model::new();
        (0..random.below(25)).for_each(|_| random.edit(&mut model));
        make(&model, &at("old"), 1000);
        make(&model, &at("copy"), 1000);
        make(&model, &at("again"), 1000);
        (0..random.below(12)).for_each(|_| random.edit(&mut model));
        make(&model, &at("new"), if seed % 2 == 0 { 1000 } else { 2000 });

        let (old, new) = (File::open(at("old")).unwrap(), File::open(at("new")).unwrap());
        let changes = diff_trees(old.as_fd(), new.as_fd()).unwrap();
        let tar = tar_of(&changes, &at("new"));
        let copy = File::open(at("copy")).unwrap();
        extract(&tar[..], copy.as_fd(), &Extractor::layer()).unwrap();
        let quiet = changes.is_empty();
        assert_eq!(
            without_unmarked(tree(&at("copy")), &changes),
            without_unmarked(tree(&at("new")), &changes),
            "seed {seed}"
        );
        assert_eq!(quiet, tar.len() == 1024, "seed {seed}");

        // The same layer kept as an overlay's upper directory says the same as the archive.
        fs::create_dir(at("upper")).unwrap();
        let upper = File::open(at("upper")).unwrap();
        let overlay = Extractor { whiteouts: Whiteouts::Overlay { user: true }, ..Extractor::layer() };
        extract(&tar[..], upper.as_fd(), &overlay).unwrap();
        let from_upper = diff_upper(upper.as_fd(), &[old.as_fd().try_clone_to_owned().unwrap()]).unwrap();
        let tar = tar_of(&from_upper, &at("upper"));
        let again = File::open(at("again")).unwrap();
        extract(&tar[..], again.as_fd(), &Extractor::layer()).unwrap();
        assert_eq!(
            without_unmarked(tree(&at("again")), &changes),
            without_unmarked(tree(&at("new")), &changes),
            "seed {seed} by way of an upper directory: {changes:?} but {from_upper:?}"
        );

        // What both show is the new tree where no overlay shows it, and the difference is the same.
        fs::create_dir(at("merged")).unwrap();
        let merged = File::open(at("merged")).unwrap();
        let lowers = [upper.as_fd().try_clone_to_owned().unwrap(), old.as_fd().try_clone_to_owned().unwrap()];
        copy_merged(&lowers, merged.as_fd()).unwrap();
        assert_eq!(
            without_unmarked(tree(&at("merged")), &changes),
            without_unmarked(tree(&at("new")), &changes),
            "seed {seed} as a copy of both: {from_upper:?}"
        );
        assert_eq!(diff_copy(merged.as_fd(), &lowers).unwrap(), [], "seed {seed}");
        assert_eq!(diff_copy(new.as_fd(), &lowers[1..]).unwrap(), changes, "seed {seed}");
    }
}

fn socket(path: std::path::PathBuf) {
    let _closed = std::os::unix::net::UnixListener::bind(path).unwrap();
}

#[test]
fn sockets_are_nothing_and_take_the_place_of_what_they_replace() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    let open = |name: &str| File::open(at(name)).unwrap();
    for path in ["base", "upper/run", "upper/was-a-directory", "copy/run"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    fs::create_dir_all(at("base/was-a-directory/deep")).unwrap();
    fs::remove_dir(at("upper/was-a-directory")).unwrap();
    fs::write(at("base/was-a-file"), "x").unwrap();
    for root in ["upper", "copy"] {
        for name in ["run/new", "was-a-file", "was-a-directory"] {
            socket(at(root).join(name));
        }
    }
    let base = || open("base").into();
    let wanted =
        |run: &[Change]| [&[Change::remove(b"was-a-directory"), Change::remove(b"was-a-file")], run].concat();
    let run = |root: &str| Change::put(hull_layer::read_entry(open(root).as_fd(), b"run").unwrap());
    assert_eq!(diff_upper(open("upper").as_fd(), &[base()]).unwrap(), wanted(&[run("upper")]));
    assert_eq!(diff_copy(open("copy").as_fd(), &[base()]).unwrap(), wanted(&[run("copy")]));

    // A tree that has them lies below the next.
    let lowers = [open("upper").into(), base()];
    fs::create_dir(at("merged")).unwrap();
    copy_merged(&lowers, open("merged").as_fd()).unwrap();
    let paths: Vec<Vec<u8>> = tree(&at("merged")).into_iter().map(|(entry, _)| entry.path).collect();
    assert_eq!(paths, [b"run"]);
    assert_eq!(diff_copy(open("merged").as_fd(), &lowers).unwrap(), []);
    fs::create_dir_all(at("above/run")).unwrap();
    fs::write(at("above/run/new"), "a file now").unwrap();
    let changes = diff_upper(open("above").as_fd(), &lowers).unwrap();
    assert!(changes.iter().any(|change| change.path == b"run/new"), "{changes:?}");
    fs::remove_file(at("above/run/new")).unwrap();
    if rustix::process::geteuid().is_root() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, at("above/run/new"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        let changes = diff_upper(open("above").as_fd(), &lowers).unwrap();
        assert!(!changes.iter().any(|change| change.path == b"run/new"), "nothing is removed: {changes:?}");
    }
}

#[test]
fn a_device_made_in_a_copy_is_no_mark_of_a_removal() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    let open = |name: &str| File::open(at(name)).unwrap();
    for root in ["base", "copy"] {
        fs::create_dir(at(root)).unwrap();
    }
    fs::write(at("base/was-a-file"), "x").unwrap();
    for name in ["copy/new", "copy/was-a-file"] {
        // Anybody may make one.
        mknodat(CWD, at(name), FileType::CharacterDevice, Mode::RUSR, 0).unwrap();
    }
    let lowers = [open("base").into()];
    let changes = diff_copy(open("copy").as_fd(), &lowers).unwrap();
    assert_eq!(changes, [Change::remove(b"was-a-file")]);
}

/// A directory whose only change is its time is not in a layer: its time is not compared.
fn without_unmarked(mut tree: Vec<(Entry, Vec<u8>)>, changes: &[Change]) -> Vec<(Entry, Vec<u8>)> {
    for (entry, _) in &mut tree {
        let marked = changes.iter().any(|c| c.path == entry.path && matches!(c.effect, Effect::Put(_)));
        if !marked {
            entry.mtime = hull_layer::Time::default();
        }
    }
    tree
}

#[test]
fn the_same_change_gives_the_same_bytes_and_another_reader_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(77);
    let mut model = Model::new();
    (0..40).for_each(|_| random.edit(&mut model));
    for name in ["one", "two"] {
        make(&model, &dir.path().join(name), 5);
    }
    fs::create_dir(dir.path().join("empty")).unwrap();
    let open = |name: &str| File::open(dir.path().join(name)).unwrap();
    let tar = |name: &str| {
        tar_of(&diff_trees(open("empty").as_fd(), open(name).as_fd()).unwrap(), &dir.path().join(name))
    };
    let bytes = tar("one");
    assert!(bytes == tar("two"));
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut names: Vec<Vec<u8>> =
        archive.entries().unwrap().map(|e| e.unwrap().path_bytes().trim_ascii_end().to_vec()).collect();
    names.iter_mut().for_each(|name| name.truncate(name.strip_suffix(b"/").map_or(name.len(), <[u8]>::len)));
    let mut expected: Vec<Vec<u8>> = model.keys().map(|path| path.clone().into_bytes()).collect();
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn further_names_of_a_file_become_links_to_the_first() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("t/sub")).unwrap();
    fs::write(dir.path().join("t/b"), "x").unwrap();
    fs::hard_link(dir.path().join("t/b"), dir.path().join("t/a")).unwrap();
    fs::hard_link(dir.path().join("t/b"), dir.path().join("t/sub/c")).unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    let open = |name: &str| File::open(dir.path().join(name)).unwrap();
    let tar = tar_of(&diff_trees(open("empty").as_fd(), open("t").as_fd()).unwrap(), &dir.path().join("t"));
    let done = extract(&tar[..], open("out").as_fd(), &Extractor::layer()).unwrap();
    assert_eq!((done.entries, done.bytes), (4, 1));
    use std::os::unix::fs::MetadataExt;
    let inode = |name: &str| fs::metadata(dir.path().join("out").join(name)).unwrap().ino();
    assert_eq!([inode("a"), inode("b")], [inode("sub/c"), inode("sub/c")]);
}

#[test]
fn runs_of_zeros_become_holes() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let mut writer = TarWriter::new(Vec::new(), TimeRule::Keep);
    let data = [vec![0; 8 << 20], b"end".to_vec(), vec![0; 1 << 20]].concat();
    writer.append(&Entry::file(b"f", data.len() as u64, 0o644), &mut &data[..]).unwrap();
    let tar = writer.finish().unwrap();
    extract(&tar[..], File::open(dir.path()).unwrap().as_fd(), &Extractor::layer()).unwrap();
    let path = dir.path().join("f");
    assert!(fs::read(&path).unwrap() == data);
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
}
