//! ttrpc, unary calls only: a ten-byte header, one protobuf message, several calls in flight on a connection.

mod frame;
mod message;

pub use frame::{Decoder, Frame, FrameError, HEADER, Kind, MAX_PAYLOAD, encode};
pub use message::{Code, KeyValue, Refusal, Request, Response, RpcStatus};
