//! The event service of a containerd of the tests' own.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hull_shim::api::*;
use hull_shim::ttrpc::{Decoder, Kind, Request, Response, encode};
use hull_testkit::call::eventually;
use prost::Message;

use super::LIMIT;

/// containerd's event service, which can be away.
pub struct Events {
    path: PathBuf,
    seen: Arc<Mutex<Vec<Envelope>>>,
    away: Arc<Mutex<bool>>,
}

impl Events {
    pub fn listen(path: PathBuf) -> Self {
        let events = Self { path, seen: Arc::default(), away: Arc::default() };
        events.serve();
        events
    }

    fn serve(&self) {
        let listener = UnixListener::bind(&self.path).expect("listen for events");
        let (seen, away) = (Arc::clone(&self.seen), Arc::clone(&self.away));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if *away.lock().unwrap() {
                    return;
                }
                let (seen, away) = (Arc::clone(&seen), Arc::clone(&away));
                std::thread::spawn(move || take_events(&stream.unwrap(), &seen, &away));
            }
        });
    }

    /// Goes away as a killed containerd does: connections end, the socket's file stays and refuses.
    pub fn go_away(&self) {
        *self.away.lock().unwrap() = true;
        // The accepting thread ends at the next connection, which closes the listener.
        let _ = UnixStream::connect(&self.path);
        assert!(eventually(LIMIT, || UnixStream::connect(&self.path).is_err()));
    }

    pub fn come_back(&self) {
        *self.away.lock().unwrap() = false;
        fs::remove_file(&self.path).unwrap();
        self.serve();
    }

    /// Topics and decisive numbers so far.
    pub fn brief(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(brief).collect()
    }

    pub fn all(&self) -> Vec<Envelope> {
        self.seen.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn expect(&self, wanted: &[&str]) {
        eventually(Duration::from_secs(10), || self.brief().len() >= wanted.len());
        assert_eq!(self.brief(), wanted);
    }
}

fn take_events(mut stream: &UnixStream, seen: &Mutex<Vec<Envelope>>, away: &Mutex<bool>) {
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut decoder = Decoder::default();
    let mut bytes = [0; 4096];
    while !*away.lock().unwrap() {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(got) => decoder.feed(&bytes[..got]),
            Err(_) => continue,
        }
        while let Some(frame) = decoder.next_frame().unwrap() {
            let request = Request::decode(frame.payload.as_slice()).unwrap();
            assert_eq!(request.service, "containerd.services.events.ttrpc.v1.Events");
            assert_eq!(request.method, "Forward");
            let forward = ForwardRequest::decode(request.payload.as_slice()).unwrap();
            seen.lock().unwrap().push(forward.envelope.unwrap());
            stream.write_all(&encode(frame.stream, Kind::Response, &Response::encode(Ok(vec![])))).unwrap();
        }
    }
}

fn brief(envelope: &Envelope) -> String {
    let value = envelope.event.as_ref().unwrap().value.as_slice();
    let topic = envelope.topic.trim_start_matches("/tasks/");
    match topic {
        "exit" => {
            let exit = TaskExit::decode(value).unwrap();
            let who = if exit.id == exit.container_id { "init" } else { &exit.id };
            format!("exit {who} {}", exit.exit_status)
        }
        "exec-added" | "exec-started" => format!("{topic} {}", TaskExec::decode(value).unwrap().exec_id),
        other => other.to_owned(),
    }
}
