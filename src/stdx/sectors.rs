//! Buffers that begin on a sector and are a whole number of sectors long, as O_DIRECT wants them.
//!
//! Unsafe blocks: allocation, deallocation, and the two views of the memory as a slice.
#![expect(
    unsafe_code,
    reason = "std has no owned byte buffer with a chosen alignment"
)]

use super::Slab;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use storage_format::SECTOR_SIZE;

/// An owned buffer of whole sectors.
pub struct SectorBuf(Memory);

enum Memory {
    Heap(Heap),
    Slab(Slab),
}

/// Memory of the allocator's, zeroed when it is made.
struct Heap {
    memory: NonNull<u8>,
    size: usize,
}

// SAFETY: the memory is owned by this value alone and has no interior mutability.
unsafe impl Send for Heap {}

impl SectorBuf {
    /// A zeroed buffer of `size` bytes, a positive multiple of the sector.
    #[must_use]
    pub fn zeroed(size: usize) -> Self {
        Self(Memory::Heap(Heap::zeroed(size)))
    }
}

/// The memory of a slab as a buffer: what it holds can be written without a copy.
impl From<Slab> for SectorBuf {
    fn from(slab: Slab) -> Self {
        assert!(slab.as_ptr().addr().is_multiple_of(SECTOR_SIZE));
        Self(Memory::Slab(slab))
    }
}

impl Heap {
    fn zeroed(size: usize) -> Self {
        let layout = Self::layout(size);
        // SAFETY: `layout` asserts that the size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        match NonNull::new(memory) {
            Some(memory) => Self { memory, size },
            None => handle_alloc_error(layout),
        }
    }

    fn layout(size: usize) -> Layout {
        assert!(
            size > 0 && size.is_multiple_of(SECTOR_SIZE),
            "a buffer is whole sectors: {size}"
        );
        Layout::from_size_align(size, SECTOR_SIZE).expect("the size is far below isize::MAX")
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: the memory was allocated in `zeroed` with the same layout.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.size)) }
    }
}

impl std::ops::Deref for SectorBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: `memory` points to `size` initialized bytes that live as long as `self`.
            Memory::Heap(heap) => unsafe {
                std::slice::from_raw_parts(heap.memory.as_ptr(), heap.size)
            },
            Memory::Slab(slab) => slab,
        }
    }
}

impl std::ops::DerefMut for SectorBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            // SAFETY: as for `deref`, and `&mut self` makes the view unique.
            Memory::Heap(heap) => unsafe {
                std::slice::from_raw_parts_mut(heap.memory.as_ptr(), heap.size)
            },
            Memory::Slab(slab) => slab,
        }
    }
}

impl std::fmt::Debug for SectorBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SectorBuf({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::SectorBuf;
    use crate::stdx::Slab;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_writable() {
        let mut buffer = SectorBuf::zeroed(8192);
        assert_eq!(buffer.as_ptr().addr() % 4096, 0);
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer[8191] = 7;
        assert_eq!(buffer[8191], 7);
        assert_eq!(buffer.len(), 8192);
    }

    #[test]
    fn a_slab_becomes_a_buffer_and_is_used_again() {
        let mut slab = Slab::take();
        slab[5] = 7;
        let address = slab.as_ptr().addr();
        let buffer = SectorBuf::from(slab);
        assert_eq!((buffer.as_ptr().addr(), buffer[5]), (address, 7));
        drop(buffer);
        assert_eq!(Slab::take().as_ptr().addr(), address);
    }
}
