//! Metrics messages are long lists of numbers: they are written by field number, straight from the files.

use std::path::Path;

use prost::encoding::{WireType, encode_key, encode_varint};

use crate::bundle::read_limited;

/// Largest statistics file that is read.
const LIMIT: u64 = 1 << 20;

/// A message under construction; a field of value 0 is left out, as proto3 does.
#[derive(Debug, Default)]
pub struct Fields(Vec<u8>);

impl Fields {
    /// Adds a number.
    pub fn number(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            encode_key(field, WireType::Varint, &mut self.0);
            encode_varint(value, &mut self.0);
        }
        self
    }

    /// Adds a number with a fraction.
    pub fn fraction(mut self, field: u32, value: f64) -> Self {
        if value != 0.0 {
            encode_key(field, WireType::SixtyFourBit, &mut self.0);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
        self
    }

    /// Adds a string or a message.
    pub fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        encode_varint(value.len() as u64, &mut self.0);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds a message.
    pub fn message(self, field: u32, value: Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// Adds the numbers of a `key value` table under the field numbers of `names`.
    pub fn table(self, table: &str, names: &[(u32, &str)]) -> Self {
        names.iter().fold(self, |fields, (field, name)| fields.number(*field, lookup(table, name)))
    }

    /// The message's bytes.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// The value of `name` in lines of `name value`, 0 if it is not there.
pub fn lookup(table: &str, name: &str) -> u64 {
    table
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

/// A statistics file, empty if it cannot be read (its controller may be off).
pub fn read(directory: &Path, file: &str) -> String {
    let bytes = read_limited(&directory.join(file), LIMIT).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A file with one number; `max` is the largest there is.
pub fn read_number(directory: &Path, file: &str) -> u64 {
    match read(directory, file).trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_takes_whole_names_only() {
        let table = "rss_huge 5\nrss 3\ntotal_rss 9\n";
        assert_eq!(lookup(table, "rss"), 3);
        assert_eq!(lookup(table, "absent"), 0);
        assert_eq!(Fields::default().table(table, &[(1, "rss"), (2, "absent")]).finish(), [0x08, 3]);
    }
}
