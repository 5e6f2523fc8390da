//! Lists of increasing numbers: which transfers an account has, which records hold a value.
//!
//! * A list of one number takes its header only (16 bytes).
//! * Longer lists are blocks of 4, 8, 16, 32 and then 64 words, chained both ways in one arena.
//!   Appending is O(1); 61 of 64 words of a long list are numbers, and nothing ever moves.
//! * A large block also leads to the one 64 before it, so that a walk over n numbers finds its
//!   beginning in O(n / 3904 + 64) steps.
//! * Numbers leave in the reverse order of their arrival over all lists of an arena, so freeing a
//!   block is moving the end of the arena back.

use super::segments::Segments;
use std::ops::RangeInclusive;

/// Words of the largest block.
const BLOCK_MAX: u32 = 64;
/// Blocks until they have the largest size.
const SMALL_BLOCKS: u32 = 4;
/// Numbers in those blocks.
const SMALL_NUMBERS: u32 = 2 + 6 + 14 + 30;
/// Words of a block that are no numbers: the blocks before and after, in a large block also the
/// one that is [`FAR`] before.
const LINKS: u32 = 2;
const LINKS_LARGE: u32 = 3;
const FAR: u32 = 64;
/// No block.
const NONE: u32 = u32::MAX;

/// The header of a list.
#[derive(Clone, Copy, Debug)]
pub struct List {
    count: u32,
    first: u32,
    /// The first and last block.
    head: u32,
    tail: u32,
}

impl Default for List {
    fn default() -> Self {
        Self {
            count: 0,
            first: 0,
            head: NONE,
            tail: NONE,
        }
    }
}

impl List {
    /// Numbers of the list.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Words of the block with this ordinal in its list.
const fn block_words(ordinal: u32) -> u32 {
    if ordinal < SMALL_BLOCKS {
        4 << ordinal
    } else {
        BLOCK_MAX
    }
}

const fn links(ordinal: u32) -> u32 {
    if ordinal < SMALL_BLOCKS {
        LINKS
    } else {
        LINKS_LARGE
    }
}

/// The ordinal of the block that holds the number `index` (not counting the first), and its index
/// there.
#[inline]
const fn place(index: u32) -> (u32, u32) {
    if index >= SMALL_NUMBERS {
        let beyond = index - SMALL_NUMBERS;
        let numbers = BLOCK_MAX - LINKS_LARGE;
        return (SMALL_BLOCKS + beyond / numbers, beyond % numbers);
    }
    if index < 2 {
        (0, index)
    } else if index < 2 + 6 {
        (1, index - 2)
    } else if index < 2 + 6 + 14 {
        (2, index - 8)
    } else {
        (3, index - 22)
    }
}

/// The arena of many lists.
#[derive(Debug, Default)]
pub struct Postings {
    words: Segments<u32>,
}

impl Postings {
    #[inline]
    fn word(&self, position: u32) -> u32 {
        *self.words.at(position)
    }

    /// Adds a number, which is not below the last of the list.
    #[inline]
    pub fn push(&mut self, list: &mut List, number: u32) {
        if list.count == 0 {
            list.first = number;
        } else {
            let (ordinal, offset) = place(list.count - 1);
            if offset == 0 {
                self.block_push(list, ordinal);
            }
            *self.words.at_mut(list.tail + links(ordinal) + offset) = number;
        }
        list.count += 1;
    }

    fn block_push(&mut self, list: &mut List, ordinal: u32) {
        let block = self.words.push(list.tail);
        self.words.push(NONE);
        for _ in LINKS..block_words(ordinal) {
            self.words.push(0);
        }
        if list.tail == NONE {
            list.head = block;
        } else {
            *self.words.at_mut(list.tail + 1) = block;
        }
        if ordinal >= FAR {
            let far = if ordinal == FAR {
                list.head
            } else {
                // The one after that of the block before.
                self.word(self.word(list.tail + LINKS) + 1)
            };
            *self.words.at_mut(block + LINKS) = far;
        }
        list.tail = block;
    }

    /// Removes the last number, which was the last that came to any list.
    pub fn pop(&mut self, list: &mut List) -> u32 {
        list.count = list.count.checked_sub(1).expect("the list has a number");
        if list.count == 0 {
            return list.first;
        }
        let (ordinal, offset) = place(list.count - 1);
        let number = self.word(list.tail + links(ordinal) + offset);
        if offset == 0 {
            let block = list.tail;
            let end = block + block_words(ordinal);
            assert!(
                end == self.words.len(),
                "blocks are freed in the reverse order"
            );
            list.tail = self.word(block);
            if list.tail == NONE {
                list.head = NONE;
            } else {
                *self.words.at_mut(list.tail + 1) = NONE;
            }
            for _ in block..end {
                self.words.pop();
            }
        }
        number
    }

    /// The last block whose first number is at most `number`, with its ordinal.
    fn locate(&self, list: &List, number: u32) -> Option<(u32, u32)> {
        let (mut ordinal, _) = place(list.count.checked_sub(2)?);
        let mut block = list.tail;
        let first = |block: u32, ordinal: u32| self.word(block + links(ordinal));
        if first(list.head, 0) > number {
            return None;
        }
        while first(block, ordinal) > number {
            if ordinal >= FAR {
                let far = self.word(block + LINKS);
                if first(far, ordinal - FAR) > number {
                    (block, ordinal) = (far, ordinal - FAR);
                    continue;
                }
            }
            (block, ordinal) = (self.word(block), ordinal - 1);
        }
        Some((block, ordinal))
    }

    /// Numbers in the block with this ordinal.
    fn block_len(list: &List, ordinal: u32) -> u32 {
        let (last, offset) = place(list.count - 2);
        if ordinal == last {
            offset + 1
        } else {
            block_words(ordinal) - links(ordinal)
        }
    }

    /// Visits the numbers within bounds, upwards or downwards, until `visit` returns false.
    pub fn walk(
        &self,
        list: &List,
        bounds: &RangeInclusive<u32>,
        reversed: bool,
        visit: impl FnMut(u32) -> bool,
    ) {
        if reversed {
            self.walk_down(list, bounds, visit);
        } else {
            self.walk_up(list, bounds, visit);
        }
    }

    fn walk_up(
        &self,
        list: &List,
        bounds: &RangeInclusive<u32>,
        mut visit: impl FnMut(u32) -> bool,
    ) {
        if list.is_empty() || bounds.contains(&list.first) && !visit(list.first) {
            return;
        }
        let (mut block, mut ordinal) = match self.locate(list, *bounds.start()) {
            Some(located) => located,
            None => (list.head, 0),
        };
        while block != NONE {
            for offset in 0..Self::block_len(list, ordinal) {
                let number = self.word(block + links(ordinal) + offset);
                if number > *bounds.end() || number >= *bounds.start() && !visit(number) {
                    return;
                }
            }
            (block, ordinal) = (self.word(block + 1), ordinal + 1);
        }
    }

    fn walk_down(
        &self,
        list: &List,
        bounds: &RangeInclusive<u32>,
        mut visit: impl FnMut(u32) -> bool,
    ) {
        if let Some((mut block, mut ordinal)) = self.locate(list, *bounds.end()) {
            loop {
                for offset in (0..Self::block_len(list, ordinal)).rev() {
                    let number = self.word(block + links(ordinal) + offset);
                    if number < *bounds.start() || number <= *bounds.end() && !visit(number) {
                        return;
                    }
                }
                if ordinal == 0 {
                    break;
                }
                (block, ordinal) = (self.word(block), ordinal - 1);
            }
        }
        if !list.is_empty() && bounds.contains(&list.first) {
            visit(list.first);
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.words.memory()
    }

    /// Bytes that so many more numbers take at most: a block each.
    #[must_use]
    pub fn growth(&self, numbers: u64) -> u64 {
        self.words.growth(numbers * u64::from(BLOCK_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::{List, Postings};

    fn walked(postings: &Postings, list: &List, low: u32, high: u32, reversed: bool) -> Vec<u32> {
        let mut numbers = Vec::new();
        postings.walk(list, &(low..=high), reversed, |number| {
            numbers.push(number);
            true
        });
        numbers
    }

    #[test]
    fn walks_agree_with_a_vector_at_every_length() {
        let mut postings = Postings::default();
        let (mut list, mut other) = (List::default(), List::default());
        let mut expected: Vec<u32> = Vec::new();
        for step in 0..300_u32 {
            postings.push(&mut list, step * 3);
            postings.push(&mut other, step);
            expected.push(step * 3);
            for (low, high) in [(0, u32::MAX), (100, 400), (3, 3), (4, 5), (600, 900)] {
                let within = expected
                    .iter()
                    .copied()
                    .filter(|n| (low..=high).contains(n));
                assert_eq!(
                    walked(&postings, &list, low, high, false),
                    within.clone().collect::<Vec<_>>()
                );
                assert_eq!(
                    walked(&postings, &list, low, high, true),
                    within.rev().collect::<Vec<_>>()
                );
            }
        }
        for step in (0..300_u32).rev() {
            assert_eq!(postings.pop(&mut other), step);
            assert_eq!(postings.pop(&mut list), expected.pop().unwrap());
            assert_eq!(walked(&postings, &list, 0, u32::MAX, false), expected);
            assert_eq!(
                walked(&postings, &list, 0, u32::MAX, true),
                expected.iter().rev().copied().collect::<Vec<_>>()
            );
        }
        assert_eq!(postings.words.len(), 0, "every block was freed");
    }

    #[test]
    fn a_walk_stops_when_told() {
        let mut postings = Postings::default();
        let mut list = List::default();
        (0..100).for_each(|number| postings.push(&mut list, number));
        for reversed in [false, true] {
            let mut left = 70;
            postings.walk(&list, &(0..=u32::MAX), reversed, |_| {
                left -= 1;
                left > 0
            });
            assert_eq!(left, 0);
        }
    }

    #[test]
    fn long_lists_are_entered_anywhere() {
        let mut postings = Postings::default();
        let mut list = List::default();
        (0..50_000).for_each(|number| postings.push(&mut list, number * 2));
        for low in (0..100_000).step_by(997) {
            let expected: Vec<u32> = (low..=low + 9).filter(|n| n % 2 == 0).collect();
            assert_eq!(walked(&postings, &list, low, low + 9, false), expected);
            let expected: Vec<u32> = expected.into_iter().rev().collect();
            assert_eq!(walked(&postings, &list, low, low + 9, true), expected);
        }
        assert_eq!(walked(&postings, &list, 100_000, u32::MAX, false), []);
        for number in (0..50_000).rev() {
            assert_eq!(postings.pop(&mut list), number * 2);
        }
        assert!(postings.words.is_empty());
    }
}
