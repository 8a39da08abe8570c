//! What an epoll event is about.

/// The number that an fd is waited on with says what it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// A client wants to connect.
    Listener,
    /// A signal is pending.
    Signals,
    /// The connection to containerd's event service.
    Publisher,
    /// A client.
    Connection(u32),
    /// Either end of a stream: a turn looks at both.
    Stream(u32),
    /// A runtime wants to hand over a terminal.
    Console(u32),
    /// A cgroup may have news of a kill for lack of memory.
    Oom(u32),
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        let (kind, id) = match token {
            Token::Listener => (0, 0),
            Token::Signals => (1, 0),
            Token::Publisher => (2, 0),
            Token::Connection(id) => (3, id),
            Token::Stream(id) => (4, id),
            Token::Console(id) => (5, id),
            Token::Oom(id) => (6, id),
        };
        kind << 32 | Self::from(id)
    }
}

impl From<u64> for Token {
    fn from(raw: u64) -> Self {
        let id = (raw & u64::from(u32::MAX)) as u32;
        match raw >> 32 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Publisher,
            3 => Self::Connection(id),
            4 => Self::Stream(id),
            5 => Self::Console(id),
            _ => Self::Oom(id),
        }
    }
}
