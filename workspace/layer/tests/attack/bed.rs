//! Archives that nobody checked, and a place where what they do is seen.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use hull_layer::{Error, Extractor, extract};

/// An archive made of raw headers: nothing is checked.
#[derive(Default)]
pub struct Archive(pub Vec<u8>);

impl Archive {
    pub fn entry(mut self, name: &[u8], flag: u8, link: &[u8], data: &[u8]) -> Self {
        self.0.extend(header(name, flag, link, &format!("{:011o}", data.len())));
        self.data(data)
    }

    pub fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, content: &str) -> Self {
        self.entry(name.as_bytes(), b'0', b"", content.as_bytes())
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(name.as_bytes(), b'5', b"", b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name.as_bytes(), b'2', target.as_bytes(), b"")
    }

    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(name.as_bytes(), b'1', target.as_bytes(), b"")
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            bytes.extend(format!("{length} {key}=").bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.entry(b"pax", b'x', b"", &bytes)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// A header with this size as it is written.
pub fn header(name: &[u8], flag: u8, link: &[u8], size: &str) -> [u8; 512] {
    let mut block = [0u8; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..124 + size.len().min(12)].copy_from_slice(&size.as_bytes()[..size.len().min(12)]);
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

/// Sets the checksum.
pub fn seal(block: &mut [u8; 512]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A destination with a decoy beside it that no archive may touch.
pub struct Bed {
    pub dir: tempfile::TempDir,
}

impl Bed {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["dest", "outside", "outside/sub"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("outside/decoy"), "decoy").unwrap();
        Self { dir }
    }

    pub fn dest(&self) -> PathBuf {
        self.dir.path().join("dest")
    }

    /// Everything outside the destination: path, inode, mode, owner, links, size, content.
    pub fn outside(&self) -> Vec<(PathBuf, u64, u32, u32, u64, Vec<u8>)> {
        let mut found = Vec::new();
        let mut stack = vec![self.dir.path().to_owned()];
        while let Some(path) = stack.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if path != self.dir.path() {
                found.push((path.clone(), meta.ino(), meta.mode(), meta.uid(), meta.nlink(), content));
            }
            if meta.is_dir() && path != self.dest() {
                stack.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        found.retain(|(path, ..)| *path != self.dest());
        found.sort();
        found
    }

    pub fn run(&self, archive: &[u8], options: &Extractor<'_>) -> Result<hull_layer::Extracted, Error> {
        extract(archive, File::open(self.dest()).unwrap().as_fd(), options)
    }
}
