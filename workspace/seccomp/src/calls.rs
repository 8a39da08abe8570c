//! Names and numbers of system calls: `calls.tbl`, read when the crate is compiled.
//!
//! The numbers are the kernel's, from its exported headers (`asm/unistd*.h`, Linux 7.2). A row of the static table has no
//! pointer, so that it costs no relocation when a static program starts.

use crate::arch::Arch;

const TEXT: &str = include_str!("calls.tbl");
const ABSENT: u32 = u32::MAX;
const COLUMNS: usize = Arch::ALL.len();

/// The smallest number of ARM's private calls, which lie far above the others (`__ARM_NR_BASE`).
pub(crate) const PRIVATE: u32 = 0x0f_0000;

#[derive(Clone, Copy)]
struct Call {
    start: u16,
    length: u8,
    numbers: [u32; COLUMNS],
}

static CALLS: [Call; row_count()] = rows();

/// A known call.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct CallId(u16);

impl CallId {
    /// How many known calls there are.
    pub(crate) const COUNT: usize = row_count();

    /// All of them, in the order of their names.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..u16::MAX).take(Self::COUNT).map(Self)
    }

    /// Its place in that order.
    pub(crate) fn place(self) -> usize {
        usize::from(self.0)
    }

    /// Finds the call with this name on any ABI.
    pub(crate) fn find(name: &str) -> Option<Self> {
        let row = CALLS.binary_search_by(|call| name_at(call).cmp(name)).ok()?;
        u16::try_from(row).ok().map(Self)
    }

    /// Returns its name.
    pub(crate) fn name(self) -> &'static str {
        name_at(&CALLS[usize::from(self.0)])
    }

    /// Returns its number on `arch`, without the marker of x32.
    pub(crate) fn number(self, arch: Arch) -> Option<u32> {
        let number = CALLS[usize::from(self.0)].numbers[arch as usize];
        (number != ABSENT).then_some(number)
    }
}

/// Returns the number of the call `name` on `arch`, as `seccomp_data.nr` has it.
pub fn number_of(arch: Arch, name: &str) -> Option<u32> {
    Some(CallId::find(name)?.number(arch)? + arch.marker())
}

/// Returns the name of call `number` on `arch`; where one number has two names, the first in the alphabet.
pub fn name_of(arch: Arch, number: u32) -> Option<&'static str> {
    let plain = number.checked_sub(arch.marker()).filter(|plain| *plain != ABSENT)?;
    CALLS.iter().find(|call| call.numbers[arch as usize] == plain).map(name_at)
}

fn name_at(call: &Call) -> &'static str {
    let start = usize::from(call.start);
    &TEXT[start..start + usize::from(call.length)]
}

const fn row_count() -> usize {
    let text = TEXT.as_bytes();
    let (mut lines, mut at) = (0, 0);
    while at < text.len() {
        if text[at] == b'\n' {
            lines += 1;
        }
        at += 1;
    }
    // The first line says what the columns are.
    lines - 1
}

const fn rows() -> [Call; row_count()] {
    let text = TEXT.as_bytes();
    let mut rows = [Call { start: 0, length: 0, numbers: [ABSENT; COLUMNS] }; row_count()];
    let mut at = skip_past(text, 0, b'\n');
    let mut row = 0;
    while row < rows.len() {
        let numbers_at = skip_past(text, at, b' ');
        let length = numbers_at - at - 1;
        assert!(at <= u16::MAX as usize && length <= u8::MAX as usize);
        rows[row].start = at as u16;
        rows[row].length = length as u8;
        let mut column = 0;
        at = numbers_at;
        while column < COLUMNS {
            (rows[row].numbers[column], at) = field(text, at);
            column += 1;
        }
        row += 1;
    }
    rows
}

/// Reads the number at `at`, or `-`; returns it and where the next field begins.
const fn field(text: &[u8], mut at: usize) -> (u32, usize) {
    if text[at] == b'-' {
        return (ABSENT, at + 2);
    }
    let mut number = 0;
    while text[at] >= b'0' && text[at] <= b'9' {
        number = number * 10 + (text[at] - b'0') as u32;
        at += 1;
    }
    (number, at + 1)
}

const fn skip_past(text: &[u8], mut at: usize, byte: u8) -> usize {
    while text[at] != byte {
        at += 1;
    }
    at + 1
}
