//! The pipes between the monitor and the manager that started it.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::io;

/// The pipes, as far as the manager gave them.
#[derive(Debug, Default)]
pub struct Pipes {
    start: Option<OwnedFd>,
    sync: Option<OwnedFd>,
    attach: Option<OwnedFd>,
}

impl Pipes {
    /// Takes over the descriptors that the environment names.
    pub fn from_environment() -> Result<Self, String> {
        let take = |name: &str| -> Result<Option<OwnedFd>, String> {
            let Ok(value) = std::env::var(name) else { return Ok(None) };
            let number = value.parse().map_err(|_| format!("{name} is no descriptor: {value:?}"))?;
            hull_sys::fd::adopt(number).map(Some).map_err(|error| format!("{name}: {error}"))
        };
        Ok(Self {
            start: take("_OCI_STARTPIPE")?,
            sync: take("_OCI_SYNCPIPE")?,
            attach: take("_OCI_ATTACHPIPE")?,
        })
    }

    /// Reports to `sync` and waits for nobody.
    pub fn to(sync: OwnedFd) -> Self {
        Self { sync: Some(sync), ..Self::default() }
    }

    /// Waits until the manager has done what must come first; without a limit, as it is the manager's own time.
    pub fn wait_for_start(&mut self) -> Result<(), String> {
        let Some(pipe) = &self.start else { return Ok(()) };
        let mut message = [0; 8192];
        io::read(pipe.as_fd(), &mut message).map_err(|error| format!("start pipe: {error}"))?;
        if self.attach.is_none() {
            self.start = None;
        }
        Ok(())
    }

    /// Tells that clients can attach, then waits until one has.
    pub fn attach_is_ready(&mut self) -> Result<(), String> {
        let Some(pipe) = self.attach.take() else { return Ok(()) };
        send(Some(&pipe), "data", 0, None);
        let waited = self.wait_for_start();
        self.start = None;
        waited
    }

    /// Reports a number (a pid, or -1, or an exit code) and a text.
    pub fn report(&self, key: &str, number: i64, text: Option<&str>) {
        send(self.sync.as_ref(), key, number, text);
    }
}

fn send(pipe: Option<&OwnedFd>, key: &str, number: i64, text: Option<&str>) {
    let Some(pipe) = pipe else { return };
    let text =
        text.map(|text| format!(", \"message\": {}", serde_json::Value::from(text))).unwrap_or_default();
    // A manager that is gone does not want to know.
    let _ = io::write_all(pipe.as_fd(), format!("{{\"{key}\": {number}{text}}}\n").as_bytes());
}
