//! What a platform is, and which variants can run where (image specification, index).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::json::null_is_default;

/// Operating system and processor an image is made for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Processor in Go's naming, such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Operating system in Go's naming, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features the operating system must have.
    #[serde(
        default,
        rename = "os.features",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub os_features: Vec<String>,
    /// Variant of the processor, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Platform {
    /// The platform this program runs on.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        let variant = (architecture == "arm64").then(|| "v8".to_owned());
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant, ..Self::default() }
    }

    /// How well an image for `self` serves a machine that is `wanted`: `None` for not at all, else lower is better.
    pub fn fit(&self, wanted: &Self) -> Option<u32> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        if wanted.os_version.is_some() && self.os_version != wanted.os_version {
            return None;
        }
        match self.architecture.as_str() {
            "arm64" => {
                arm_fit(self.variant.as_deref().unwrap_or("v8"), wanted.variant.as_deref().unwrap_or("v8"))
            }
            "arm" => {
                arm_fit(self.variant.as_deref().unwrap_or("v7"), wanted.variant.as_deref().unwrap_or("v7"))
            }
            _ if self.variant == wanted.variant => Some(0),
            _ if self.variant.is_none() || wanted.variant.is_none() => Some(1),
            _ => None,
        }
    }

    /// True for the entries that hold attestations instead of an image.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

/// A processor runs what is made for an older variant of it: v7 runs v6, never the other way.
fn arm_fit(have: &str, want: &str) -> Option<u32> {
    let number = |text: &str| text.strip_prefix('v')?.parse::<u32>().ok();
    match (number(have), number(want)) {
        (Some(have), Some(want)) => want.checked_sub(have),
        _ => (have == want).then_some(0),
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || Error::document("platform", format!("{text:?} is not OS/ARCH[/VARIANT]"));
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(refuse());
        }
        let (os, architecture, variant) = match parts[..] {
            [one] if matches!(one, "linux" | "windows" | "darwin" | "freebsd") => {
                (one, Self::host().architecture, None)
            }
            [one] => ("linux", one.to_owned(), None),
            [os, architecture] => (os, architecture.to_owned(), None),
            [os, architecture, variant] => (os, architecture.to_owned(), Some(variant.to_owned())),
            _ => return Err(refuse()),
        };
        let (architecture, variant) = normal(&architecture, variant);
        Ok(Self { architecture, os: os.to_owned(), variant, ..Self::default() })
    }
}

fn normal(architecture: &str, variant: Option<String>) -> (String, Option<String>) {
    let name = match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "armhf" => return ("arm".to_owned(), variant.or(Some("v7".to_owned()))),
        "armel" => return ("arm".to_owned(), variant.or(Some("v6".to_owned()))),
        "i386" | "i686" => "386",
        other => other,
    };
    (name.to_owned(), variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn short_and_foreign_spellings_become_go_names() {
        for (text, shown) in [
            ("amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("armhf", "linux/arm/v7"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(platform(text).to_string(), shown);
        }
        for bad in ["", "/", "linux//v8", "a/b/c/d"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn older_arm_variants_fit_newer_machines_only() {
        assert_eq!(platform("linux/arm/v6").fit(&platform("linux/arm/v7")), Some(1));
        assert_eq!(platform("linux/arm/v7").fit(&platform("linux/arm/v6")), None);
        assert_eq!(platform("linux/arm64").fit(&platform("linux/arm64/v8")), Some(0));
        assert_eq!(platform("linux/amd64").fit(&platform("linux/arm64")), None);
    }
}
