//! CRIU, the program that saves processes and makes them again (<https://criu.org>), spoken to over its RPC.
//!
//! It is started as `criu swrk` for one request, with a socket that is ours; when we die the socket ends, and CRIU undoes
//! what it has begun at its next event. No signal is sent to it at our death: killed in the middle of a dump it would
//! leave its own code in the container's processes.
//!
//! | file | what |
//! |---|---|
//! | `messages` | the RPC's messages |
//! | `program` | which CRIU, and what it can do here |
//! | `worker` | the process, and the conversation with it |
//! | `images` | the directories of a checkpoint, and the note about its streams |
//! | `external` | what a container has from outside, in CRIU's words |
//! | `report` | the end of CRIU's log |

pub mod external;
pub mod images;
pub mod messages;
pub mod program;
mod report;
pub mod worker;
