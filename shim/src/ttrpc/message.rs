//! The two envelopes of ttrpc and the status codes of gRPC that answers carry.
#![allow(missing_docs, reason = "the names are the protocol's own")]

use prost::Message;

use crate::api::Any;

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<RpcStatus>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// The gRPC codes this shim answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// Why a call was not carried out, as the caller gets it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    pub code: Code,
    pub text: String,
}

impl Refusal {
    /// A refusal with `code` and the text that the user will read.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// A refusal that has no better code, as most of the Go shim's.
    pub fn unknown(text: impl Into<String>) -> Self {
        Self::new(Code::Unknown, text)
    }

    /// A refusal because the container or process does not exist.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(Code::NotFound, text)
    }
}

impl Response {
    /// Encodes an answer or a refusal.
    pub fn encode(answer: Result<Vec<u8>, Refusal>) -> Vec<u8> {
        let response = match answer {
            // The Go client reads a missing status as "ok" as well, but the Rust one does not.
            Ok(payload) => Self { status: Some(RpcStatus::default()), payload },
            Err(Refusal { code, text }) => {
                let status = RpcStatus { code: code as i32, message: text, details: Vec::new() };
                Self { status: Some(status), payload: Vec::new() }
            }
        };
        response.encode_to_vec()
    }
}
