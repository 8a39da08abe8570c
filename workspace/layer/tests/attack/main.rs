//! Hostile archives: whatever they hold, nothing outside the destination changes, and the answer is one clear error or
//! the right content. A naive extractor beside ours shows that each escape works where nobody prevents it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod escapes;
mod limits;
mod refusals;
