//! Digests of content: `algorithm:encoded` (image specification, descriptor).

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Error, Result};

/// A syntactically valid digest; safe as a file name once split at the colon.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex(&Sha256::digest(bytes))))
    }

    /// The name before the colon, such as `sha256`.
    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').expect("a digest has a colon").0
    }

    /// What follows the colon.
    pub fn encoded(&self) -> &str {
        self.0.split_once(':').expect("a digest has a colon").1
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as Docker shows ids.
    pub fn short(&self) -> &str {
        let encoded = self.encoded();
        &encoded[..encoded.len().min(12)]
    }

    /// True when content can be checked against it here.
    pub fn is_verifiable(&self) -> bool {
        matches!(self.algorithm(), "sha256" | "sha512")
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason| Error::Digest { text: text.chars().take(200).collect(), reason };
        let (algorithm, encoded) = text.split_once(':').ok_or_else(|| refuse("has no colon"))?;
        if text.len() > 300 {
            return Err(refuse("is longer than 300 bytes"));
        }
        if !algorithm_is_valid(algorithm) {
            return Err(refuse("has an invalid algorithm"));
        }
        let wanted = match algorithm {
            "sha256" => Some(64),
            "sha512" => Some(128),
            _ => None,
        };
        match wanted {
            Some(length) if encoded.len() != length => Err(refuse("has the wrong length")),
            Some(_) if !encoded.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
                Err(refuse("must be lower-case hexadecimal"))
            }
            None if encoded.is_empty() || !encoded.bytes().all(is_encoded_byte) => {
                Err(refuse("has an invalid encoded part"))
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

fn algorithm_is_valid(name: &str) -> bool {
    name.split(['+', '.', '_', '-'])
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

fn is_encoded_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'_' | b'-')
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes content as it streams by.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher {
    /// A SHA-256 hasher, which is what this project writes.
    pub fn new() -> Self {
        Self(State::Sha256(Sha256::new()))
    }

    /// A hasher that can check content against `digest`; `None` for an algorithm not known here.
    pub fn for_digest(digest: &Digest) -> Option<Self> {
        match digest.algorithm() {
            "sha256" => Some(Self::new()),
            "sha512" => Some(Self(State::Sha512(Box::new(Sha512::new())))),
            _ => None,
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hash) => Digest(format!("sha256:{}", hex(&hash.finalize()))),
            State::Sha512(hash) => Digest(format!("sha512:{}", hex(&hash.finalize()))),
        }
    }
}

/// Passes bytes through and hashes them.
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
}

impl<R: Read> HashingReader<R> {
    /// Hashes what is read from `inner`.
    pub fn new(inner: R, hasher: Hasher) -> Self {
        Self { inner, hasher, count: 0 }
    }

    /// The digest and the number of the bytes read so far.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.count)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_published_one() {
        assert_eq!(Digest::of(b"").as_str(), EMPTY);
    }

    #[test]
    fn only_digests_that_are_safe_file_names_are_read() {
        let long = format!("sha512:{}", "a".repeat(128));
        for good in [EMPTY, long.as_str(), "blake3:abc", "multihash+base58:QmRZ", "sha256+b64u:LCa0a2_-="] {
            assert_eq!(good.parse::<Digest>().unwrap().as_str(), good);
        }
        let upper = EMPTY.to_uppercase().replace("SHA", "sha");
        let huge = format!("x:{}", "a".repeat(400));
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:../../x",
            "sha256:abc",
            ":abc",
            "x:",
            "x:a/b",
            "../x:ab",
            "SHA256:ab",
            "a..b:c",
            "x:a\0b",
            upper.as_str(),
            huge.as_str(),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hashing_reader_counts_and_hashes_what_passes() {
        let mut reader = HashingReader::new(&b"hello"[..], Hasher::new());
        io::copy(&mut reader, &mut io::sink()).unwrap();
        let (digest, count) = reader.finish();
        assert_eq!((digest, count), (Digest::of(b"hello"), 5));
    }

    #[test]
    fn sha512_is_verified_and_others_are_not() {
        let digest: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
        let mut hasher = Hasher::for_digest(&digest).unwrap();
        hasher.update(b"abc");
        assert!(hasher.finish().as_str().starts_with("sha512:ddaf35a193617abacc417349ae204131"));
        assert!(Hasher::for_digest(&"blake3:ab".parse().unwrap()).is_none());
    }
}
