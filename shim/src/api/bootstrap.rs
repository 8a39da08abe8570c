//! What the `start` and `-info` actions read and print, and the options that a caller passes.

use std::collections::HashMap;

use prost::Message;

use super::Any;

/// `containerd.runtime.bootstrap.v1.BootstrapParams` (containerd 2.3).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BootstrapParams {
    #[prost(string, tag = "1")]
    pub instance_id: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(int32, tag = "3")]
    pub log_level: i32,
    #[prost(string, tag = "4")]
    pub containerd_version: String,
    #[prost(string, tag = "5")]
    pub ttrpc_address: String,
    #[prost(string, tag = "6")]
    pub grpc_address: String,
    #[prost(string, tag = "7")]
    pub containerd_binary: String,
    #[prost(message, repeated, tag = "8")]
    pub extensions: Vec<Extension>,
    #[prost(string, tag = "9")]
    pub socket_dir: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Extension {
    #[prost(message, optional, tag = "1")]
    pub value: Option<Any>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct BootstrapResult {
    #[prost(int32, tag = "1")]
    pub version: i32,
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(string, tag = "3")]
    pub protocol: String,
}

/// `containerd.runc.v1.Options`; also written to the bundle as JSON, so that the delete action knows them.
#[derive(Clone, PartialEq, Eq, Message, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Options {
    #[prost(bool, tag = "1")]
    pub no_pivot_root: bool,
    #[prost(bool, tag = "2")]
    pub no_new_keyring: bool,
    #[prost(string, tag = "3")]
    pub shim_cgroup: String,
    #[prost(uint32, tag = "4")]
    pub io_uid: u32,
    #[prost(uint32, tag = "5")]
    pub io_gid: u32,
    #[prost(string, tag = "6")]
    pub binary_name: String,
    #[prost(string, tag = "7")]
    pub root: String,
    #[prost(string, tag = "8")]
    pub criu_path: String,
    #[prost(bool, tag = "9")]
    pub systemd_cgroup: bool,
    #[prost(string, tag = "10")]
    pub criu_image_path: String,
    #[prost(string, tag = "11")]
    pub criu_work_path: String,
}

/// `runtimeoptions.v1.Options`: what CRI sends for a runtime type it does not know.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RuntimeOptions {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(string, tag = "2")]
    pub config_path: String,
    #[prost(bytes = "vec", tag = "3")]
    pub config_body: Vec<u8>,
}

/// `containerd.runc.v1.CheckpointOptions`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CheckpointOptions {
    #[prost(bool, tag = "1")]
    pub exit: bool,
    #[prost(bool, tag = "2")]
    pub open_tcp: bool,
    #[prost(bool, tag = "3")]
    pub external_unix_sockets: bool,
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    #[prost(bool, tag = "5")]
    pub file_locks: bool,
    #[prost(string, repeated, tag = "6")]
    pub empty_namespaces: Vec<String>,
    #[prost(string, tag = "7")]
    pub cgroups_mode: String,
    #[prost(string, tag = "8")]
    pub image_path: String,
    #[prost(string, tag = "9")]
    pub work_path: String,
}

/// `containerd.types.RuntimeInfo`, the answer of `-info`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RuntimeInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub version: Option<RuntimeVersion>,
    #[prost(message, optional, tag = "3")]
    pub options: Option<Any>,
    #[prost(message, optional, tag = "4")]
    pub features: Option<Any>,
    #[prost(map = "string, string", tag = "5")]
    pub annotations: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct RuntimeVersion {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub revision: String,
}
