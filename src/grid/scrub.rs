//! The plan of the scrubber: what of the data file is read next, and when.
//!
//! A *tour* reads everything that counts once, and takes a period: first the zones before the grid,
//! by the number of the unit, then the blocks that the last checkpoint references, by address. They
//! are listed a segment at a time, so that memory does not grow with the file: whoever drives the
//! tour walks the manifest and tells of each block.
//!
//! Invariants:
//! * A block that is referenced during the whole tour is read once in it, whatever checkpoints come.
//! * Nothing is read before it is due: `n` of `total` units in at `n / total` of the period.

use crate::stdx::to_u64;
use std::collections::{BTreeMap, VecDeque};
use storage_format::BlockReference;

/// Blocks of a segment at most.
pub const SEGMENT_MAX: usize = if cfg!(madsim) { 16 } else { 16 * 1024 };
/// Nanoseconds until a tour of nothing is tried again, at most.
const EMPTY_PAUSE: u64 = 60 * crate::constants::NANOSECONDS;

/// What a tour does next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// To read a unit of the zones before the grid.
    Zone(u64),
    /// To list the blocks of the checkpoint, all of them, in any order.
    List,
    /// To read a block.
    Block(BlockReference),
    /// Nothing: it is complete.
    Complete,
}

/// What a tour came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// Blocks and units that were read.
    pub read: u64,
    /// Those that are damaged.
    pub damaged: u64,
}

/// The lowest addresses of a listing.
#[derive(Debug, Default)]
struct Listing {
    /// Blocks behind the tour's place.
    ahead: u64,
    lowest: BTreeMap<u64, BlockReference>,
}

/// See the module.
#[derive(Debug)]
pub struct Scrub {
    period: u64,
    segment_max: usize,
    began: u64,
    zones: u64,
    zones_read: u64,
    /// Blocks up to this address were read.
    place: u64,
    blocks_read: u64,
    /// Blocks that are left, as far as the last listing knows.
    blocks_left: u64,
    segment: VecDeque<BlockReference>,
    listing: Option<Listing>,
    /// The last listing found everything that there is.
    listed_all: bool,
    damaged: u64,
}

impl Scrub {
    /// A tour that begins now, and takes so many nanoseconds; `zones` units come before the blocks.
    #[must_use]
    pub fn new(period: u64, segment_max: usize, zones: u64, now: u64) -> Self {
        assert!(period > 0 && segment_max > 0);
        Self {
            period,
            segment_max,
            began: now,
            zones,
            zones_read: 0,
            place: 0,
            blocks_read: 0,
            blocks_left: 0,
            segment: VecDeque::new(),
            listing: None,
            listed_all: false,
            damaged: 0,
        }
    }

    /// What comes next. A listing comes first, so that the pace is known.
    #[must_use]
    pub fn next(&self) -> Next {
        let unlisted = self.blocks_read == 0 && self.place == 0 && !self.listed_all;
        if unlisted && self.segment.is_empty() {
            Next::List
        } else if self.zones_read < self.zones {
            Next::Zone(self.zones_read)
        } else if let Some(block) = self.segment.front() {
            Next::Block(*block)
        } else if self.listed_all {
            Next::Complete
        } else {
            Next::List
        }
    }

    /// When that is due.
    #[must_use]
    pub fn due(&self) -> u64 {
        let read = self.zones_read + self.blocks_read;
        let total = self.zones + self.blocks_read + self.blocks_left;
        let ahead = u128::from(self.period) * u128::from(read) / u128::from(total.max(1));
        let ahead = u64::try_from(ahead).expect("a part of the period");
        match self.next() {
            // The listing says how far the tour is; what it leads to has its time.
            Next::List => self.began,
            Next::Complete if total == self.zones => {
                self.began.saturating_add(self.period.min(EMPTY_PAUSE))
            }
            Next::Complete => self.began.saturating_add(self.period),
            Next::Zone(_) | Next::Block(_) => self.began.saturating_add(ahead),
        }
    }

    /// A listing begins; one that did not end is forgotten.
    pub fn list_begin(&mut self) {
        assert!(self.segment.is_empty());
        self.listing = Some(Listing::default());
    }

    /// A block of the checkpoint.
    pub fn list(&mut self, block: &BlockReference) {
        let listing = self.listing.as_mut().expect("a listing has begun");
        let address = block.address.get();
        if address <= self.place {
            return;
        }
        listing.ahead += 1;
        let full = listing.lowest.len() == self.segment_max;
        let last = listing.lowest.last_key_value().map(|(last, _)| *last);
        if full && last.is_some_and(|last| last < address) {
            return;
        }
        let _: Option<BlockReference> = listing.lowest.insert(address, *block);
        if listing.lowest.len() > self.segment_max {
            let _ = listing.lowest.pop_last();
        }
    }

    /// All blocks were listed.
    pub fn list_end(&mut self) {
        let listing = self.listing.take().expect("a listing has begun");
        self.segment = listing.lowest.into_values().collect();
        self.blocks_left = listing.ahead;
        self.listed_all = listing.ahead == to_u64(self.segment.len());
    }

    /// What came next was read.
    pub fn read(&mut self, damaged: bool) {
        self.damaged += u64::from(damaged);
        if self.zones_read < self.zones {
            self.zones_read += 1;
            return;
        }
        let block = self.segment.pop_front().expect("it came next");
        self.place = block.address.get();
        self.blocks_read += 1;
        self.blocks_left = self.blocks_left.saturating_sub(1);
    }

    /// The next tour begins; gives what this one came to.
    pub fn complete(&mut self, now: u64) -> Summary {
        assert_eq!(self.next(), Next::Complete);
        let summary = Summary {
            read: self.zones_read + self.blocks_read,
            damaged: self.damaged,
        };
        *self = Self::new(self.period, self.segment_max, self.zones, now);
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::{Next, Scrub, Summary};
    use storage_format::BlockReference;

    fn block(address: u64) -> BlockReference {
        BlockReference {
            address: address.into(),
            ..BlockReference::default()
        }
    }

    /// Drives a tour in virtual time over the blocks that `listed` has at that time; gives when which
    /// unit was read (zones count from 1000), and the end.
    fn tour(scrub: &mut Scrub, listed: impl Fn(u64) -> Vec<u64>) -> (Vec<(u64, u64)>, u64) {
        let mut now = scrub.began;
        let mut read = Vec::new();
        loop {
            now = now.max(scrub.due());
            match scrub.next() {
                Next::List => {
                    scrub.list_begin();
                    listed(now)
                        .into_iter()
                        .for_each(|at| scrub.list(&block(at)));
                    scrub.list_end();
                }
                Next::Zone(unit) => {
                    read.push((now, 1000 + unit));
                    scrub.read(false);
                }
                Next::Block(block) => {
                    read.push((now, block.address.get()));
                    scrub.read(block.address.get() == 7);
                }
                Next::Complete => return (read, now),
            }
        }
    }

    #[test]
    fn a_tour_reads_everything_once_and_takes_the_period() {
        let mut scrub = Scrub::new(1000, 4, 2, 500);
        let (read, end) = tour(&mut scrub, |_| vec![9, 2, 7, 30, 4, 1, 12, 8]);
        let expected = [1000, 1001, 1, 2, 4, 7, 8, 9, 12, 30];
        let expected: Vec<(u64, u64)> = (0..)
            .zip(expected)
            .map(|(n, at)| (500 + 100 * n, at))
            .collect();
        assert_eq!(read, expected);
        assert_eq!(end, 1500);
        let summary = scrub.complete(end);
        assert_eq!(
            summary,
            Summary {
                read: 10,
                damaged: 1
            }
        );
        let (again, end) = tour(&mut scrub, |_| vec![5]);
        assert_eq!((again.len(), end), (3, 2500));
    }

    #[test]
    fn blocks_that_come_and_go_change_the_pace_and_miss_nothing_that_stays() {
        let mut scrub = Scrub::new(10_000, 3, 0, 0);
        let even: Vec<u64> = (1..=50).map(|at| 2 * at).collect();
        let (read, end) = tour(&mut scrub, |now| {
            let odd = (1..=50)
                .map(|at| 2 * at - 1)
                .filter(|at| at % 3 == now / 1000 % 3);
            even.iter().copied().chain(odd).collect()
        });
        assert_eq!(end, 10_000);
        let addresses: Vec<u64> = read.iter().map(|(_, address)| *address).collect();
        assert!(addresses.is_sorted());
        assert!(even.iter().all(|at| addresses.contains(at)));
        let last = read.last().expect("it read").0;
        assert!((9_000..10_000).contains(&last), "{last}");
    }

    #[test]
    fn a_tour_of_nothing_is_tried_again_soon() {
        let mut scrub = Scrub::new(u64::MAX / 2, 3, 1, 0);
        let (read, end) = tour(&mut scrub, |_| Vec::new());
        assert_eq!((read.len(), end), (1, super::EMPTY_PAUSE));
    }

    #[test]
    fn nothing_is_late_because_a_read_took_long() {
        let mut scrub = Scrub::new(100, 10, 0, 0);
        scrub.list_begin();
        (1..=10).for_each(|at| scrub.list(&block(at)));
        scrub.list_end();
        (0..5).for_each(|_| scrub.read(false));
        // At 80 the five before were due already, and are read one after the other.
        let late: Vec<u64> = (0..5)
            .map(|_| {
                let due = scrub.due();
                scrub.read(false);
                due
            })
            .collect();
        assert_eq!(late, [50, 60, 70, 80, 90]);
    }
}
