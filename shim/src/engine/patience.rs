//! How long a reader that is there is waited for.

use std::time::{Duration, Instant};

/// Output that is on its way to a reader may take this long.
const MOVING_LIMIT: Duration = Duration::from_secs(10);
/// Output that nobody reads, or a pipe that some process keeps open, holds an end or a delete up for this long.
const STILL_LIMIT: Duration = Duration::from_millis(800);

/// What a reader had left at the last look, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    unread: u64,
    since: Instant,
    still_since: Instant,
}

impl Patience {
    /// With a reader that has `unread` bytes left at `now`.
    pub fn new(unread: u64, now: Instant) -> Self {
        Self { unread, since: now, still_since: now }
    }

    /// For the next thing that is held up for the same reader: it does not have the time again in which it took nothing.
    pub fn again(self, unread: u64, now: Instant) -> Self {
        let still_since = if unread == self.unread { self.still_since } else { now };
        Self { unread, since: now, still_since }
    }

    /// True when a reader that has `unread` bytes left at `now` has had its time.
    pub fn is_over(&mut self, unread: u64, now: Instant) -> bool {
        if unread != self.unread {
            (self.unread, self.still_since) = (unread, now);
        }
        now - self.since >= MOVING_LIMIT || now - self.still_since >= STILL_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_that_takes_nothing_has_less_time_than_one_that_reads() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut stuck = Patience::new(100_000, start);
        assert!(!stuck.is_over(100_000, at(799)) && stuck.is_over(100_000, at(800)));
        let mut reading = Patience::new(100_000, start);
        for look in 1..20 {
            assert!(!reading.is_over(100_000 - look, at(look * 500)));
        }
        assert!(reading.is_over(1, at(10_000)));
    }

    #[test]
    fn time_in_which_nothing_was_taken_counts_once() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut end = Patience::new(100_000, start);
        assert!(end.is_over(100_000, at(800)));
        assert!(end.again(100_000, at(900)).is_over(100_000, at(900)), "the delete waits no longer");
        assert!(!end.again(50_000, at(900)).is_over(50_000, at(1000)), "it reads again");
    }
}
