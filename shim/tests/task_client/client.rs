//! A client's end of a shim's socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use hull_shim::ttrpc::{Decoder, Kind, Request, Response, RpcStatus, encode};
use prost::Message;

use super::LIMIT;

/// A client's connection.
pub struct Client {
    stream: UnixStream,
    decoder: Decoder,
    next: u32,
    early: Vec<(u32, Response)>,
}

impl Client {
    pub fn connect(address: &str) -> Self {
        let path = address.strip_prefix("unix://").expect("an address of a file");
        let stream = UnixStream::connect(path).expect("connect to the shim");
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self { stream, decoder: Decoder::default(), next: 1, early: Vec::new() }
    }

    /// Sends a call and gives its number.
    pub fn send(&mut self, service: &str, method: &str, request: &impl Message) -> u32 {
        let (stream, frame) = self.frame(service, method, request);
        self.stream.write_all(&frame).unwrap();
        stream
    }

    /// Sends the same call twice at once, before the first can be answered.
    pub fn send_twice(&mut self, service: &str, method: &str, request: &impl Message) -> [u32; 2] {
        let calls = [0, 1].map(|_| self.frame(service, method, request));
        self.stream.write_all(&[calls[0].1.as_slice(), &calls[1].1].concat()).unwrap();
        calls.map(|(stream, _)| stream)
    }

    fn frame(&mut self, service: &str, method: &str, request: &impl Message) -> (u32, Vec<u8>) {
        let stream = self.next;
        self.next += 2;
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload: request.encode_to_vec(),
            ..Request::default()
        };
        (stream, encode(stream, Kind::Request, &request.encode_to_vec()))
    }

    /// Waits for the answer to a call; others that come first are kept.
    pub fn receive(&mut self, stream: u32) -> Result<Vec<u8>, RpcStatus> {
        loop {
            if let Some(at) = self.early.iter().position(|(number, _)| *number == stream) {
                let (_, response) = self.early.swap_remove(at);
                return match response.status {
                    Some(status) if status.code != 0 => Err(status),
                    _ => Ok(response.payload),
                };
            }
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                self.early.push((frame.stream, Response::decode(frame.payload.as_slice()).unwrap()));
                continue;
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(got @ 1..) => self.decoder.feed(&bytes[..got]),
                other => {
                    let message = format!("the connection ended: {other:?}");
                    return Err(RpcStatus { code: 14, message, details: Vec::new() });
                }
            }
        }
    }

    pub fn call(
        &mut self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<Vec<u8>, RpcStatus> {
        let stream = self.send(service, method, request);
        self.receive(stream)
    }
}
