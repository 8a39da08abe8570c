//! Framing: length and stream id (big endian), kind, flags, payload.

/// Bytes before the payload.
pub const HEADER: usize = 10;
/// Largest payload the protocol allows.
pub const MAX_PAYLOAD: usize = 4 << 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call, from the client.
    Request,
    /// The answer to a call.
    Response,
    /// Part of a stream; no method here streams.
    Data,
}

/// One frame, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which call this belongs to; odd, chosen by the client.
    pub stream: u32,
    /// What it carries.
    pub kind: Kind,
    /// A protobuf message.
    pub payload: Vec<u8>,
}

/// Bytes that are no ttrpc; the connection cannot be used further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header promises more than [`MAX_PAYLOAD`].
    #[error("frame of {0} bytes is over the limit")]
    TooLong(usize),
    /// The kind byte is none of the three.
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
}

/// Lays out one frame.
pub fn encode(stream: u32, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let kind = match kind {
        Kind::Request => 1,
        Kind::Response => 2,
        Kind::Data => 3,
    };
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Cuts a byte stream into frames; holds at most one unfinished frame and what was fed beyond it.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes bytes as they came from the socket.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, or `None` until more bytes are fed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = *header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        let kind = match kind {
            1 => Kind::Request,
            2 => Kind::Response,
            3 => Kind::Data,
            other => return Err(FrameError::UnknownKind(other)),
        };
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        let rest = self.buffer.split_off(HEADER + length);
        let payload = core::mem::replace(&mut self.buffer, rest).split_off(HEADER);
        Ok(Some(Frame { stream: u32::from_be_bytes([s0, s1, s2, s3]), kind, payload }))
    }

    /// True when no byte of an unfinished frame is held.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_survives_any_split() {
        let bytes = [encode(1, Kind::Request, b"one"), encode(3, Kind::Response, b"")].concat();
        for cut in 0..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.feed(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            let one = Frame { stream: 1, kind: Kind::Request, payload: b"one".to_vec() };
            let two = Frame { stream: 3, kind: Kind::Response, payload: vec![] };
            assert_eq!(frames, [one, two], "cut at {cut}");
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn oversized_and_unknown_frames_are_errors_before_their_payload_arrives() {
        let mut decoder = Decoder::default();
        decoder.feed(&[0, 0x40, 0, 1, 0, 0, 0, 1, 1, 0]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(MAX_PAYLOAD + 1)));
        let mut decoder = Decoder::default();
        decoder.feed(&[0, 0, 0, 9, 0, 0, 0, 1, 7, 0]);
        assert_eq!(decoder.next_frame(), Err(FrameError::UnknownKind(7)));
    }
}
