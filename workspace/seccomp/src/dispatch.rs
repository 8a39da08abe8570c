//! From the architecture and the number of a call to its rules: a search tree over ranges of numbers.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{
    arch::{Arch, X32_BIT},
    assemble::{Assembler, Compare, Label},
    calls::{CallId, PRIVATE},
    condition,
    rules::{CallRules, Rules},
    words::{ACTION, ALLOW, ENOSYS, ERRNO, KILL_THREAD, LOG, TRACE},
};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const AUDIT_ARCH: u32 = 4;

/// What a tracer writes over the number of a call that shall not be made.
const NO_CALL: u32 = u32::MAX;

/// Writes a program, ABI by ABI.
pub(crate) struct Dispatch<'a> {
    code: Assembler,
    rules: &'a Rules,
    /// Places of rules already written, by width of the arguments.
    written: BTreeMap<(bool, CallRules), Label>,
}

/// The rules of one ABI, by the numbers of its calls.
pub(crate) struct Table {
    pub(crate) arch: Arch,
    pub(crate) calls: BTreeMap<u32, CallRules>,
}

/// The space of call numbers, cut into ranges: each begins at its number and ends where the next one begins.
#[derive(Default)]
struct Ranges(Vec<(u32, Label)>);

impl<'a> Dispatch<'a> {
    pub(crate) fn new(rules: &'a Rules) -> Self {
        Self { code: Assembler::default(), rules, written: BTreeMap::new() }
    }

    /// Writes the whole program for the ABIs in `tables`, the most likely one first.
    pub(crate) fn program(mut self, tables: &[Table]) -> Vec<crate::Instruction> {
        let mut entry = self.code.answer(KILL_THREAD);
        // x32 shares the section of x86_64.
        let x32 = tables.iter().find(|table| table.arch == Arch::X32);
        let sections = tables.iter().filter(|table| table.arch != Arch::X32);
        for table in sections.rev() {
            let ranges = self.ranges(table, x32);
            let tree = self.tree(&ranges.0);
            let section = self.code.load(NUMBER, tree);
            entry = self.code.branch(Compare::Equal, table.arch.audit(), section, entry);
        }
        let start = self.code.load(AUDIT_ARCH, entry);
        self.code.finish(start)
    }

    /// Cuts the number space of one section into ranges that go to the same place.
    fn ranges(&mut self, table: &Table, x32: Option<&Table>) -> Ranges {
        let mut ranges = Ranges::default();
        self.add_table(&mut ranges, table);
        if table.arch == Arch::X86_64 {
            match x32 {
                Some(x32) => self.add_table(&mut ranges, x32),
                None => ranges.begin(X32_BIT, self.code.answer(KILL_THREAD)),
            }
            // Else a tracer that skips a call would get its process killed.
            ranges.begin(NO_CALL, self.code.answer(self.rules.default));
        }
        ranges
    }

    fn add_table(&mut self, ranges: &mut Ranges, table: &Table) {
        let marker = table.arch.marker();
        let default = self.code.answer(self.rules.default);
        ranges.begin(marker, default);
        let beyond = self.newest(table.arch).map(|newest| {
            let too_new = self.code.answer(ERRNO | ENOSYS);
            (newest + 1, too_new)
        });
        let mut beyond_begun = false;
        let mut after = default;
        for (number, call) in &table.calls {
            if let Some((first, too_new)) = beyond
                && *number >= first
                && !beyond_begun
            {
                ranges.begin(marker + first, too_new);
                (after, beyond_begun) = (too_new, true);
            }
            let target = self.call(table.arch, call, default);
            ranges.begin(marker + number, target);
            ranges.begin(marker + number + 1, after);
        }
        if let Some((first, too_new)) = beyond
            && !beyond_begun
        {
            ranges.begin(marker + first, too_new);
        }
    }

    /// Returns the largest call number the profile names for `arch`, if calls above it shall look unknown.
    ///
    /// A program that tries a call first and falls back when it is missing needs `ENOSYS`, not the profile's errno or a
    /// signal. A permissive default action can deal with new calls itself. ARM's private calls say nothing about the
    /// kernel's age.
    fn newest(&self, arch: Arch) -> Option<u32> {
        if matches!(self.rules.default & ACTION, ALLOW | LOG | TRACE) {
            return None;
        }
        let numbers = self.rules.named.iter().filter_map(|call: &CallId| call.number(arch));
        numbers.filter(|number| *number < PRIVATE).max()
    }

    /// Writes the rules of one call, unless the same rules stand somewhere already.
    fn call(&mut self, arch: Arch, call: &CallRules, default: Label) -> Label {
        if let Some(action) = call.always {
            return self.code.answer(action);
        }
        let key = (arch.is_wide(), call.clone());
        if let Some(label) = self.written.get(&key) {
            return *label;
        }
        let label = condition::rules(&mut self.code, call, arch.is_wide(), default);
        self.written.insert(key, label);
        label
    }

    /// Writes a balanced search tree over `ranges`, of which there is at least one.
    fn tree(&mut self, ranges: &[(u32, Label)]) -> Label {
        match ranges {
            [(_, label)] => *label,
            // A single number amid others: one comparison instead of two.
            [(_, around), (number, inside), (after, same)] if around == same && *after == number + 1 => {
                self.code.branch(Compare::Equal, *number, *inside, *around)
            }
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let above = self.tree(high);
                let below = self.tree(low);
                self.code.branch(Compare::AtLeast, high[0].0, above, below)
            }
        }
    }
}

impl Ranges {
    /// Begins a new range at `number`, which is not below the beginning of the last one.
    fn begin(&mut self, number: u32, label: Label) {
        if self.0.last().is_some_and(|last| last.0 == number) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|last| last.1 != label) {
            self.0.push((number, label));
        }
    }
}
