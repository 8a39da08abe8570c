//! Lists of CPUs or memory nodes: `0-3,7` (cpuset(7), list format).

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// Highest number that is accepted: the kernel's largest `CONFIG_NR_CPUS` is 8192.
const HIGHEST: u32 = 8191;

/// Bit mask of the listed numbers, 64 a word, without trailing zero words; blanks and empty elements are skipped.
///
/// # Errors
/// The reason, when an element is neither a number nor an ascending range, or too large.
pub(crate) fn parse(list: &str) -> Result<Vec<u64>, String> {
    let mut mask = Vec::new();
    for element in list.split(',').map(str::trim).filter(|element| !element.is_empty()) {
        let (first, last) = element.split_once('-').unwrap_or((element, element));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{element:?} is not an ascending range"));
        }
        (first..=last).for_each(|number| set(&mut mask, number));
    }
    if mask.is_empty() && !list.is_empty() {
        return Err(format!("{list:?} lists nothing"));
    }
    Ok(mask)
}

fn number(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| digits && *number <= HIGHEST)
        .ok_or_else(|| format!("{text:?} is not a number from 0 to {HIGHEST}"))
}

fn set(mask: &mut Vec<u64>, number: u32) {
    let word = number as usize / 64;
    if mask.len() <= word {
        mask.resize(word + 1, 0);
    }
    mask[word] |= 1 << (number % 64);
}

/// The shortest list of a mask: `0-3,7`.
pub(crate) fn write(mask: &[u64]) -> String {
    let mut ranges: Vec<(u32, u32)> = vec![];
    for number in numbers(mask) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let element = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    ranges.into_iter().map(element).collect::<Vec<_>>().join(",")
}

/// The numbers in a mask, ascending.
fn numbers(mask: &[u64]) -> impl Iterator<Item = u32> {
    (0..).zip(mask).flat_map(|(word, bits)| {
        (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
    })
}

/// How many numbers are in a mask.
pub(crate) fn count(mask: &[u64]) -> u32 {
    mask.iter().map(|word| word.count_ones()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks_and_back() {
        let table: [(&str, &[u64], &str); 6] = [
            ("", &[], ""),
            ("0", &[1], "0"),
            ("0-3,7", &[0x8f], "0-3,7"),
            (" 1 , ,2,3-3", &[0xe], "1-3"),
            ("64", &[0, 1], "64"),
            ("8191", &[&[0; 127][..], &[1 << 63]].concat(), "8191"),
        ];
        for (list, mask, plain) in table {
            assert_eq!(parse(list).as_deref(), Ok(mask), "{list}");
            assert_eq!(write(mask), plain);
        }
        assert_eq!(count(&[0x8f, 1]), 6);
    }

    #[test]
    fn nonsense_is_an_error() {
        for list in ["a", "1-", "-1", "3-1", "+1", "1-2-3", "8192", "0-9876543210", "1 2", "0x1", ",", " "] {
            assert!(parse(list).is_err(), "{list}");
        }
    }
}
