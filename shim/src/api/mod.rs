//! The protocol's messages, declared by field number; names are the protocol's own, so fields carry no prose.
#![allow(missing_docs, reason = "the names are the protocol's own")]

mod bootstrap;
mod events;
mod task;

pub use bootstrap::*;
pub use events::*;
pub use task::*;

use prost::Message;

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Any {
    /// Wraps `message` under its protobuf name (no `type.googleapis.com/` before it: containerd's registry has none).
    pub fn pack(name: &str, message: &impl Message) -> Self {
        Self { type_url: name.to_owned(), value: message.encode_to_vec() }
    }

    /// The type's name without a leading host part.
    pub fn name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or_default()
    }
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// What Go's zero `time.Time` becomes: "no time yet" in every answer of the Go shim.
    pub const GO_ZERO: Self = Self { seconds: -62_135_596_800, nanos: 0 };
}

/// `google.protobuf.Empty`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// `containerd.types.Mount`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mount {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(string, tag = "2")]
    pub source: String,
    #[prost(string, tag = "3")]
    pub target: String,
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}
