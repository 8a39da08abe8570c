//! Debian's registry, as a program of its own.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::bed::{Bed, program};

/// Debian's registry on a port of its own, killed at the end.
pub struct Real {
    child: Child,
    pub port: u16,
}

impl Real {
    pub fn start(bed: &Bed) -> Option<Self> {
        Self::with(bed, "")
    }

    /// With a part of its configuration that says who may use it.
    pub fn with(bed: &Bed, auth: &str) -> Option<Self> {
        Self::serving(bed, "", auth)
    }

    /// With more of how it serves, too.
    pub fn serving(bed: &Bed, http: &str, auth: &str) -> Option<Self> {
        let program = program("docker-registry")?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"{http}}}\n{auth}",
            bed.path("registry").display()
        );
        fs::write(bed.path("registry.yml"), config).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(bed.path("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let real = Self { child: command.spawn().unwrap(), port };
        let up = |_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        };
        assert!((0..500).any(up), "the registry comes up");
        Some(real)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
