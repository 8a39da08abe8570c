//! `--audit-secrets`: no value that the command line grants is in a new layer, the configuration or the output, as it
//! is or in base64, hex or percent signs.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hull_image::{Descriptor, Store};
use hull_layer::Decompressor;

use crate::error::{Error, Result};
use crate::secrets::Granted;

/// Shorter values are everywhere by chance.
const SHORTEST: usize = 6;
/// Bytes of a layer looked at together.
const WINDOW: usize = 1 << 20;
/// How much larger than compressed a layer may be, after the first 64 MiB: they are our own.
const RATIO: u64 = 2000;

/// One thing that must not be found. Not printable: it holds a secret.
struct Needle {
    id: String,
    form: &'static str,
    bytes: Vec<u8>,
}

/// What is looked for, and what was found.
pub(crate) struct Audit {
    needles: Vec<Needle>,
    found: Mutex<BTreeSet<String>>,
}

impl Audit {
    /// Reads the values of all granted secrets.
    pub(crate) fn of(granted: &Granted) -> Result<Self> {
        let mut needles = Vec::new();
        for (id, source) in &granted.secrets {
            let value = source.read(id)?;
            let whole = value.trim_ascii();
            let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            // Marks like -----BEGIN----- are no secret.
            let lines = lines.filter(|line| *line != whole && !line.starts_with(b"-----"));
            for text in std::iter::once(whole).chain(lines).filter(|text| text.len() >= SHORTEST) {
                needles.extend(forms(text).map(|(form, bytes)| Needle { id: id.clone(), form, bytes }));
            }
        }
        Ok(Self { needles, found: Mutex::default() })
    }

    /// Looks at something small, like a line of output or a document.
    pub(crate) fn look(&self, bytes: &[u8], place: &str) {
        for needle in self.needles.iter().filter(|needle| contains(bytes, &needle.bytes)) {
            let text = format!("the secret \"{}\" ({}) is in {place}", needle.id, needle.form);
            self.found.lock().expect("no thread panics with it").insert(text);
        }
    }

    /// Looks through a layer.
    pub(crate) fn layer(&self, store: &Store, blob: &Descriptor, place: &str) -> Result<()> {
        let mut reader = Decompressor::new(store.blob(blob)?, RATIO)?;
        // The end of a window is looked at once more with the next: a value may lie across.
        let overlap = self.needles.iter().map(|needle| needle.bytes.len()).max().unwrap_or(0);
        let mut window = Vec::with_capacity(WINDOW + overlap);
        loop {
            let before = window.len();
            let read = (&mut reader).take(WINDOW as u64).read_to_end(&mut window);
            read.map_err(Error::io("read", "a layer"))?;
            self.look(&window, place);
            if window.len() == before {
                return Ok(());
            }
            window.drain(..window.len().saturating_sub(overlap));
        }
    }

    /// Fails if anything was found.
    pub(crate) fn verdict(&self) -> Result<()> {
        let found = self.found.lock().expect("no thread panics with it");
        match found.is_empty() {
            true => Ok(()),
            false => Err(Error::fact(found.iter().cloned().collect::<Vec<_>>().join("; "))),
        }
    }
}

/// A value as it is and as it may be written.
fn forms(value: &[u8]) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let hex: String = crate::context::content::hex(value);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let percent = |byte: &u8| match plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    let url: String = value.iter().map(percent).collect();
    let mut all = vec![
        ("as it is", value.to_vec()),
        ("in hex", hex.to_uppercase().into_bytes()),
        ("in hex", hex.into_bytes()),
        ("with percent signs", url.to_lowercase().into_bytes()),
        ("with percent signs", url.into_bytes()),
    ];
    for before in 0..3 {
        all.push(("in base64", in_base64(&STANDARD_NO_PAD, value, before)));
        all.push(("in base64", in_base64(&URL_SAFE_NO_PAD, value, before)));
    }
    // A value that an encoding leaves alone is told as it is; a short rest of one is no proof.
    let raw = value.to_vec();
    all.into_iter()
        .filter(move |(form, bytes)| bytes.len() >= SHORTEST && (*form == "as it is" || *bytes != raw))
}

/// The part of a base64 text that is this value's alone, when `before` bytes stand before it in its group of three.
fn in_base64(engine: &impl Engine, value: &[u8], before: usize) -> Vec<u8> {
    let padded = [&vec![0; before][..], value].concat();
    let text = engine.encode(&padded).into_bytes();
    // Digits that share bits with what stands before or behind.
    let first = (before * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    text[first..last.max(first)].to_vec()
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else { return false };
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|byte| byte == first) {
        at += found + 1;
        if bytes[at..].starts_with(rest) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn every_way_of_writing_a_value_is_found() {
        let value = b"s3cr3t/+value?";
        let needles: Vec<Vec<u8>> = forms(value).map(|(_, bytes)| bytes).collect();
        let found = |text: &[u8]| needles.iter().any(|needle| contains(text, needle));
        for (before, after) in [("", ""), ("a", "b"), ("ab", "xyz"), ("abc", "q"), ("user:", "@host")] {
            let text = [before.as_bytes(), value, after.as_bytes()].concat();
            assert!(found(&text) && found(STANDARD.encode(&text).as_bytes()), "{before} {after}");
            assert!(found(URL_SAFE_NO_PAD.encode(&text).as_bytes()), "{before} {after}");
        }
        assert!(found(b"x=s3cr3t%2F%2Bvalue%3F&") && found(b"s3cr3t%2f%2bvalue%3f"));
        assert!(found(b"7333637233742f2b76616c75653f") && found(b"7333637233742F2B76616C75653F"));
        assert!(!found(b"s3cr3t/+valu"), "not a part of it");
    }
}
