//! Waiting for the kernel to get somewhere, never without a deadline.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Asks `done` until it says true, with growing pauses; false when `deadline` passes first. It is asked at least once.
pub(crate) fn wait_until<E>(deadline: Instant, mut done: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
    let mut pause = FIRST_PAUSE;
    loop {
        if done()? {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
