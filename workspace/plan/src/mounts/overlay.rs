//! Overlay layers one by one, where the list of them is too long for one call.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// fsconfig(2) takes strings of at most this many bytes.
const LONGEST_VALUE: usize = 255;

/// Replaces a `lowerdir` that is too long by `lowerdir+` and `datadir+`, one for each layer (Linux 6.5); a shorter one
/// stays as it is, for older kernels.
pub(super) fn split_layers(options: Vec<(String, Option<String>)>) -> Vec<(String, Option<String>)> {
    let mut split = Vec::with_capacity(options.len());
    for (key, value) in options {
        match value {
            Some(list) if key == "lowerdir" && list.len() > LONGEST_VALUE => {
                split.extend(layers(&list).into_iter().map(|(key, layer)| (key.to_string(), Some(layer))));
            }
            value => split.push((key, value)),
        }
    }
    split
}

/// The layers of `a:b::data`, without the backslashes that only the list needs.
fn layers(list: &str) -> Vec<(&'static str, String)> {
    let mut layers = Vec::new();
    let (mut key, mut layer, mut letters) = ("lowerdir+", String::new(), list.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => layer.extend(letters.next()),
            // The second of two colons: what follows is data only.
            ':' if layer.is_empty() => key = "datadir+",
            ':' => layers.push((key, core::mem::take(&mut layer))),
            letter => layer.push(letter),
        }
    }
    if !layer.is_empty() {
        layers.push((key, layer));
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    #[test]
    fn only_a_long_list_is_split() {
        let option = |key: &str, value: &str| (key.to_string(), Some(value.to_string()));
        let short = vec![
            option("lowerdir", "/a:/b"),
            option("upperdir", &"u".repeat(300)),
            ("xino".to_string(), None),
        ];
        assert_eq!(split_layers(short.clone()), short);
        let (first, second) = (format!("/{}", "a".repeat(150)), format!("/{}", "b".repeat(150)));
        let long = vec![option("lowerdir", &format!("{first}:{second}")), option("upperdir", "/u")];
        let expected = [option("lowerdir+", &first), option("lowerdir+", &second), option("upperdir", "/u")];
        assert_eq!(split_layers(long), expected);
    }

    #[test]
    fn backslashes_and_data_layers_are_read_as_the_kernel_does() {
        let expected =
            [("lowerdir+", "/a:b,c\\d"), ("lowerdir+", "/e"), ("datadir+", "/f"), ("datadir+", "/g")];
        let expected = expected.map(|(key, layer)| (key, layer.to_string()));
        assert_eq!(layers(r"/a\:b\,c\\d:/e::/f::/g"), expected);
    }
}
