//! Prints what a process sees inside a container, as one line of JSON. Static, so that it runs on any root file system.
#![forbid(unsafe_code)]

fn main() {
    println!("{}", hull_testkit::probe::look());
}
