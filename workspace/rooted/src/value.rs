//! Whether what a file of procfs says is what was written to it. Pure.

/// True when both say the same to the kernel: words are compared, whatever stands between them; numbers by their value
/// (the kernel takes `0x10` and prints `16`), lists of ranges by their members (it takes `1,2` and prints `1-2`).
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    let (mut one, mut other) = (words(one), words(other));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if same_word(one, other) => {}
            _ => return false,
        }
    }
}

fn words(value: &[u8]) -> impl Iterator<Item = &str> {
    let words = value.split(|byte| byte.is_ascii_whitespace() || *byte == 0).filter(|word| !word.is_empty());
    // A word that is no text equals none but is still one.
    words.map(|word| std::str::from_utf8(word).unwrap_or("\u{fffd}"))
}

fn same_word(one: &str, other: &str) -> bool {
    let numbers = || number(one).is_some_and(|one| number(other) == Some(one));
    let lists = || ranges(one).is_some_and(|one| ranges(other) == Some(one));
    one == other || numbers() || lists()
}

/// A number as the kernel reads it: decimal, `0x` or octal after a `0`.
fn number(word: &str) -> Option<i128> {
    let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // Rust would take a sign here.
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, base).ok().filter(|_| plain).map(|value| sign * i128::from(value))
}

/// The ranges of a list such as `1,4-6`, in order and joined where they touch.
fn ranges(word: &str) -> Option<Vec<(u64, u64)>> {
    let mut all = word.split(',').map(range).collect::<Option<Vec<_>>>()?;
    all.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, last) in all {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    Some(joined)
}

fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (plain(first)?, plain(last)?);
    (first <= last).then_some((first, last))
}

fn plain(digits: &str) -> Option<u64> {
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn values_are_the_same_when_the_kernel_means_the_same() {
        let alike = [
            ("1", "1\n"),
            (" 0 2147483647", "0\t2147483647\n"),
            ("0x10", "16"),
            ("010", "8"),
            ("-5", "-5\n"),
            ("0", "00"),
            ("8080,8081,9000", "8080-8081,9000\n"),
            ("3,1-2,2-3", "1-3"),
            ("", "\n"),
            ("core.%p", "core.%p\n"),
            ("label\0", "label"),
        ];
        for (written, read) in alike {
            assert!(same(written.as_bytes(), read.as_bytes()), "{written:?} {read:?}");
        }
        let different = [
            ("1", "0"),
            ("1 2", "1"),
            ("", "0"),
            ("0x10", "10"),
            ("1", "-1"),
            ("1,2", "1-3"),
            ("3-1", "1-3"),
            ("abc", "abd"),
            ("18446744073709551616", "0"),
            ("0x+1", "1"),
            ("+1", "1"),
        ];
        for (written, read) in different {
            assert!(!same(written.as_bytes(), read.as_bytes()), "{written:?} {read:?}");
        }
    }
}
