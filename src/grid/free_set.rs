//! Which blocks of the data file are free.
//!
//! Invariants:
//! * A block that the last durable checkpoint references is never handed out.
//! * A block that was released is handed out again only when the checkpoint that no longer
//!   references it is durable.
//! * Addresses are handed out lowest first, so that they are a function of the log alone.

use crate::stdx::planted::{Bug, planted};
use crate::stdx::{to_u64, u64_to_usize};

/// Which blocks are free.
#[derive(Debug)]
pub struct FreeSet {
    /// One bit a block, set when it is taken; block 1 is bit 0.
    taken: Vec<u64>,
    taken_count: u64,
    count_max: u64,
    /// No free block lies before this word.
    first_free_word: usize,
    /// Released since the last durable checkpoint.
    released: Vec<u64>,
}

impl FreeSet {
    /// All of `count_max` blocks free.
    #[must_use]
    pub fn new(count_max: u64) -> Self {
        Self {
            taken: Vec::new(),
            taken_count: 0,
            count_max,
            first_free_word: 0,
            released: Vec::new(),
        }
    }

    /// Blocks that can be handed out before the next checkpoint.
    #[must_use]
    pub fn free_count(&self) -> u64 {
        self.count_max - self.taken_count
    }

    /// Blocks in use, those included that the next checkpoint frees.
    #[must_use]
    pub fn taken_count(&self) -> u64 {
        self.taken_count
    }

    /// Marks a block as taken that a checkpoint references.
    ///
    /// # Errors
    /// When the address is out of range or taken twice.
    pub fn restore(&mut self, address: u64) -> Result<(), &'static str> {
        if address == 0 || address > self.count_max {
            return Err("a block address is out of range");
        }
        if self.is_taken(address) {
            return Err("two references lead to one block");
        }
        self.take(address);
        Ok(())
    }

    /// The free block with the lowest address.
    ///
    /// # Panics
    /// When there is none: whoever adds data asks `free_count` before.
    pub fn allocate(&mut self) -> u64 {
        while self.taken.get(self.first_free_word) == Some(&u64::MAX) {
            self.first_free_word += 1;
        }
        let word = self.taken.get(self.first_free_word).copied().unwrap_or(0);
        let address = to_u64(self.first_free_word) * 64 + u64::from(word.trailing_ones()) + 1;
        assert!(
            address <= self.count_max,
            "no free block: admission keeps a reserve"
        );
        self.take(address);
        address
    }

    /// Gives a block back; it stays taken until the next checkpoint is durable.
    ///
    /// # Panics
    /// When it is not taken.
    pub fn release(&mut self, address: u64) {
        assert!(self.is_taken(address), "block {address} is released twice");
        self.released.push(address);
        if planted(Bug::ReuseReleasedAtOnce) {
            self.checkpoint_durable();
        }
    }

    /// A checkpoint is durable that does not reference what was released before it.
    pub fn checkpoint_durable(&mut self) {
        for address in std::mem::take(&mut self.released) {
            let (word, bit) = Self::place(address);
            assert!(self.taken[word] & bit != 0);
            self.taken[word] &= !bit;
            self.taken_count -= 1;
            self.first_free_word = self.first_free_word.min(word);
        }
    }

    fn place(address: u64) -> (usize, u64) {
        let index = address - 1;
        (u64_to_usize(index / 64), 1 << (index % 64))
    }

    fn is_taken(&self, address: u64) -> bool {
        let (word, bit) = Self::place(address);
        self.taken.get(word).is_some_and(|taken| taken & bit != 0)
    }

    fn take(&mut self, address: u64) {
        let (word, bit) = Self::place(address);
        if word >= self.taken.len() {
            self.taken.resize(word + 1, 0);
        }
        assert!(self.taken[word] & bit == 0);
        self.taken[word] |= bit;
        self.taken_count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::FreeSet;

    #[test]
    fn a_released_block_comes_back_only_after_the_checkpoint() {
        let mut free = FreeSet::new(100);
        assert_eq!(
            (free.allocate(), free.allocate(), free.allocate()),
            (1, 2, 3)
        );
        free.release(2);
        assert_eq!(free.allocate(), 4);
        assert_eq!(free.free_count(), 96);
        free.checkpoint_durable();
        assert_eq!(free.free_count(), 97);
        assert_eq!((free.allocate(), free.allocate()), (2, 5));
    }

    #[test]
    fn a_reference_out_of_range_or_twice_is_refused() {
        let mut free = FreeSet::new(70);
        assert_eq!(free.restore(70), Ok(()));
        assert!(free.restore(70).is_err());
        assert!(free.restore(71).is_err());
        assert!(free.restore(0).is_err());
        for expected in 1..70 {
            assert_eq!(free.allocate(), expected);
        }
        assert_eq!(free.free_count(), 0);
    }
}
