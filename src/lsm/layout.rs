//! How entries lie in the blocks of a run.
//!
//! Every block of a run but the last is full. Entries begin with the first data page; a filter
//! follows them, on the next page if blocks have more than one.

use super::clock::BAR;
use super::entry::Entry;
use super::fuse::{FILTER_IDS_MAX, Filter};
use crate::constants::{BATCH_EVENTS_MAX, BLOCK_DATA_SIZE};
use crate::stdx::{to_u64, u64_to_usize};
use storage_format::SECTOR_SIZE;
use storage_format::block::PAGE_INDEX_OFFSET;

/// Sizes of a tree; production has [`TreeOptions::default`].
#[derive(Clone, Copy, Debug)]
pub struct TreeOptions {
    /// Units of a bar.
    pub bar: u64,
    /// Data pages of a block.
    pub pages: usize,
    /// Entries of a bar at most: it ends with the op that completes it.
    pub bar_entries: usize,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self {
            bar: BAR,
            pages: BLOCK_DATA_SIZE / SECTOR_SIZE,
            bar_entries: u64_to_usize(BAR + u64::from(BATCH_EVENTS_MAX)),
        }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Entries of a full block.
    pub per_block: usize,
    /// Data bytes of a block before the filter, at most.
    filter_at: usize,
    /// Data bytes of a block.
    size: usize,
}

impl Layout {
    /// The layout of blocks with so many data pages.
    #[must_use]
    pub fn new<E: Entry>(pages: usize) -> Self {
        assert!(pages > 0 && pages * SECTOR_SIZE <= BLOCK_DATA_SIZE);
        let size = pages * SECTOR_SIZE;
        let full = |pages: usize| Self {
            per_block: pages * E::PER_PAGE,
            filter_at: pages * SECTOR_SIZE,
            size,
        };
        if !E::FILTERED {
            return full(pages);
        }
        let fits = |layout: &Self| {
            layout.per_block <= FILTER_IDS_MAX
                && layout.filter_at + Filter::size(layout.per_block) <= size
        };
        if pages > 1 {
            let layout = (1..pages).rev().map(full).find(fits);
            return layout.expect("the filter of a page fits a page");
        }
        let part = |per_block: usize| Self {
            per_block,
            filter_at: per_block * E::SIZE,
            size,
        };
        let layout = (1..E::PER_PAGE).rev().map(part).find(fits);
        layout.expect("the filter of some entries fits beside them")
    }

    /// Blocks of so many entries.
    #[must_use]
    pub fn blocks(&self, entries: u64) -> usize {
        u64_to_usize(entries.div_ceil(to_u64(self.per_block)))
    }

    /// Entries of a block of a run of so many.
    #[must_use]
    #[inline]
    pub fn entries_of(&self, entries: u64, block: usize) -> usize {
        u64_to_usize(entries)
            .saturating_sub(block * self.per_block)
            .min(self.per_block)
    }

    /// Data bytes up to the end of the last of so many entries.
    #[must_use]
    pub fn used<E: Entry>(&self, entries: usize) -> usize {
        let pages = entries / E::PER_PAGE;
        pages * SECTOR_SIZE + entries % E::PER_PAGE * E::SIZE
    }

    /// Where among the data bytes the filter of so many entries is; `None` if it does not fit.
    #[must_use]
    pub fn filter<E: Entry>(&self, entries: usize) -> Option<usize> {
        let at = self.used::<E>(entries).next_multiple_of(SECTOR_SIZE);
        let at = at.min(self.filter_at);
        (at + Filter::size(entries) <= self.size).then_some(at)
    }
}

/// The bytes of the entries in a data page, which counts from 0, of a block of so many entries.
#[must_use]
#[inline]
pub fn page_entries<E: Entry>(page: &[u8], index: usize, entries: usize) -> &[u8] {
    let here = entries.saturating_sub(index * E::PER_PAGE).min(E::PER_PAGE);
    &page[..here * E::SIZE]
}

/// The rank of the first entry of a data page, which counts from 0.
#[must_use]
#[inline]
pub fn page_first(header: &[u8], page: usize) -> u128 {
    let at = PAGE_INDEX_OFFSET + 16 * page;
    u128::from_le_bytes(*header[at..at + 16].first_chunk().expect("just sliced"))
}

/// The last of `pages` data pages that begins at or below a rank; the first if none does.
#[must_use]
#[inline]
pub fn page_of(header: &[u8], pages: usize, rank: u128) -> usize {
    let (mut base, mut left) = (0, pages);
    while left > 1 {
        let half = left / 2;
        let below = page_first(header, base + half) <= rank;
        base = if below { base + half } else { base };
        left -= half;
    }
    base
}

#[cfg(test)]
mod tests {
    use super::{Layout, TreeOptions, page_first, page_of};
    use crate::lsm::entry::{IdEntry, IndexEntry};
    use storage_format::SECTOR_SIZE;
    use storage_format::block::PAGE_INDEX_OFFSET;

    #[test]
    fn a_filter_fits_however_full_its_block_is() {
        let most = TreeOptions::default().pages;
        for pages in [1, 2, 3, 8, most] {
            let pages = pages.min(most);
            let layout = Layout::new::<IdEntry>(pages);
            for entries in 1..=layout.per_block {
                let at = layout.filter::<IdEntry>(entries).expect("it fits");
                assert!(at >= layout.used::<IdEntry>(entries));
            }
        }
    }

    #[test]
    #[cfg(not(madsim))]
    fn production_blocks_are_mostly_entries() {
        assert_eq!(Layout::new::<IdEntry>(63).per_block, 56 * 186);
        assert_eq!(Layout::new::<IndexEntry>(63).per_block, 63 * 341);
        assert!(Layout::new::<IdEntry>(1).per_block >= 150);
    }

    #[test]
    fn page_of_finds_the_page_to_look_in() {
        let mut header = vec![0; SECTOR_SIZE];
        for pages in 1..=63_usize {
            let at = PAGE_INDEX_OFFSET + 16 * (pages - 1);
            header[at..at + 16].copy_from_slice(&(pages as u128 * 10).to_le_bytes());
            assert_eq!(page_first(&header, pages - 1), pages as u128 * 10);
            for rank in 0..pages as u128 * 10 + 20 {
                let expected = usize::try_from(rank / 10).unwrap().clamp(1, pages) - 1;
                assert_eq!(page_of(&header, pages, rank), expected);
            }
        }
    }
}
