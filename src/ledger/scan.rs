//! Scans: positions of records in order, for which several indexes agree.
//!
//! Each index gives the positions of one key in order. A scan asks one after the other for the first
//! position that is not before the last answer; when all give the same, it is a result. What the
//! shortest list skips, the others never look at.

use crate::grid::Grid;
use crate::io::Io;
use crate::lsm::{Cursor, IndexTree, Seek};
use crate::stdx::yield_once;
use std::ops::RangeInclusive;

/// See the module.
pub(super) struct Scan<'t> {
    cursors: Vec<Cursor<'t>>,
    bounds: RangeInclusive<u64>,
    reversed: bool,
    /// Where the next result may be; none when there is none any more.
    next: Option<u64>,
    /// Positions that were given last time, at most.
    window: usize,
}

/// Positions that are given at once: their pages are read side by side.
const WINDOW_MAX: usize = if cfg!(madsim) { 32 } else { 1024 };

/// An index with a key whose positions a scan is about.
#[derive(Clone, Copy)]
pub(super) struct Asked<'t> {
    pub(super) tree: &'t IndexTree,
    pub(super) key: u64,
    /// Whether a record that the index does not give is certainly not wanted, however many it gives.
    pub(super) always: bool,
}

/// An index helps if it leaves out three records of four at least; else looking at the records is
/// cheaper.
const SELECTIVE: u64 = 4;

impl<'t> Scan<'t> {
    /// A scan of all positions within bounds that the indexes give which are worth asking.
    pub(super) async fn new<I: Io>(
        asked: Vec<Asked<'t>>,
        bounds: RangeInclusive<u64>,
        reversed: bool,
        grid: &mut Grid<'_, I>,
    ) -> Self {
        let total = bounds.end() - bounds.start() + 1;
        let mut helpful: Vec<(u64, Asked<'t>)> = asked
            .into_iter()
            .map(|asked| (asked.tree.count_max(asked.key, &bounds), asked))
            .filter(|(count, asked)| asked.always || count.saturating_mul(SELECTIVE) < total)
            .collect();
        helpful.sort_by_key(|(count, _)| *count);
        for (_, asked) in &helpful {
            // Header pages first, then the pages that they lead to, of all runs at once.
            for _ in 0..2 {
                grid.cache.begin();
                asked.tree.prime(&grid.cache, asked.key, &bounds, reversed);
                if grid.cache.has_missing() {
                    grid.load_missing().await;
                }
            }
        }
        let cursor = |asked: Asked<'t>| asked.tree.cursor(asked.key, &bounds, reversed);
        let cursors = helpful
            .into_iter()
            .map(|(_, asked)| cursor(asked))
            .collect();
        let first = if reversed {
            *bounds.end()
        } else {
            *bounds.start()
        };
        Self {
            cursors,
            bounds,
            reversed,
            next: Some(first),
            window: 0,
        }
    }

    /// More positions, for somebody who lacks `left` results: no more than that at first, since each is
    /// going to be read, and twice as many each time, since others were not wanted. None when there
    /// are no more.
    pub(super) async fn next_window<I: Io>(
        &mut self,
        left: usize,
        grid: &mut Grid<'_, I>,
    ) -> Vec<u64> {
        self.window = (2 * self.window).max(left).min(WINDOW_MAX);
        yield_once().await;
        self.take(self.window, grid).await
    }

    /// Up to `count` more positions; fewer only when there are no more.
    async fn take<I: Io>(&mut self, count: usize, grid: &mut Grid<'_, I>) -> Vec<u64> {
        let mut found = Vec::new();
        while found.len() < count
            && let Some(from) = self.next
        {
            self.next = self.agree(from, grid).await;
            if let Some(position) = self.next {
                found.push(position);
                self.next = self.after(position);
            }
        }
        found
    }

    fn after(&self, position: u64) -> Option<u64> {
        if self.reversed {
            position
                .checked_sub(1)
                .filter(|at| at >= self.bounds.start())
        } else {
            Some(position + 1).filter(|at| at <= self.bounds.end())
        }
    }

    /// The first position from `from` on that all cursors give.
    async fn agree<I: Io>(&mut self, from: u64, grid: &mut Grid<'_, I>) -> Option<u64> {
        let mut at = from;
        let mut agreed = 0;
        let count = self.cursors.len();
        let mut turn = 0;
        while agreed < count {
            let found = seek(&mut self.cursors[turn], at, grid).await?;
            if found == at {
                agreed += 1;
            } else {
                at = found;
                agreed = 1;
            }
            turn = (turn + 1) % count;
        }
        Some(at)
    }
}

async fn seek<I: Io>(cursor: &mut Cursor<'_>, from: u64, grid: &mut Grid<'_, I>) -> Option<u64> {
    grid.cache.begin();
    loop {
        match cursor.seek(&grid.cache, from) {
            Seek::Found(position) => return Some(position),
            Seek::End => return None,
            Seek::Missing => grid.load_missing().await,
        }
    }
}
