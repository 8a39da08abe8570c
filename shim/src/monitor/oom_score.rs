//! The monitor's own place among those that the kernel kills for lack of memory (`proc_pid_oom_score_adj(5)`).

use std::fs;
use std::path::{Path, PathBuf};

/// Whoever has it is never killed.
const SPARED: &str = "-1000";

/// The score that belongs to whatever we start: the caller's.
#[derive(Debug)]
pub struct OomScore {
    file: PathBuf,
    usual: Option<String>,
}

impl OomScore {
    /// Takes the caller's score. One that spares its process is that of another monitor, whose exit command has started
    /// this container again; no container may have it.
    pub fn of_caller() -> Self {
        Self::in_file(Path::new("/proc/self/oom_score_adj"))
    }

    fn in_file(file: &Path) -> Self {
        let found = fs::read_to_string(file).ok().map(|score| score.trim().to_owned());
        let is_spared = found.as_deref() == Some(SPARED);
        let usual = if is_spared { Some("0".to_owned()) } else { found };
        let score = Self { file: file.to_owned(), usual };
        if is_spared {
            score.give_back();
        }
        score
    }

    /// Spares this process from now on: losing it would lose the exit code.
    pub fn spare(&self) {
        // Not everybody may lower the score.
        let _ = fs::write(&self.file, SPARED);
    }

    /// Takes the caller's score again, for what is started next.
    pub fn give_back(&self) {
        if let Some(usual) = &self.usual {
            // Nobody is kept from raising it, and where it could not be lowered nothing is to be done.
            let _ = fs::write(&self.file, usual);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spared_score_is_the_monitors_alone() {
        let file = std::env::temp_dir().join(format!("hull-oom-score-{}", std::process::id()));
        for (callers, usual) in [("0", "0"), ("200", "200"), ("-500", "-500"), ("-1000", "0")] {
            fs::write(&file, format!("{callers}\n")).unwrap();
            let score = OomScore::in_file(&file);
            let now = || fs::read_to_string(&file).unwrap().trim().to_owned();
            assert_eq!(now(), usual, "the runtime's, for a caller with {callers}");
            score.spare();
            assert_eq!(now(), SPARED);
            score.give_back();
            assert_eq!(now(), usual, "the exit command's, for a caller with {callers}");
        }
        fs::remove_file(file).unwrap();
    }
}
