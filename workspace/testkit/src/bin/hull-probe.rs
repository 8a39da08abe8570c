//! Prints what a process sees inside a container, as one line of JSON. Static, so that it runs on any root file system.
//!
//! - `hull-probe datagrams PATH` keeps a connection to the socket at `PATH` and sends it each line that it reads.
//! - `hull-probe lock PATH` locks the file at `PATH`, which it makes, and says each line that it reads.
//! - `hull-probe connection` is connected to itself over TCP, and says each line that it reads when it has gone that way.
//! - `hull-probe headless` goes on in a second thread; its first asks for the parent's id, which a filter may end it for.
//! - `hull-probe pending` is connected to itself, has not taken the connection, and says each line that it reads.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;

use rustix::fs::{FlockOperation, flock};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["datagrams", path] => datagrams(path),
        ["lock", path] => lock(path),
        ["connection"] => connection(),
        ["pending"] => pending(),
        ["headless"] => headless(),
        _ => {
            println!("{}", hull_testkit::probe::look());
            Ok(())
        }
    }
}

fn datagrams(path: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    io::stdin().lines().try_for_each(|line| socket.send(line?.as_bytes()).map(drop))
}

fn lock(path: &str) -> io::Result<()> {
    let file = File::options().create(true).append(true).open(path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        println!("locked by another");
        return Ok(());
    }
    println!("locked");
    io::stdin().lines().try_for_each(|line| line.map(|line| println!("{line}")))
}

fn connection() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    let mut heard = BufReader::new(server).lines();
    println!("connected");
    io::stdin().lines().try_for_each(|line| {
        writeln!(client, "{}", line?)?;
        heard.next().transpose().map(|line| println!("{}", line.unwrap_or_default()))
    })
}

fn headless() -> io::Result<()> {
    let second = std::thread::spawn(|| {
        loop {
            std::thread::park();
        }
    });
    let _parent = rustix::process::getppid();
    second.join().map_err(|_| io::Error::other("the second thread ended"))
}

fn pending() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let _client = TcpStream::connect(listener.local_addr()?)?;
    println!("connected");
    io::stdin().lines().try_for_each(|line| line.map(|line| println!("{line}")))
}
