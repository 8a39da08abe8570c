//! The out-of-memory score of the container's process.
//!
//! The runtime sets its own before the clone and takes it back afterwards: written by the process itself, inside, it
//! would have to be dumpable for that moment, and others in there could trace it (CVE-2016-9962).

use crate::error::{Context, Result};
use hull_rooted::{Entry, Proc, View};

const FILE: Entry<'static> = Entry::Own("oom_score_adj");

/// The runtime has the container's score until this is dropped.
#[derive(Debug)]
pub struct Lent {
    proc: Proc,
    own: Vec<u8>,
}

/// Takes the score of the process that is about to be cloned; none where the configuration has none.
pub fn lend(score: Option<i32>) -> Result<Option<Lent>> {
    let Some(score) = score else { return Ok(None) };
    let lend = || -> hull_rooted::Result<Lent> {
        let proc = Proc::open(View::Processes)?;
        let own = proc.read(FILE)?;
        proc.write(FILE, score.to_string().as_bytes())?;
        Ok(Lent { proc, own })
    };
    lend()
        .context(|| format!("set the out-of-memory score to {score}"))
        .map_err(|error| {
            error.field("/process/oomScoreAdj").hint("a score below the caller's own needs CAP_SYS_RESOURCE")
        })
        .map(Some)
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A runtime that keeps the score of its container does no harm.
        let _kept = self.proc.write(FILE, self.own.trim_ascii_end());
    }
}
