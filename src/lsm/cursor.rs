//! The walk of one key through the runs of an index tree.
//!
//! A cursor remembers where it is, so that a step is a step within a page. Going on to another page
//! is a search of its own, first in what is in memory, then in one header page.

use super::entry::{Entry, IndexEntry, index_rank, lower_bound, rank_position};
use super::index_table::IndexTable;
use super::layout::{Layout, page_entries, page_first, page_of};
use super::run::Run;
use crate::grid::store::Pages;
use std::ops::{Range, RangeInclusive};
use storage_format::BlockReference;

/// Pages that are asked for beside one that is missing.
const AHEAD: usize = 16;

/// Where entries are.
#[derive(Debug)]
pub(super) enum Part<'a> {
    Memory(&'a IndexTable),
    /// Those of the key, to be taken.
    Listed(Vec<u8>),
    Disk(&'a Run),
}

/// The entries of a page, or of a table.
#[derive(Debug)]
enum Entries<'a> {
    Memory(&'a [u8]),
    /// Copied, so that nobody has to keep the page while the cursor stays on it.
    Page(Vec<u8>),
}

impl std::ops::Deref for Entries<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Memory(entries) => entries,
            Self::Page(entries) => entries,
        }
    }
}

impl Part<'_> {
    /// Whether a walk that is at a position has left the part behind.
    fn is_behind(&self, reversed: bool, position: u64) -> bool {
        let (low, high) = match self {
            Self::Listed(_) => return false,
            Self::Memory(table) => (table.position_low, table.position_high),
            Self::Disk(run) => (run.state.position_low, run.state.position_high),
        };
        if reversed {
            low > position
        } else {
            high < position
        }
    }
}

/// What a cursor finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seek {
    /// The position.
    Found(u64),
    /// There is none.
    End,
    /// A page is missing, and noted as such: the same can be asked again when it is there.
    Missing,
}

/// What is found in one part.
enum Step {
    Found(u64),
    Missing,
    /// Nothing: the next part is to be asked.
    Over,
}

/// Adjacent entries of a part.
#[derive(Debug)]
struct Place<'a> {
    entries: Entries<'a>,
    /// Where the cursor is among them.
    slot: usize,
    block: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Cursor<'a> {
    layout: Layout,
    key: u64,
    bounds: RangeInclusive<u64>,
    reversed: bool,
    /// What is still to be visited; the next is the last.
    parts: Vec<Part<'a>>,
    place: Option<Place<'a>>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(
        layout: Layout,
        key: u64,
        bounds: RangeInclusive<u64>,
        reversed: bool,
        parts: Vec<Part<'a>>,
    ) -> Self {
        Self {
            layout,
            key,
            bounds,
            reversed,
            parts,
            place: None,
        }
    }

    /// The first position at or after `from`; of a reversed cursor, the last at or before it. Each call
    /// goes on in the direction of the cursor, or stays.
    #[inline]
    pub fn seek(&mut self, pages: &impl Pages, from: u64) -> Seek {
        let (low, high) = (*self.bounds.start(), *self.bounds.end());
        if self.reversed && from < low || !self.reversed && from > high || low > high {
            return Seek::End;
        }
        let target = index_rank(self.key, from.clamp(low, high));
        if let Some(place) = &mut self.place {
            let entry = if self.reversed {
                place.backward(target)
            } else {
                place.forward(target)
            };
            if let Some(entry) = entry
                && self.accepts(entry)
            {
                return Seek::Found(entry.position);
            }
        }
        self.seek_parts(pages, target)
    }

    /// Whether an entry beyond which no other is nearer is what is wanted.
    #[inline]
    fn accepts(&self, entry: IndexEntry) -> bool {
        entry.key == self.key && self.bounds.contains(&entry.position)
    }

    fn seek_parts(&mut self, pages: &impl Pages, target: u128) -> Seek {
        while let Some(part) = self.parts.last_mut() {
            let behind = part.is_behind(self.reversed, rank_position(target));
            let step = match part {
                _ if behind => Step::Over,
                Part::Listed(entries) => {
                    // All there is of the key: if it was taken before, the walk has passed it.
                    let entries = Entries::Page(std::mem::take(entries));
                    self.in_memory(entries, target)
                }
                Part::Memory(table) => {
                    let entries = Entries::Memory(table.sorted());
                    self.in_memory(entries, target)
                }
                Part::Disk(run) => {
                    let run = *run;
                    if self.reversed {
                        self.before(pages, run, target)
                    } else {
                        self.after(pages, run, target)
                    }
                }
            };
            match step {
                Step::Found(position) => return Seek::Found(position),
                Step::Missing => return Seek::Missing,
                Step::Over => {
                    let _ = self.parts.pop();
                    self.place = None;
                }
            }
        }
        Seek::End
    }

    fn found(&self, entry: Option<IndexEntry>) -> Step {
        match entry {
            Some(entry) if self.accepts(entry) => Step::Found(entry.position),
            _ => Step::Over,
        }
    }

    fn in_memory(&mut self, entries: Entries<'a>, target: u128) -> Step {
        let slot = lower_bound::<IndexEntry>(&entries, target);
        let mut place = Place {
            entries,
            slot,
            block: 0,
        };
        let entry = if self.reversed {
            place.backward(target)
        } else {
            place.forward(target)
        };
        self.place = Some(place);
        self.found(entry)
    }

    /// Goes to the page of a run that holds the last rank at or below the target, or else the first
    /// rank of all. `None` if it is missing. Gives the rank of what follows the page, too.
    fn turn(
        &mut self,
        pages: &impl Pages,
        run: &'a Run,
        target: u128,
    ) -> Option<(&mut Place<'a>, Option<u128>)> {
        // Upwards, it is not before the block where the cursor is.
        let from = match &self.place {
            Some(place) if !self.reversed => place.block,
            Some(_) | None => 0,
        };
        let block = run.block_of(target, from);
        let reference = &run.state.blocks[block].reference;
        let header = pages.page(reference, 0)?;
        let here = self.layout.entries_of(run.state.entries, block);
        let count = here.div_ceil(IndexEntry::PER_PAGE);
        let page = page_of(header, count, target);
        let Some(bytes) = pages.page(reference, page + 1) else {
            self.ask_ahead(pages, reference, header, page..count);
            return None;
        };
        let entries = page_entries::<IndexEntry>(bytes, page, here);
        let following = if page + 1 < count {
            Some(page_first(header, page + 1))
        } else {
            run.state.blocks.get(block + 1).map(|block| block.first)
        };
        let slot = lower_bound::<IndexEntry>(entries, target);
        let mut copy = match self.place.take() {
            Some(Place {
                entries: Entries::Page(copy),
                ..
            }) => copy,
            Some(_) | None => Vec::new(),
        };
        copy.clear();
        copy.extend_from_slice(entries);
        let place = Place {
            entries: Entries::Page(copy),
            slot,
            block,
        };
        Some((self.place.insert(place), following))
    }

    /// Asks for the pages behind one that is missing which the walk is going to need, too, so that
    /// they are loaded together: those of the key, from the page on to the last of the block.
    fn ask_ahead(
        &self,
        pages: &impl Pages,
        reference: &BlockReference,
        header: &[u8],
        within: Range<usize>,
    ) {
        let of_key = |page: usize| {
            let first = page_first(header, page);
            let last = index_rank(self.key, *self.bounds.end());
            let next = page + 1;
            let ends = next < within.end && page_first(header, next) <= index_rank(self.key, 0);
            first <= last && !ends
        };
        let ask = |page: usize| {
            let _page = pages.page(reference, page + 1);
        };
        if self.reversed {
            let before = (0..within.start).rev();
            before
                .take(AHEAD)
                .take_while(|page| of_key(*page))
                .for_each(ask);
        } else {
            let behind = within.start + 1..within.end;
            behind
                .take(AHEAD)
                .take_while(|page| of_key(*page))
                .for_each(ask);
        }
    }

    /// The first entry at or after the target.
    fn after(&mut self, pages: &impl Pages, run: &'a Run, target: u128) -> Step {
        if !run.overlaps(target, index_rank(self.key, *self.bounds.end())) {
            return Step::Over;
        }
        let Some((place, following)) = self.turn(pages, run, target) else {
            return Step::Missing;
        };
        let entry = place.forward(target).or_else(|| {
            // The first of the next page, which need not be read for that.
            following.map(of_rank)
        });
        self.found(entry)
    }

    /// The last entry at or before the target.
    fn before(&mut self, pages: &impl Pages, run: &'a Run, target: u128) -> Step {
        if !run.overlaps(index_rank(self.key, *self.bounds.start()), target) {
            return Step::Over;
        }
        let Some((place, _)) = self.turn(pages, run, target) else {
            return Step::Missing;
        };
        let entry = place.backward(target);
        self.found(entry)
    }
}

fn of_rank(rank: u128) -> IndexEntry {
    let position = rank_position(rank);
    IndexEntry {
        key: rank_position(rank >> super::entry::BITS),
        position,
    }
}

impl Place<'_> {
    fn at(&self, slot: usize) -> IndexEntry {
        IndexEntry::load(&self.entries, slot * IndexEntry::SIZE)
    }

    /// The first entry at or after the target, from the slot on.
    #[inline]
    fn forward(&mut self, target: u128) -> Option<IndexEntry> {
        let count = self.entries.len() / IndexEntry::SIZE;
        let (mut low, mut high, mut stride) = (self.slot, count, 1);
        // What is before `low` is before the target.
        while low + stride <= count {
            let probe = low + stride - 1;
            if self.at(probe).rank() >= target {
                high = probe;
                break;
            }
            low = probe + 1;
            stride *= 2;
        }
        self.slot = low + self.below(low, high, target);
        (self.slot < count).then(|| self.at(self.slot))
    }

    /// The last entry at or before the target, from the slot downwards.
    #[inline]
    fn backward(&mut self, target: u128) -> Option<IndexEntry> {
        let count = self.entries.len() / IndexEntry::SIZE;
        let (mut low, mut high, mut stride) = (0, (self.slot + 1).min(count), 1);
        // From `high` on, all is behind the target.
        while stride <= high {
            let probe = high - stride;
            if self.at(probe).rank() <= target {
                low = probe + 1;
                break;
            }
            high = probe;
            stride *= 2;
        }
        let end = low + self.below(low, high, target + 1);
        self.slot = end.checked_sub(1)?;
        Some(self.at(self.slot))
    }

    /// How many from `low` to `high` are below a rank.
    #[inline]
    fn below(&self, low: usize, high: usize, rank: u128) -> usize {
        let within = low * IndexEntry::SIZE..high * IndexEntry::SIZE;
        lower_bound::<IndexEntry>(&self.entries[within], rank)
    }
}
