//! The table of mounts, `/proc/self/mountinfo` (proc_pid_mountinfo(5)). Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Its number; used again after it has gone.
    pub id: u64,
    /// The number of the mount it is mounted on.
    pub parent: u64,
    /// Major and minor number of its file system's device.
    pub device: (u32, u32),
    /// Which directory of the file system is its root.
    pub root: PathBuf,
    /// Where it is mounted, seen from the process's root.
    pub mount_point: PathBuf,
    /// Options of this mount, such as `rw,nosuid`.
    pub options: String,
    /// Its peer group, if it is shared.
    pub shared: Option<u64>,
    /// The peer group it receives events from, if it is a slave.
    pub master: Option<u64>,
    /// The nearest dominant peer group below the process's root.
    pub propagate_from: Option<u64>,
    /// It cannot be bound elsewhere.
    pub unbindable: bool,
    /// Type of the file system, such as `ext4` or `fuse.sshfs`.
    pub fs_type: String,
    /// What the file system says it was made from.
    pub source: OsString,
    /// Options of the file system.
    pub super_options: OsString,
}

/// A line that is not as the kernel writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: no valid {field}")]
pub struct Malformed {
    /// Which line, from 1.
    pub line: usize,
    /// The field that is missing or wrong.
    pub field: &'static str,
}

/// All mounts of the table, in its order: a mount comes after the one it is mounted on, of two at one place the later
/// one is on top.
pub fn parse(table: &[u8]) -> Result<Vec<MountEntry>, Malformed> {
    let lines = table.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(index, line)| parse_line(line).map_err(|field| Malformed { line: index + 1, field }))
        .collect()
}

fn parse_line(line: &[u8]) -> Result<MountEntry, &'static str> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()).ok_or("mount number")?;
    let parent = number(fields.next()).ok_or("parent's number")?;
    let device = fields.next().and_then(device).ok_or("device")?;
    let root = PathBuf::from(unescape(fields.next().ok_or("root")?));
    let mount_point = PathBuf::from(unescape(fields.next().ok_or("mount point")?));
    let options = text(fields.next().ok_or("options")?);
    let peers = Peers::parse(&mut fields)?;
    let fs_type = text(fields.next().filter(|name| !name.is_empty()).ok_or("type")?);
    let source = unescape(fields.next().ok_or("source")?);
    let super_options = unescape(fields.next().ok_or("options of the file system")?);
    let Peers { shared, master, propagate_from, unbindable } = peers;
    Ok(MountEntry {
        id,
        parent,
        device,
        root,
        mount_point,
        options,
        shared,
        master,
        propagate_from,
        unbindable,
        fs_type,
        source,
        super_options,
    })
}

/// The optional fields, up to the single hyphen.
#[derive(Default)]
struct Peers {
    shared: Option<u64>,
    master: Option<u64>,
    propagate_from: Option<u64>,
    unbindable: bool,
}

impl Peers {
    fn parse<'l>(fields: &mut impl Iterator<Item = &'l [u8]>) -> Result<Self, &'static str> {
        let mut peers = Self::default();
        loop {
            let field = fields.next().ok_or("end of the optional fields")?;
            if field == b"-" {
                return Ok(peers);
            }
            let at = field.iter().position(|byte| *byte == b':').unwrap_or(field.len());
            let value = number(field.get(at + 1..));
            match &field[..at] {
                b"shared" => peers.shared = Some(value.ok_or("peer group")?),
                b"master" => peers.master = Some(value.ok_or("peer group")?),
                b"propagate_from" => peers.propagate_from = Some(value.ok_or("peer group")?),
                b"unbindable" => peers.unbindable = true,
                // The kernel may add tags; readers are to skip those they do not know.
                _ => {}
            }
        }
    }
}

fn number(field: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(field?).ok()?.parse().ok()
}

fn device(field: &[u8]) -> Option<(u32, u32)> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// Takes the kernel's escapes back: a backslash and three octal digits stand for space, tab, newline, `#` and
/// backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = if *first == b'\\' { tail.get(..3).and_then(octal) } else { None };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes)
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = digits.iter().map(|digit| matches!(digit, b'0'..=b'7').then(|| u32::from(digit - b'0')));
    let value = digits.into_iter().try_fold(0u32, |value, digit| Some(value * 8 + digit?))?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_all_its_fields() {
        let line =
            b"36 35 98:0 /mnt1 /mnt\\0402/a\\134b\\011c rw,noatime shared:7 master:1 propagate_from:2 \
            later:9 unbindable - ext3 /dev/r\\040oot rw,errors=continue\n";
        let expected = MountEntry {
            id: 36,
            parent: 35,
            device: (98, 0),
            root: "/mnt1".into(),
            mount_point: "/mnt 2/a\\b\tc".into(),
            options: "rw,noatime".into(),
            shared: Some(7),
            master: Some(1),
            propagate_from: Some(2),
            unbindable: true,
            fs_type: "ext3".into(),
            source: "/dev/r oot".into(),
            super_options: "rw,errors=continue".into(),
        };
        assert_eq!(parse(line), Ok(vec![expected]));
    }

    #[test]
    fn a_mount_without_source_or_peers_is_understood() {
        let mounts = parse(b"22 1 0:21 / /x rw - tmpfs  rw\n").unwrap();
        assert_eq!((mounts[0].source.len(), mounts[0].shared, mounts[0].master), (0, None, None));
    }

    #[test]
    fn broken_lines_name_line_and_field() {
        let good = "22 1 0:21 / /x rw - tmpfs none rw\n";
        let cases = [
            ("x 1 0:21 / /x rw - tmpfs none rw", "mount number"),
            ("22", "parent's number"),
            ("22 1 0-21 / /x rw - tmpfs none rw", "device"),
            ("22 1 0:21", "root"),
            ("22 1 0:21 /", "mount point"),
            ("22 1 0:21 / /x", "options"),
            ("22 1 0:21 / /x rw shared:1", "end of the optional fields"),
            ("22 1 0:21 / /x rw shared:y - tmpfs none rw", "peer group"),
            ("22 1 0:21 / /x rw -", "type"),
            ("22 1 0:21 / /x rw - tmpfs", "source"),
            ("22 1 0:21 / /x rw - tmpfs none", "options of the file system"),
        ];
        for (line, field) in cases {
            let table = format!("{good}{line}");
            assert_eq!(parse(table.as_bytes()), Err(Malformed { line: 2, field }), "{line}");
        }
    }

    #[test]
    fn only_three_octal_digits_that_fit_a_byte_are_an_escape() {
        let cases: [(&str, &[u8]); 7] = [
            ("a\\040b", b"a b"),
            ("\\012\\043", b"\n#"),
            ("\\377", b"\xff"),
            ("\\400", b"\\400"),
            ("\\08", b"\\08"),
            ("\\", b"\\"),
            ("\\\\040", b"\\ "),
        ];
        for (escaped, plain) in cases {
            assert_eq!(unescape(escaped.as_bytes()).into_vec(), plain, "{escaped}");
        }
    }
}
