//! Faults: kills at any moment, full disks, exhausted tables, damaged files, stuck helpers. After each of them the
//! runtime gives a clear answer, and `delete --force` leaves nothing.
//!
//! docs/runtime-faults.md lists which fault is shown by which test.
#![forbid(unsafe_code)]

mod errors;
mod kills;
mod many;
mod processes;
mod residue;
mod state_files;

use hull_testkit::gate::{Gate, program, root};

fn busybox() -> Gate {
    root().and(program("busybox"))
}
