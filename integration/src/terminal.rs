//! A terminal with a person at it: a tmux server of the test's own, driven by keys and read by its screen.

use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::{Outcome, Scratch, call};

/// One terminal of 100 columns and 30 lines with a program in it.
#[derive(Debug)]
pub struct Terminal {
    place: Scratch,
}

impl Terminal {
    /// Starts a shell command line in a new terminal; the screen stays readable after its end.
    ///
    /// # Panics
    /// When tmux cannot be started.
    #[must_use]
    pub fn start(command_line: &str) -> Self {
        let terminal = Self { place: Scratch::new("tmux") };
        let held = format!("{command_line}; echo \"status=$?\"; stty -a; sleep 60");
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", &held]).done();
        terminal
    }

    /// Types text as it is.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn type_text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]).done();
    }

    /// Presses keys by tmux's names (`Enter`, `C-c`).
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]).done();
    }

    /// Gives the terminal another size.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, lines: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &lines.to_string()]).done();
    }

    /// What the screen shows.
    #[must_use]
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).stdout
    }

    /// Waits until a line of the screen is `line`.
    ///
    /// # Panics
    /// When that does not happen in time; the message shows the screen.
    #[track_caller]
    pub fn shows(&self, line: &str) {
        let there = || self.screen().lines().any(|shown| shown.trim_end() == line);
        assert!(eventually(PATIENCE, there), "no line {line:?} on\n{}", self.screen());
    }

    /// A program has put the terminal into raw mode: keys reach it one by one.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        let tty = self.tmux(&["display-message", "-p", "#{pane_tty}"]).stdout;
        let settings = call(Command::new("stty").args(["-a", "-F", tty.trim()]), Duration::from_secs(60));
        settings.stdout.contains("-icanon")
    }

    fn tmux(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new("tmux");
        command
            .arg("-S")
            .arg(self.place.join("socket"))
            .args(arguments)
            .env_remove("TMUX")
            .stdin(Stdio::null());
        command.env("SHELL", "/bin/sh").env("TERM", "xterm");
        call(&mut command, Duration::from_secs(60))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It is gone already when its program ended.
        let _ = self.tmux(&["kill-server"]);
    }
}
