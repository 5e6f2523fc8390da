//! The order of keys that arrived in any order: by radix, a pass for each byte in which they differ.
//!
//! Keys of few bits, and keys that are all the same or in order already, cost little.

use crate::stdx::{to_u64, to_usize, u64_to_usize};

/// Keys that are sorted at once by [`in_order`]: a number takes the low bits of a word.
const CHUNK: usize = 1 << LOW_BITS;
/// Bits of a word below its key.
pub(super) const LOW_BITS: u32 = 16;
/// Bits of a key.
const KEY_BITS: u32 = 48;
/// A sort takes a pass for each digit in which words differ.
const DIGIT_BITS: usize = 8;
const RADIX: usize = 1 << DIGIT_BITS;
const DIGIT: u64 = (1 << DIGIT_BITS) - 1;

/// Sorts words of a key of 48 bits above 16 bits, which are in order among words of equal keys.
pub fn words(words: &mut Vec<u64>, spare: &mut Vec<u64>) {
    if words.is_sorted() {
        return;
    }
    let first = words[0];
    let differ = words.iter().fold(0, |differ, word| differ | (word ^ first));
    spare.clear();
    spare.resize(words.len(), 0);
    for shift in (LOW_BITS..u64::BITS).step_by(DIGIT_BITS) {
        if differ >> shift & DIGIT != 0 {
            by_digit(shift, words, spare);
            std::mem::swap(words, spare);
        }
    }
}

/// Copies words in the order of a digit; those of which it is the same stay in order.
fn by_digit(shift: u32, words: &[u64], sorted: &mut [u64]) {
    let digit = |word: &u64| u64_to_usize(word >> shift & DIGIT);
    let mut next = [0_u32; RADIX];
    for word in words {
        next[digit(word)] += 1;
    }
    let mut start = 0;
    for count in &mut next {
        start += std::mem::replace(count, start);
    }
    for word in words {
        let next = &mut next[digit(word)];
        sorted[to_usize(*next)] = *word;
        *next += 1;
    }
}

/// Calls `visit` with the number of each of `count` keys of 48 bits, in the order of the keys and then
/// of the numbers.
fn in_order(count: usize, key: impl Fn(usize) -> u64, mut visit: impl FnMut(usize)) {
    let mut spare = Vec::new();
    let mut chunks = Vec::new();
    for start in (0..count).step_by(CHUNK) {
        let numbers = start..count.min(start + CHUNK);
        let mut words: Vec<u64> = numbers
            .map(|number| key(number) << LOW_BITS | to_u64(number - start))
            .collect();
        self::words(&mut words, &mut spare);
        chunks.push(words);
    }
    if let [words] = &chunks[..] {
        words.iter().for_each(|word| visit(arrival(*word)));
        return;
    }
    let mut next = vec![0; chunks.len()];
    for _ in 0..count {
        let heads = chunks
            .iter()
            .zip(&next)
            .map(|(words, next)| words.get(*next));
        let heads = heads.enumerate();
        let least = heads
            .filter_map(|(chunk, head)| Some((head? >> LOW_BITS, chunk)))
            .min();
        let (_, chunk) = least.expect("there are as many words as keys");
        visit(chunk * CHUNK + arrival(chunks[chunk][next[chunk]]));
        next[chunk] += 1;
    }
}

fn arrival(word: u64) -> usize {
    u64_to_usize(word & (to_u64(CHUNK) - 1))
}

/// The numbers of ids in the order of the ids.
#[must_use]
pub fn ids_in_order(count: usize, id: impl Fn(usize) -> u128) -> Vec<u32> {
    let mut order: Vec<u32> = Vec::with_capacity(count);
    let number = |number: usize| u32::try_from(number).expect("ids in memory are few");
    let (mut differ, mut sorted) = (0, true);
    for at in 1..count {
        differ |= id(at) ^ id(0);
        sorted &= id(at - 1) <= id(at);
    }
    if sorted {
        order.extend((0..count).map(number));
        return order;
    }
    // The first 48 of the bits in which ids differ at all.
    let shift = (u128::BITS - differ.leading_zeros()).saturating_sub(KEY_BITS);
    let prefix = |at: usize| low48(id(at) >> shift);
    in_order(count, prefix, |at| order.push(number(at)));
    let of = |at: &u32| id(to_usize(*at));
    if shift > 0 {
        for same in order.chunk_by_mut(|a, b| of(a) >> shift == of(b) >> shift) {
            if same.len() > 1 {
                same.sort_unstable_by_key(|at| (of(at), *at));
            }
        }
    }
    order
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
const fn low48(value: u128) -> u64 {
    value as u64 & ((1 << KEY_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::{ids_in_order, in_order};

    fn mix(value: u64) -> u64 {
        let value = (value ^ value >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        value ^ value >> 29
    }

    #[test]
    fn keys_come_in_order_and_equal_ones_as_they_arrived() {
        for count in [0_usize, 1, 2, 1000, 65_536, 65_537, 82_000, 200_000] {
            for bits in [0, 1, 10, 30, 48] {
                let keys: Vec<u64> = (0..count)
                    .map(|i| mix(i as u64) & ((1 << bits) - 1))
                    .collect();
                let mut expected: Vec<usize> = (0..count).collect();
                expected.sort_by_key(|i| keys[*i]);
                let mut found = Vec::new();
                in_order(count, |i| keys[i], |i| found.push(i));
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn ids_come_in_order() {
        for count in [0_u64, 1, 2, 5000, 70_000] {
            for (shift, mask) in [(0, u64::MAX), (64, u64::MAX), (40, 0xFFF0), (100, 1)] {
                let ids: Vec<u128> = (0..count)
                    .map(|i| u128::from(mix(i) & mask) << shift | u128::from(mix(i * 3) >> 9))
                    .collect();
                let mut expected: Vec<u32> = (0..u32::try_from(count).unwrap()).collect();
                expected.sort_by_key(|i| ids[*i as usize]);
                assert_eq!(ids_in_order(ids.len(), |i| ids[i]), expected);
            }
        }
    }
}
