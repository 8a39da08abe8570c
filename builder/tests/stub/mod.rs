//! A server on loopback that answers as a script says: registries that fail and lie.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Got {
    pub line: String,
    pub headers: BTreeMap<String, String>,
    /// What was read of its body; empty where requests are remembered.
    pub body: Vec<u8>,
}

/// What the stub says: status, headers, body, and how much of the body it sends; without a status it hangs up.
pub struct Say {
    pub status: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub cut: Option<usize>,
}

impl Say {
    pub fn new(status: &'static str, body: &[u8]) -> Self {
        Self { status, headers: Vec::new(), body: body.to_vec(), cut: None }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// A server on loopback that answers as its script says, and remembers what it was asked.
pub struct Stub {
    pub port: u16,
    pub seen: Arc<Mutex<Vec<Got>>>,
}

impl Stub {
    pub fn new(script: impl Fn(&Got, usize) -> Say + Send + Sync + 'static) -> Self {
        Self::hasty(|_, _| usize::MAX, script)
    }

    /// One that reads only so many bytes of a request's body before it answers.
    pub fn hasty(
        reads: impl Fn(&Got, usize) -> usize + Send + Sync + 'static,
        script: impl Fn(&Got, usize) -> Say + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let (script, reads) = (Arc::new(script), Arc::new(reads));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, script, reads) = (Arc::clone(&log), Arc::clone(&script), Arc::clone(&reads));
                // A client that hangs up is part of the game.
                std::thread::spawn(move || drop(serve(stream, &log, (&*reads, &*script))));
            }
        });
        Self { port, seen }
    }

    pub fn image(&self) -> String {
        format!("127.0.0.1:{}/r:t", self.port)
    }

    pub fn seen(&self) -> Vec<Got> {
        self.seen.lock().unwrap().clone()
    }

    pub fn asked(&self, part: &str) -> Vec<Got> {
        self.seen().into_iter().filter(|got| got.line.contains(part)).collect()
    }
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Got>>,
    (reads, script): (&impl Fn(&Got, usize) -> usize, &impl Fn(&Got, usize) -> Say),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut text = String::new();
        reader.read_line(&mut text)?;
        let Some((name, value)) = text.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut got = Got { line, headers, body: Vec::new() };
    let mut all = log.lock().unwrap();
    let before = all.iter().filter(|old| old.line == got.line).count();
    all.push(got.clone());
    drop(all);
    got.body = body(&mut reader, &got.headers, reads(&got, before))?;
    let say = script(&got, before);
    if say.status.is_empty() {
        return Ok(());
    }
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {}\r\n", say.status, say.body.len())?;
    for (name, value) in &say.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if !got.line.starts_with("HEAD") {
        stream.write_all(&say.body[..say.cut.unwrap_or(say.body.len())])?;
    }
    stream.flush()
}

/// Reads a request's body, of known length or in chunks; not much more of it than `most` bytes.
fn body(
    reader: &mut impl BufRead,
    headers: &BTreeMap<String, String>,
    most: usize,
) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_none_or(|how| how != "chunked") {
        let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        reader.take(length.min(most as u64)).read_to_end(&mut body)?;
        return Ok(body);
    }
    while body.len() < most {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim_end(), 16).map_err(std::io::Error::other)?;
        let read = reader.take(size).read_to_end(&mut body)?;
        reader.read_line(&mut String::new())?;
        if read as u64 != size {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if size == 0 {
            break;
        }
    }
    Ok(body)
}
