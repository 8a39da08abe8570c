//! What becomes of a stream when it has moved what it could.

use std::time::Duration;

use hull_sys::SysError;

/// What a stream waits for after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// More input.
    Input,
    /// Room in the output.
    Room,
    /// More input, and a new look at the output after this time.
    InputOrLook(Duration),
    /// A new look after this time; no input meanwhile (backpressure, or many small pieces are taken together).
    Look(Duration),
    /// The same, as so much comes that others may run first.
    Gather(Duration),
    /// Nothing: it used up its turn and wants another.
    Again,
    /// Nothing more will come.
    Ended,
    /// The same, and not as it should be.
    Failed(SysError),
}
