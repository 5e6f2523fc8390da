//! Pages of blocks in memory: a cache of fixed size.
//!
//! Invariants:
//! * A page is in the cache only after its checksum was found right, or as it was written.
//! * What was asked for since the last [`PageCache::begin`] stays until the next: whoever loads what
//!   it misses and begins again finds everything the second time.
//! * A block that is written anew takes the pages of its predecessor out.

use super::store::Pages;
use crate::stdx::slab::{SLAB_COST, SLAB_SIZE};
use crate::stdx::{Slab, to_u64, to_usize, u64_to_usize};
use hashbrown::HashTable;
use std::cell::{Cell, RefCell};
use storage_format::{BlockReference, Checksum, SECTOR_SIZE};

const FRAMES_PER_SLAB: usize = SLAB_SIZE / SECTOR_SIZE;
/// Pages that a block has at most, header page included.
pub const BLOCK_PAGES_MAX: usize = 64;

/// Names a page in the whole file.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PageKey(u64);

impl PageKey {
    /// The page of the block at an address.
    ///
    /// # Panics
    /// When no block has so many pages.
    #[must_use]
    pub fn new(address: u64, page: usize) -> Self {
        assert!(page < BLOCK_PAGES_MAX && address < 1 << 58);
        Self(address << 6 | to_u64(page))
    }

    const fn hash(self) -> u64 {
        let product = self.0 as u128 * 0x9E37_79B9_7F4A_7C15;
        low(product >> 64) ^ low(product)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
const fn low(value: u128) -> u64 {
    value as u64
}

/// A page that was asked for and is not in memory.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Missing {
    /// The page.
    pub key: PageKey,
    /// Its place in its block.
    pub page: usize,
    /// Identity of the block.
    pub checksum: [u8; 16],
    /// Address of the block.
    pub address: u64,
}

impl Missing {
    /// Its block.
    #[must_use]
    pub fn block(&self) -> BlockReference {
        BlockReference {
            checksum: Checksum(self.checksum),
            address: self.address.into(),
            ..BlockReference::default()
        }
    }

    /// The header page of its block.
    #[must_use]
    pub fn header(&self) -> Self {
        Self {
            key: PageKey::new(self.address, 0),
            page: 0,
            ..*self
        }
    }
}

#[derive(Debug)]
struct Frame {
    /// `None` while nothing is in it.
    key: Option<PageKey>,
    /// Whether it was used since the hand passed.
    used: Cell<bool>,
    /// The round in which it was asked for last.
    round: Cell<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct PageCache {
    /// As much as the frames that were ever used take.
    memory: Vec<Slab>,
    frames: Vec<Frame>,
    frames_max: usize,
    table: HashTable<u32>,
    hand: usize,
    round: u64,
    missing: RefCell<Vec<Missing>>,
}

impl PageCache {
    /// A cache of `size` bytes, which are touched as they are used.
    ///
    /// # Panics
    /// When there is not even room for one page.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let frames_max = u64_to_usize(size) / SECTOR_SIZE;
        assert!(frames_max > 0, "a cache has room for a page");
        Self {
            memory: Vec::with_capacity(frames_max.div_ceil(FRAMES_PER_SLAB)),
            frames: Vec::with_capacity(frames_max),
            frames_max,
            table: HashTable::with_capacity(frames_max),
            hand: 0,
            round: 1,
            missing: RefCell::default(),
        }
    }

    /// Pages that there is room for.
    #[must_use]
    pub fn pages_max(&self) -> usize {
        self.frames_max
    }

    /// Begins a round: what was asked for before may go.
    pub fn begin(&mut self) {
        self.round += 1;
        self.missing.get_mut().clear();
    }

    /// Whether something was missing since the last [`Self::begin`] or [`Self::take_missing`].
    #[must_use]
    pub fn has_missing(&self) -> bool {
        !self.missing.borrow().is_empty()
    }

    /// What was missing, each page once, in the order of the file.
    pub fn take_missing(&mut self) -> Vec<Missing> {
        let mut missing = std::mem::take(self.missing.get_mut());
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn find(&self, key: PageKey) -> Option<usize> {
        let frames = &self.frames;
        self.table
            .find(key.hash(), |frame| {
                frames[to_usize(*frame)].key == Some(key)
            })
            .map(|frame| to_usize(*frame))
    }

    /// Whether a page is there; it is not noted as missing.
    #[cfg(test)]
    fn has(&self, key: PageKey) -> bool {
        self.find(key).is_some()
    }

    #[inline]
    fn bytes(&self, frame: usize) -> &[u8] {
        let at = frame % FRAMES_PER_SLAB * SECTOR_SIZE;
        &self.memory[frame / FRAMES_PER_SLAB][at..at + SECTOR_SIZE]
    }

    /// Keeps a page for this round, if it is there.
    #[must_use]
    pub fn touch(&self, key: PageKey) -> bool {
        let found = self.find(key);
        if let Some(frame) = found {
            self.frames[frame].used.set(true);
            self.frames[frame].round.set(self.round);
        }
        found.is_some()
    }

    /// A page that is there, with a note of its use.
    #[inline]
    #[must_use]
    pub fn look(&self, key: PageKey) -> Option<&[u8]> {
        let frame = self.find(key)?;
        let state = &self.frames[frame];
        state.used.set(true);
        state.round.set(self.round);
        Some(self.bytes(frame))
    }

    /// A page that is there, without a note of its use.
    #[must_use]
    pub fn peek(&self, key: PageKey) -> Option<&[u8]> {
        self.find(key).map(|frame| self.bytes(frame))
    }

    /// Puts a page in, which was verified; as one that was asked for if it was `asked`.
    ///
    /// # Panics
    /// When all pages were asked for in this round: the cache is too small for one op.
    pub fn insert(&mut self, key: PageKey, bytes: &[u8], asked: bool) {
        let frame = match self.find(key) {
            Some(frame) => frame,
            None => self.take_frame(key),
        };
        let at = frame % FRAMES_PER_SLAB * SECTOR_SIZE;
        self.memory[frame / FRAMES_PER_SLAB][at..at + SECTOR_SIZE].copy_from_slice(bytes);
        self.frames[frame].used.set(asked);
        self.frames[frame]
            .round
            .set(if asked { self.round } else { 0 });
    }

    fn take_frame(&mut self, key: PageKey) -> usize {
        let frame = if self.frames.len() < self.frames_max {
            if self.frames.len().is_multiple_of(FRAMES_PER_SLAB) {
                self.memory.push(Slab::take());
            }
            self.frames.push(Frame {
                key: None,
                used: Cell::new(false),
                round: Cell::new(0),
            });
            self.frames.len() - 1
        } else {
            self.victim()
        };
        if let Some(old) = self.frames[frame].key.take() {
            self.unlink(old, frame);
        }
        self.frames[frame].key = Some(key);
        let code = u32::try_from(frame).expect("a cache has less than 2^32 pages");
        let frames = &self.frames;
        let _ = self.table.insert_unique(key.hash(), code, |frame| {
            let key = frames[to_usize(*frame)].key;
            key.expect("a frame in the table has a page").hash()
        });
        frame
    }

    /// The first frame that was not used since the hand passed last, and not in this round.
    fn victim(&mut self) -> usize {
        for _ in 0..2 * self.frames_max {
            let frame = self.hand;
            self.hand = (self.hand + 1) % self.frames_max;
            let state = &self.frames[frame];
            if state.round.get() != self.round && !state.used.replace(false) {
                return frame;
            }
        }
        panic!("the cache is too small for what one op needs: --cache-size");
    }

    fn unlink(&mut self, key: PageKey, frame: usize) {
        let code = u32::try_from(frame).expect("a cache has less than 2^32 pages");
        let entry = self.table.find_entry(key.hash(), |at| *at == code);
        let _ = entry.expect("a page is in the table").remove();
    }

    /// Takes the pages of a block out.
    pub fn forget(&mut self, address: u64) {
        for page in 0..BLOCK_PAGES_MAX {
            let key = PageKey::new(address, page);
            if let Some(frame) = self.find(key) {
                self.unlink(key, frame);
                let state = &mut self.frames[frame];
                state.key = None;
                state.used.set(false);
                state.round.set(0);
            }
        }
    }
}

/// Bytes that a cache of `size` bytes takes beside its pages, at most.
#[must_use]
pub fn bookkeeping(size: u64) -> u64 {
    // A place of the hash table has five bytes, and there are less than three for an entry. A page has
    // a share of what its slab takes beside its bytes.
    let slab = (SLAB_COST - SLAB_SIZE).div_ceil(FRAMES_PER_SLAB);
    let frame = to_u64(size_of::<Frame>() + slab) + 16;
    size / to_u64(SECTOR_SIZE) * frame
}

impl Pages for PageCache {
    #[inline]
    fn page(&self, block: &BlockReference, page: usize) -> Option<&[u8]> {
        let address = block.address.get();
        let key = PageKey::new(address, page);
        let found = self.look(key);
        if found.is_none() {
            self.missing.borrow_mut().push(Missing {
                key,
                page,
                checksum: block.checksum.0,
                address,
            });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{PageCache, PageKey};
    use crate::grid::Pages;
    use storage_format::{BlockReference, SECTOR_SIZE};

    fn block(address: u64) -> BlockReference {
        BlockReference {
            address: address.into(),
            ..BlockReference::default()
        }
    }

    fn page(value: u8) -> Vec<u8> {
        vec![value; SECTOR_SIZE]
    }

    fn cache(pages: usize) -> PageCache {
        PageCache::new(crate::stdx::to_u64(pages * SECTOR_SIZE))
    }

    #[test]
    fn what_is_missing_is_noted_once_and_found_after_it_was_put_in() {
        let mut cache = cache(4);
        for _ in 0..3 {
            assert_eq!(cache.page(&block(7), 2), None);
        }
        assert!(cache.has_missing());
        let missing = cache.take_missing();
        assert_eq!(missing.len(), 1);
        assert_eq!((missing[0].address, missing[0].page), (7, 2));
        cache.insert(missing[0].key, &page(9), true);
        assert_eq!(cache.page(&block(7), 2), Some(&page(9)[..]));
        assert!(!cache.has_missing());
    }

    #[test]
    fn pages_of_this_round_stay_and_others_go() {
        let mut cache = cache(4);
        for address in 1..=4 {
            cache.insert(PageKey::new(address, 1), &page(1), true);
        }
        cache.begin();
        assert!(cache.page(&block(2), 1).is_some());
        for address in 5..=7 {
            cache.insert(PageKey::new(address, 1), &page(1), true);
        }
        assert!(cache.has(PageKey::new(2, 1)));
        assert!((5..=7).all(|address| cache.has(PageKey::new(address, 1))));
        assert!(!cache.has(PageKey::new(1, 1)));
    }

    #[test]
    #[should_panic(expected = "the cache is too small")]
    fn a_round_that_needs_more_than_there_is_stops() {
        let mut cache = cache(4);
        for address in 1..=5 {
            cache.insert(PageKey::new(address, 1), &page(1), true);
        }
    }

    #[test]
    fn a_forgotten_block_is_missing_and_its_frames_are_used_again() {
        let mut cache = cache(4);
        for number in 1..4 {
            cache.insert(PageKey::new(3, number), &page(3), true);
        }
        cache.insert(PageKey::new(4, 1), &page(4), true);
        cache.forget(3);
        assert_eq!(cache.page(&block(3), 1), None);
        assert!(cache.page(&block(4), 1).is_some());
        for number in 1..4 {
            cache.insert(PageKey::new(9, number), &page(9), true);
        }
        assert!(cache.has(PageKey::new(4, 1)));
    }
}
