//! Memory of the state: slabs of the size of a block, which tables fill and never move, and in which
//! blocks are read and written.
//!
//! * Each thread has a pool of its own. A slab that is dropped goes back to it, never to the system:
//!   the bytes that a new one holds mean nothing.
//! * Work on another core gives back the slabs that it was given, unless the state was given up meanwhile: what a thread
//!   drops that takes none itself is there for all, see [`Slab::give_back`].
//! * The first touch of a page costs more than the record that is written to it. A thread of the
//!   server may touch them ahead of time, see [`Slab::set_source`]; what the state does never
//!   depends on it.

use crate::constants;
use std::cell::RefCell;

/// Bytes of a slab: a block fits.
pub const SLAB_SIZE: usize = constants::BLOCK_SIZE;
/// A record of 128 bytes then lies in two lines of the processor's cache, not in three.
const ALIGNMENT: usize = 4096;
/// Slabs that are asked of the system at once.
const REGION_SLABS: usize = 16;
/// Bytes that a slab takes, with its share of what its region leaves out.
pub const SLAB_COST: usize = SLAB_SIZE + ALIGNMENT / REGION_SLABS;

type Memory = &'static mut [u8];

/// An owned piece of memory of [`SLAB_SIZE`] bytes, on the boundary of a page.
#[derive(Debug)]
pub struct Slab(Memory);

type Source = Box<dyn FnMut() -> Option<Region>>;

/// Memory for several slabs.
#[derive(Debug)]
pub struct Region(Memory);

impl Region {
    /// Bytes of a region.
    pub const SIZE: usize = REGION_SLABS * SLAB_SIZE;

    /// Memory whose pages are touched when they are used.
    #[must_use]
    pub fn new() -> Self {
        Self::of(0)
    }

    /// Memory whose pages have all been touched.
    #[must_use]
    pub fn touched() -> Self {
        Self::of(0xDA)
    }

    fn of(byte: u8) -> Self {
        let memory = vec![byte; Self::SIZE + ALIGNMENT].leak();
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self(&mut memory[start..start + Self::SIZE])
    }
}

impl Default for Region {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Default)]
struct Pool {
    free: Vec<Memory>,
    source: Option<Source>,
    /// Whether what is dropped is for other threads.
    gives_back: bool,
}

/// What was given back.
#[expect(
    clippy::disallowed_types,
    reason = "asked when a pool is empty, and when work was done in vain"
)]
static GIVEN_BACK: std::sync::Mutex<Vec<Memory>> = std::sync::Mutex::new(Vec::new());

fn given_back<T>(with: impl FnOnce(&mut Vec<Memory>) -> T) -> T {
    with(&mut GIVEN_BACK.lock().expect("nobody panics under the lock"))
}

impl Pool {
    fn grow(&mut self) {
        self.free = given_back(std::mem::take);
        if !self.free.is_empty() {
            return;
        }
        let region = self.source.as_mut().and_then(|source| source());
        let region = region.unwrap_or_default();
        self.free.extend(region.0.chunks_exact_mut(SLAB_SIZE).rev());
    }
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

impl Slab {
    /// A slab that holds any bytes.
    #[must_use]
    pub fn take() -> Self {
        POOL.with_borrow_mut(|pool| {
            if pool.free.is_empty() {
                pool.grow();
            }
            Self(pool.free.pop().expect("a region has slabs"))
        })
    }

    /// This thread takes no slabs: from now on those that it drops are for other threads.
    pub fn give_back() {
        POOL.with_borrow_mut(|pool| pool.gives_back = true);
    }

    /// From now on the memory of this thread's slabs comes from there, while there is any.
    pub fn set_source(source: impl FnMut() -> Option<Region> + 'static) {
        POOL.with_borrow_mut(|pool| pool.source = Some(Box::new(source)));
    }
}

impl std::ops::Deref for Slab {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl std::ops::DerefMut for Slab {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.0);
        // When the thread ends, its pool may be gone already: the process ends soon, too.
        let _gone = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.gives_back {
                given_back(|slabs| slabs.push(memory));
            } else {
                pool.free.push(memory);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGNMENT, REGION_SLABS, Region, SLAB_SIZE, Slab};

    #[test]
    fn slabs_are_apart_and_used_again() {
        let mut slabs: Vec<Slab> = (0..40).map(|_| Slab::take()).collect();
        for (value, slab) in (0_u8..).zip(&mut slabs) {
            assert_eq!(
                (slab.len(), slab.as_ptr().addr() % ALIGNMENT),
                (SLAB_SIZE, 0)
            );
            slab.fill(value);
        }
        for (value, slab) in (0_u8..).zip(&slabs) {
            assert!(slab.iter().all(|byte| *byte == value));
        }
        let last = slabs.pop().map(|slab| slab.as_ptr().addr());
        assert_eq!(Some(Slab::take().as_ptr().addr()), last);
    }

    #[test]
    fn a_source_is_used_first_and_may_run_dry() {
        let mut regions = vec![Region::touched()];
        Slab::set_source(move || regions.pop());
        let taken: Vec<Slab> = (0..2 * REGION_SLABS).map(|_| Slab::take()).collect();
        let touched = taken.iter().filter(|slab| slab[SLAB_SIZE - 1] == 0xDA);
        assert_eq!(touched.count(), REGION_SLABS);
    }

    #[test]
    fn what_a_thread_gives_back_is_taken_by_others() {
        let slab = Slab::take();
        let address = slab.as_ptr().addr();
        std::thread::scope(|scope| {
            let drop_there = move || {
                Slab::give_back();
                drop(slab);
            };
            drop(scope.spawn(drop_there));
        });
        // What is left of the region first.
        let taken: Vec<Slab> = (0..REGION_SLABS).map(|_| Slab::take()).collect();
        let mut addresses = taken.iter().map(|slab| slab.as_ptr().addr());
        assert!(addresses.any(|taken| taken == address));
    }
}
