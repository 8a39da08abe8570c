//! The 512-byte header block: fields, numbers, checksum.

use super::BLOCK;

/// A header block.
#[derive(Clone)]
pub struct Header(pub [u8; BLOCK]);

type Field = (usize, usize);
const NAME: Field = (0, 100);
const MODE: Field = (100, 8);
const UID: Field = (108, 8);
const GID: Field = (116, 8);
const SIZE: Field = (124, 12);
const MTIME: Field = (136, 12);
const CHECKSUM: Field = (148, 8);
const TYPE: usize = 156;
const LINK: Field = (157, 100);
const MAGIC: Field = (257, 8);
const MAJOR: Field = (329, 8);
const MINOR: Field = (337, 8);
const PREFIX: Field = (345, 155);

/// The largest number that an octal field of `width` bytes holds.
pub const fn octal_max(width: usize) -> u64 {
    (1 << (3 * (width - 1))) - 1
}

impl Header {
    /// An empty ustar header of one type.
    pub fn new(kind: u8) -> Self {
        let mut header = Self([0; BLOCK]);
        header.put(MAGIC, b"ustar\x0000");
        header.0[TYPE] = kind;
        for field in [MODE, UID, GID, SIZE, MTIME, MAJOR, MINOR] {
            header.put_octal(field, 0);
        }
        header
    }

    /// Writes mode, owner and group; numbers that do not fit become 0 and belong into PAX records.
    pub fn set_owner(&mut self, mode: u32, uid: u32, gid: u32) {
        self.put_octal(MODE, u64::from(mode));
        self.put_octal(UID, u64::from(uid));
        self.put_octal(GID, u64::from(gid));
    }

    /// Writes the length of the data that follows.
    pub fn set_size(&mut self, size: u64) {
        self.put_octal(SIZE, size);
    }

    /// Writes the time in seconds since 1970.
    pub fn set_mtime(&mut self, seconds: u64) {
        self.put_octal(MTIME, seconds);
    }

    /// Writes the numbers of a device.
    pub fn set_device(&mut self, major: u32, minor: u32) {
        self.put_octal(MAJOR, u64::from(major));
        self.put_octal(MINOR, u64::from(minor));
    }

    /// Writes a name if it fits, split at a slash when need be; false when it does not.
    pub fn set_name(&mut self, name: &[u8]) -> bool {
        if name.len() <= NAME.1 {
            self.put(NAME, name);
            return true;
        }
        let slash = |at: &usize| name[*at] == b'/' && name.len() - at - 1 <= NAME.1;
        let last = name.len().saturating_sub(1).min(PREFIX.1 + 1);
        match (1..last).rev().find(slash) {
            Some(at) => {
                self.put(PREFIX, &name[..at]);
                self.put(NAME, &name[at + 1..]);
                true
            }
            None => false,
        }
    }

    /// Writes as much of a name as fits.
    pub fn set_short_name(&mut self, name: &[u8]) {
        self.put(NAME, &name[..name.len().min(NAME.1)]);
    }

    /// Writes a link target if it fits; false when it does not.
    pub fn set_link(&mut self, target: &[u8]) -> bool {
        let fits = target.len() <= LINK.1;
        self.put(LINK, &target[..target.len().min(LINK.1)]);
        fits
    }

    /// Fills in the checksum: the last step.
    pub fn seal(&mut self) {
        let sum = self.sum();
        // Six digits, a NUL and a blank.
        self.put_octal((CHECKSUM.0, CHECKSUM.1 - 1), sum.into());
        self.0[CHECKSUM.0 + CHECKSUM.1 - 1] = b' ';
    }

    /// True when the checksum holds, counted with or without sign.
    pub fn is_valid(&self) -> bool {
        let signed: i64 = self.summed().map(|byte| i64::from(byte as i8)).sum();
        match number(self.get(CHECKSUM)) {
            Some(said) => said == i128::from(self.sum()) || said == i128::from(signed),
            None => false,
        }
    }

    /// True for a block of zeros, two of which end an archive.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The type flag.
    pub fn kind(&self) -> u8 {
        self.0[TYPE]
    }

    /// The name, with the prefix of the ustar format.
    pub fn name(&self) -> Vec<u8> {
        let name = text(self.get(NAME));
        // GNU's own format keeps other things where ustar has the prefix.
        let prefix = if self.get(MAGIC).starts_with(b"ustar\0") { text(self.get(PREFIX)) } else { b"" };
        match prefix {
            b"" => name.to_vec(),
            _ => [prefix, b"/", name].concat(),
        }
    }

    /// The link target.
    pub fn link(&self) -> Vec<u8> {
        text(self.get(LINK)).to_vec()
    }

    /// The number in a field: mode, uid, gid, size, mtime, major, minor in this order; `None` for what is no number.
    pub fn numbers(&self) -> [Option<i128>; 7] {
        [MODE, UID, GID, SIZE, MTIME, MAJOR, MINOR].map(|field| number(self.get(field)))
    }

    fn sum(&self) -> u32 {
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        sum(&self.0) - sum(self.get(CHECKSUM)) + CHECKSUM.1 as u32 * u32::from(b' ')
    }

    fn summed(&self) -> impl Iterator<Item = u8> {
        let inside = CHECKSUM.0..CHECKSUM.0 + CHECKSUM.1;
        self.0.iter().enumerate().map(move |(at, byte)| if inside.contains(&at) { b' ' } else { *byte })
    }

    fn get(&self, (start, width): Field) -> &[u8] {
        &self.0[start..start + width]
    }

    fn put(&mut self, (start, _): Field, bytes: &[u8]) {
        self.0[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// Digits by hand: there are a dozen numbers to an entry.
    fn put_octal(&mut self, (start, width): Field, value: u64) {
        let mut left = if value > octal_max(width) { 0 } else { value };
        let field = &mut self.0[start..start + width];
        field[width - 1] = 0;
        for digit in field[..width - 1].iter_mut().rev() {
            *digit = b'0' + (left & 7) as u8;
            left >>= 3;
        }
    }
}

/// A text field ends at its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// An octal number with blanks round it, or a base-256 number of GNU tar; empty is 0.
fn number(field: &[u8]) -> Option<i128> {
    if field[0] & 0x80 != 0 {
        return base_256(field);
    }
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let digits = field[..end].trim_ascii();
    digits.iter().try_fold(0i128, |value, digit| match digit {
        b'0'..=b'7' => Some(value * 8 + i128::from(digit - b'0')),
        _ => None,
    })
}

/// Two's complement, big endian; the top bit only marks the form. At most 12 bytes, so it fits.
fn base_256(field: &[u8]) -> Option<i128> {
    let negative = field[0] & 0x40 != 0;
    let first = if negative { i128::from(field[0]) - 256 } else { i128::from(field[0] & 0x7f) };
    Some(field[1..].iter().fold(first, |value, byte| value * 256 + i128::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_known_form() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b" 644 \0\0\0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"00008\0\0\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(0x7f_ffff_ffff_ffff_ffff_ffff)),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn long_names_are_split_where_both_halves_fit() {
        let mut header = Header::new(b'0');
        let name = [vec![b'a'; 120], vec![b'/'], vec![b'b'; 90]].concat();
        assert!(header.set_name(&name));
        header.seal();
        assert!(header.is_valid());
        assert_eq!(header.name(), name);
        assert!(!Header::new(b'0').set_name(&[b'a'; 101]));
        assert!(!Header::new(b'0').set_name(&[vec![b'a'; 156], vec![b'/'], vec![b'b'; 10]].concat()));
        let edge = [vec![b'a'; 155], vec![b'/'], vec![b'b'; 100]].concat();
        assert!(Header::new(b'0').set_name(&edge));
    }
}
