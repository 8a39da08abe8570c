//! The container's streams: opened, copied, and kept while their reader is away.

mod console;
mod far_end;
mod logger;
mod open;
mod spool;
mod stream;
mod turn;
mod uri;

pub use console::ConsoleSocket;
pub use far_end::is_hung_up;
pub use logger::Logger;
pub use open::{Endpoint, open_log, open_output, open_stdin};
pub use stream::{Output, Stream};
pub use turn::Turn;
