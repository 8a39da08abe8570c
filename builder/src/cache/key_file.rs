//! Keys as bytes: a large step has tens of thousands of parts, which a general format takes its time to read.

use super::{Key, Part};

const MAGIC: &[u8; 8] = b"hullky01";
/// Length of a key's name.
const NAME: usize = 64;

/// The parts, each with its length, and the key's name as the checksum.
pub(super) fn encode(key: &Key) -> Vec<u8> {
    let length = key.parts.iter().map(|(label, value)| 8 + label.len() + value.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(MAGIC.len() + length + NAME);
    bytes.extend_from_slice(MAGIC);
    for text in key.parts.iter().flat_map(|(label, value)| [label, value]) {
        // Longer texts come from nowhere: a Dockerfile has 4 MiB at most.
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.extend_from_slice(key.name().as_bytes());
    bytes
}

/// `None` for anything that is not whole.
pub(super) fn decode(bytes: &[u8]) -> Option<Key> {
    let (body, name) = bytes.split_at_checked(bytes.len().checked_sub(NAME)?)?;
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut parts: Vec<Part> = Vec::new();
    while !rest.is_empty() {
        let label = text(&mut rest)?;
        parts.push((label, text(&mut rest)?));
    }
    let key = Key { parts };
    (key.name().as_bytes() == name).then_some(key)
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_and_a_damaged_one_does_not() {
        let mut key = Key::new();
        key.part("file 0:./a", "file 0644 ab");
        key.part("", "");
        key.part("é", "x\ny");
        let bytes = encode(&key);
        assert_eq!(decode(&bytes), Some(key));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
