//! A heap for programs that live for milliseconds: one region of the program's own zero pages, given out from the
//! bottom up, without a system call. The region is for small blocks; others, and what comes when it is used up, are the C
//! library's, so a program that lives on loses nothing but the region.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of the region. Pages that nobody touches take no memory.
const REGION: usize = 512 << 10;
/// Blocks larger than this are the C library's.
const LARGEST: usize = 20 << 10;

/// The allocator; to be declared with `#[global_allocator]`.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Heap {
    region: UnsafeCell<[u8; REGION]>,
    /// Offset of the first byte that nobody has.
    top: AtomicUsize,
}

// SAFETY: a byte of the region belongs to whoever moved `top` over it, which is atomic; nobody else touches it.
unsafe impl Sync for Heap {}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    /// An unused heap.
    pub const fn new() -> Self {
        Self { region: UnsafeCell::new([0; REGION]), top: AtomicUsize::new(0) }
    }

    /// Takes a block out of the region; none when it does not fit.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        if layout.size() > LARGEST || layout.align() > align_of::<Self>() {
            return None;
        }
        let mut top = self.top.load(Ordering::Acquire);
        loop {
            let start = top.next_multiple_of(layout.align());
            let end = start + layout.size();
            if end > REGION {
                return None;
            }
            match self.top.compare_exchange_weak(top, end, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(self.region.get().cast::<u8>().wrapping_add(start)),
                Err(now) => top = now,
            }
        }
    }

    /// Where a block of ours begins in the region; none for one of the C library's.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        let offset = (block as usize).wrapping_sub(self.region.get() as usize);
        (offset < REGION).then_some(offset)
    }

    /// Moves the end of the block that is the last one given out; false when another one is.
    fn move_end(&self, start: usize, from: usize, to: usize) -> bool {
        let (from, to) = (start + from, start + to);
        to <= REGION && self.top.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: blocks do not overlap, since `top` only goes back over a block that its owner gives back, and each lies where
// its layout wants it; all others come from the system's allocator and go back to it.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(block) => block,
            // SAFETY: the caller's promise about `layout` is the one that is asked for here.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(block) => {
                // SAFETY: the block is that long, and nobody else has it.
                unsafe { ptr::write_bytes(block, 0, layout.size()) };
                block
            }
            // SAFETY: the caller's promise about `layout` is the one that is asked for here.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            // A block below others stays taken: the program ends soon.
            Some(start) => drop(self.move_end(start, layout.size(), 0)),
            // SAFETY: a block outside the region came from the system's allocator, with this layout.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(start) = self.offset(block) else {
            // SAFETY: a block outside the region came from the system's allocator, with this layout.
            return unsafe { System.realloc(block, layout, size) };
        };
        if size <= LARGEST && self.move_end(start, layout.size(), size) {
            return block;
        }
        if size <= layout.size() {
            return block;
        }
        let Ok(larger) = Layout::from_size_align(size, layout.align()) else { return ptr::null_mut() };
        // SAFETY: `larger` has a size above zero, as the caller's `size` is larger than that of a block.
        let moved = unsafe { self.alloc(larger) };
        if !moved.is_null() {
            // SAFETY: both are of at least this size, and a new block overlaps no old one.
            unsafe { ptr::copy_nonoverlapping(block, moved, layout.size()) };
            // SAFETY: the caller's block, which it may not use any more.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("layout")
    }

    #[test]
    fn blocks_do_not_overlap_and_lie_as_asked() {
        let heap = Box::new(Heap::new());
        let (first, second) =
            (heap.take(layout(3, 1)).expect("room"), heap.take(layout(8, 64)).expect("room"));
        assert_eq!((heap.offset(first), heap.offset(second)), (Some(0), Some(64)));
        assert_eq!(second as usize % 64, 0);
    }

    #[test]
    fn the_last_block_grows_in_place_and_is_given_back() {
        let heap = Box::new(Heap::new());
        let first = heap.take(layout(16, 8)).expect("room");
        // SAFETY: a block of this heap with its layout, to a size above zero.
        let grown = unsafe { heap.realloc(first, layout(16, 8), 4000) };
        assert_eq!(grown, first);
        // SAFETY: the block as it is now, used no more.
        unsafe { heap.dealloc(grown, layout(4000, 8)) };
        assert_eq!(heap.take(layout(1, 1)), Some(first));
    }

    #[test]
    fn a_block_below_others_moves_with_its_content() {
        let heap = Box::new(Heap::new());
        let first = heap.take(layout(4, 1)).expect("room");
        let above = heap.take(layout(1, 1)).expect("room");
        // SAFETY: four bytes of the block that was just taken.
        unsafe { ptr::copy_nonoverlapping(b"text".as_ptr(), first, 4) };
        // SAFETY: a block of this heap with its layout, to a size above zero.
        let moved = unsafe { heap.realloc(first, layout(4, 1), 8) };
        assert_eq!(heap.offset(moved), heap.offset(above).map(|offset| offset + 1));
        // SAFETY: the first four of the eight bytes were copied from the old block.
        assert_eq!(unsafe { std::slice::from_raw_parts(moved, 4) }, b"text");
    }

    #[test]
    fn what_does_not_fit_is_the_c_librarys() {
        let heap = Box::new(Heap::new());
        assert!(heap.take(layout(LARGEST + 1, 1)).is_none());
        while heap.take(layout(LARGEST, 1)).is_some() {}
        let wide = layout(LARGEST, 1);
        // SAFETY: a size above zero.
        let outside = unsafe { heap.alloc(wide) };
        assert!(!outside.is_null() && heap.offset(outside).is_none());
        // SAFETY: the block that was just made, with its layout.
        unsafe { heap.dealloc(outside, wide) };
    }
}
