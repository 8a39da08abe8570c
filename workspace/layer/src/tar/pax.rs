//! PAX extended header records: `LENGTH KEY=VALUE\n`.

use std::collections::BTreeMap;

/// Prefix of records that hold extended attributes.
pub const XATTR: &[u8] = b"SCHILY.xattr.";

/// Records by key.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Appends a record; its length counts itself.
pub fn append(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + digits(length) != length {
        length = rest + digits(length);
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// Reads records; the last of equal keys counts, an empty value takes a key back.
///
/// # Errors
/// A length that lies, a missing `=`, or a NUL where none may be.
pub fn parse(mut bytes: &[u8]) -> Result<Records, &'static str> {
    let mut records = Records::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(12).position(|b| *b == b' ').ok_or("PAX record without a length")?;
        if space == 0 || !bytes[..space].iter().all(u8::is_ascii_digit) {
            return Err("PAX record without a length");
        }
        let length = bytes[..space].iter().fold(0usize, |n, digit| n * 10 + usize::from(digit - b'0'));
        if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err("PAX record whose length lies");
        }
        let record = &bytes[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or("PAX record without a key")?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || key.contains(&0) || (value.contains(&0) && !key.starts_with(XATTR)) {
            return Err("PAX record with a NUL byte");
        }
        match value {
            b"" if !key.starts_with(XATTR) => drop(records.remove(key)),
            _ => drop(records.insert(key.to_vec(), value.to_vec())),
        }
        bytes = &bytes[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_its_own_digits() {
        for size in [1, 5, 6, 7, 90, 91, 92, 93, 94, 95, 985, 990, 995, 9990] {
            let mut bytes = Vec::new();
            append(&mut bytes, b"k", &vec![b'v'; size]);
            let said: usize = String::from_utf8_lossy(&bytes).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, bytes.len());
            assert_eq!(parse(&bytes).unwrap()[&b"k"[..]].len(), size);
        }
    }

    #[test]
    fn lying_records_are_refused() {
        for bad in [
            &b"5 a=b"[..],
            b"7 a=b\n",
            b"6 a=b\nx",
            b"0 a=b\n",
            b"99999999999999999999 a=b\n",
            b"6 a_b\n",
            b"x",
            b"-6 a=b\n",
            b"7 a=\0b\n",
            b"6 =ab\n",
        ] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(parse(b"6 a=b\n6 a=c\n5 a=\n").unwrap(), Records::new());
    }
}
