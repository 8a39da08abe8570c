//! Numbers of ioctls, put together as asm-generic/ioctl.h does.

const fn number(direction: u32, kind: u8, nr: u8, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | (kind as u32) << 8 | nr as u32
}

/// `_IO`: no argument.
pub(crate) const fn none(kind: u8, nr: u8) -> u32 {
    number(0, kind, nr, 0)
}

/// `_IOWR`: the argument is read and written.
pub(crate) const fn read_write(kind: u8, nr: u8, size: usize) -> u32 {
    number(3, kind, nr, size)
}
