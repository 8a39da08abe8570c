//! The image configuration: what Docker and OCI write, with every unknown field kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::json::null_is_default;
use crate::platform::Platform;

/// The largest configuration that is read, in bytes.
pub const MAX_BYTES: usize = 8 << 20;

/// The configuration of an image; its digest is the image's id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Processor, in Go's naming.
    #[serde(default)]
    pub architecture: String,
    /// Operating system, in Go's naming.
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
    /// Variant of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Defaults for containers made from the image.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: RunConfig,
    /// The layers by the digests of their uncompressed archives.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// How each layer came to be, base first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Defaults for containers made from an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user`, `user:group`, names or numbers.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub user: String,
    /// Ports by `number/protocol`; the values are empty objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `KEY=value`; the last of equal keys wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The program and first arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, or the whole command without an entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// How to find out whether a container works (Docker's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Directories that hold data; the values are empty objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, Value>,
    /// Where the command starts.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Instructions for images built on this one (Docker's extension).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    /// Free-form notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the container to end; a name or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// What runs the shell form of instructions (Docker's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Docker's health check; times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", text]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Between checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// For one check.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Before failures count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between checks during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The layers of a root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed archives, base first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// In whose words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// True when the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Refused are one that is too large, is no JSON, or describes another root file system than `layers`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let refuse = |reason: String| Error::document("image configuration", reason);
        if bytes.len() > MAX_BYTES {
            return Err(refuse(format!("is {} bytes, more than {MAX_BYTES}", bytes.len())));
        }
        let config: Self = serde_json::from_slice(bytes).map_err(|e| refuse(e.to_string()))?;
        if config.rootfs.kind != "layers" {
            return Err(refuse(format!("has a root file system of type {:?}", config.rootfs.kind)));
        }
        Ok(config)
    }

    /// Checks that it belongs to a manifest with `layers` layers.
    ///
    /// # Errors
    /// Refused are another count of diff ids, and a history with more non-empty entries than layers. One with fewer is
    /// taken, as Docker does: see [`Self::complete_history`].
    pub fn check_layers(&self, layers: usize) -> Result<()> {
        let refuse = |reason: String| Err(Error::document("image configuration", reason));
        let ids = self.rootfs.diff_ids.len();
        if ids != layers {
            return refuse(format!("has {ids} diff ids for {layers} layers"));
        }
        let steps = self.history.iter().filter(|step| !step.empty_layer).count();
        if steps > layers {
            return refuse(format!("has {steps} non-empty history entries for {layers} layers"));
        }
        Ok(())
    }

    /// Gives each layer that has none an entry in the history, so that what is added stays in step with the layers.
    pub fn complete_history(&mut self) {
        let known = self.history.iter().filter(|step| !step.empty_layer).count();
        for _ in known..self.rootfs.diff_ids.len() {
            self.history.push(History { comment: Some("from the base image".into()), ..History::default() });
        }
    }

    /// The platform it says it is for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
            extra: Map::new(),
        }
    }
}

impl RunConfig {
    /// The value of an environment variable; of equal keys the last counts.
    pub fn env_value(&self, key: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|entry| entry.strip_prefix(key)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_survive_at_every_level() {
        let text = r#"{"architecture":"amd64","config":{"ArgsEscaped":true,"Env":["A=1"],"Healthcheck":{"New":1,"Test":["NONE"]},"X":null},"history":[{"comment":"c","created_by":"x","y":2}],"os":"linux","rootfs":{"diff_ids":[],"type":"layers"},"z":{"k":[]}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(crate::canonical(&config)).unwrap(), text);
    }

    #[test]
    fn null_fields_are_absent_fields() {
        let text = r#"{"architecture":"amd64","os":"linux","created":null,"history":null,"rootfs":{"type":"layers","diff_ids":null},
            "config":{"Env":null,"Cmd":null,"Volumes":null,"Labels":null,"OnBuild":null,"ExposedPorts":null,"User":null}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config, RunConfig::default());
        assert_eq!(config.rootfs, RootFs::default());
    }

    #[test]
    fn a_base_without_history_takes_more_layers() {
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = vec![Digest::of(b"a"), Digest::of(b"b")];
        config.history = vec![History { empty_layer: true, ..History::default() }];
        config.complete_history();
        config.rootfs.diff_ids.push(Digest::of(b"c"));
        config.history.push(History::default());
        assert!(config.check_layers(3).is_ok());
        let before = config.clone();
        config.complete_history();
        assert_eq!(config, before, "nothing is missing now");
    }

    #[test]
    fn history_and_layers_must_agree() {
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = vec![Digest::of(b"a")];
        assert!(config.check_layers(1).is_ok());
        assert!(config.check_layers(2).is_err());
        config.history = vec![History { empty_layer: true, ..History::default() }];
        assert!(config.check_layers(1).is_ok(), "a history may be incomplete");
        config.history.push(History::default());
        assert!(config.check_layers(1).is_ok());
        config.history.push(History::default());
        assert!(config.check_layers(1).is_err());
    }

    #[test]
    fn last_of_equal_environment_keys_counts() {
        let config =
            RunConfig { env: vec!["A=1".into(), "AB=2".into(), "A=3".into()], ..RunConfig::default() };
        assert_eq!((config.env_value("A"), config.env_value("B")), (Some("3"), None));
    }
}
