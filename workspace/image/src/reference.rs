//! Names of images: `[registry/]repository[:tag][@digest]`, completed as Docker does.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::{Error, Result};

const DEFAULT_REGISTRY: &str = "docker.io";

/// A complete image name: registry and repository are always there; a tag, a digest, or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host with optional port, such as `docker.io` or `localhost:5000`.
    pub registry: String,
    /// Path below the registry, such as `library/busybox`.
    pub repository: String,
    /// The tag; `latest` when the text had neither tag nor digest.
    pub tag: Option<String>,
    /// The digest, which beats the tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as people write it: without what Docker adds.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned()
    }

    /// The whole reference as people write it.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    /// The same name with another tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !tag_is_valid(tag) {
            return Err(refuse(tag, "is not a valid tag"));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub fn version(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name(), self.suffix())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refuse(text, "looks like an image id"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it belongs to a port.
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !tag_is_valid(tag)
        {
            return Err(refuse(text, "has an invalid tag"));
        }
        let (registry, repository) = split_registry(path);
        check_name(text, &registry, &repository)?;
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry, repository, tag, digest })
    }
}

/// The first part is a registry when it has a dot or a colon, is `localhost`, or has upper-case letters.
fn split_registry(path: &str) -> (String, String) {
    let (registry, repository) = match path.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, path),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let repository = match repository.contains('/') || registry != DEFAULT_REGISTRY {
        true => repository.to_owned(),
        false => format!("library/{repository}"),
    };
    (registry.to_owned(), repository)
}

fn check_name(text: &str, registry: &str, repository: &str) -> Result<()> {
    if !registry_is_valid(registry) {
        return Err(refuse(text, "has an invalid registry host"));
    }
    if repository.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(refuse(text, "must have a lower-case repository"));
    }
    if !repository.split('/').all(component_is_valid) {
        return Err(refuse(text, "has an invalid repository"));
    }
    if registry.len() + repository.len() + 1 > 255 {
        return Err(refuse(text, "has a name longer than 255 bytes"));
    }
    Ok(())
}

fn registry_is_valid(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') => {
                ("v6", if port.is_empty() { None } else { port.strip_prefix(':').or(Some("x")) })
            }
            _ => return false,
        },
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    let host_is_valid = host.split('.').all(|part| {
        let bytes = part.as_bytes();
        !part.is_empty()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    });
    host_is_valid
        && port.is_none_or(|port| port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, separated by one dot, one or two underscores, or any number of dashes.
fn component_is_valid(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_are_words =
        bytes.first().copied().is_some_and(is_word) && bytes.last().copied().is_some_and(is_word);
    ends_are_words
        && component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn tag_is_valid(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    (1..=128).contains(&bytes.len())
        && (bytes[0].is_ascii_alphanumeric() || bytes[0] == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn refuse(text: &str, reason: &str) -> Error {
    Error::Reference { text: text.chars().take(300).collect(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_completed_as_docker_does() {
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/library/a", "docker.io/library/a:latest", "a:latest"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("localhost:5000/a", "localhost:5000/a:latest", "localhost:5000/a:latest"),
            ("localhost:5000/a/b:T_1.x-y", "localhost:5000/a/b:T_1.x-y", "localhost:5000/a/b:T_1.x-y"),
            ("r.example/a-b/c__d/e.f", "r.example/a-b/c__d/e.f:latest", "r.example/a-b/c__d/e.f:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("Host/a", "Host/a:latest", "Host/a:latest"),
            ("a--b", "docker.io/library/a--b:latest", "a--b:latest"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn digest_beats_tag() {
        let both: Reference = format!("a:1@sha256:{HEX}").parse().unwrap();
        assert_eq!(both.version(), format!("sha256:{HEX}"));
        assert_eq!(both.tag.as_deref(), Some("1"));
        let only: Reference = format!("a@sha256:{HEX}").parse().unwrap();
        assert_eq!(only.tag, None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a/".repeat(130) + "a";
        for bad in [
            "",
            ":",
            "a:",
            "a/",
            "/a",
            "A",
            "a/B",
            "a//b",
            "a:-x",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "a:b:c",
            "a@",
            "a@sha256:ab",
            "../a",
            "a b",
            "a:é",
            "host:99999/a",
            "host:+1/a",
            "host:x/a",
            "-h.x/a",
            HEX,
            long.as_str(),
            "http://a/b",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
