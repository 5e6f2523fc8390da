//! Windows of a load: the rate of every N transfers on its own, so that an engine that slows down as
//! its state grows cannot hide that behind a mean.
//!
//! * A window ends with the batch that fills it, so windows differ by less than a batch.
//! * What is left after the last full window counts for none.

use super::report::rate;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts the transfers of all clients.
#[derive(Debug)]
pub struct Counter {
    created: AtomicU64,
    window: u64,
}

/// The moment when a window was full.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark {
    /// Transfers from the beginning of the load.
    pub created: u64,
    /// Since then.
    pub at: Duration,
}

impl Counter {
    /// Nothing yet.
    pub fn new(window: u64) -> Self {
        assert!(window > 0, "the option is positive");
        Self {
            created: AtomicU64::new(0),
            window,
        }
    }

    /// Adds a batch; gives the sum if it filled a window.
    pub fn add(&self, count: u64) -> Option<u64> {
        let before = self.created.fetch_add(count, Ordering::Relaxed);
        let after = before + count;
        (after / self.window > before / self.window).then_some(after)
    }

    /// Transfers so far.
    pub fn created(&self) -> u64 {
        self.created.load(Ordering::Relaxed)
    }
}

/// What the windows say. The first is left out: it has the warming up in it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Windows {
    /// Full windows.
    pub count: usize,
    /// Transfers a second of the second window.
    pub second: Option<u128>,
    /// Transfers a second of the last window, if that is not the second one.
    pub last: Option<u128>,
}

impl Windows {
    /// From marks in any order.
    pub fn new(marks: &[Mark]) -> Self {
        let mut marks = marks.to_vec();
        marks.sort_by_key(|mark| mark.created);
        let rates: Vec<u128> = marks
            .windows(2)
            .map(|pair| {
                let elapsed = pair[1].at.saturating_sub(pair[0].at);
                rate(pair[1].created - pair[0].created, elapsed)
            })
            .collect();
        Self {
            count: marks.len(),
            second: rates.first().copied(),
            last: rates.last().copied().filter(|_| rates.len() > 1),
        }
    }

    /// The last window's rate in thousandths of the second one's.
    pub fn ratio_thousandths(&self) -> Option<u128> {
        (self.last? * 1000).checked_div(self.second?)
    }
}

#[cfg(test)]
mod tests {
    use super::{Counter, Mark, Windows};
    use std::time::Duration;

    fn marks(all: &[(u64, u64)]) -> Vec<Mark> {
        all.iter()
            .map(|&(created, ms)| Mark {
                created,
                at: Duration::from_millis(ms),
            })
            .collect()
    }

    #[test]
    fn a_window_ends_with_the_batch_that_fills_it() {
        let counter = Counter::new(10);
        let sums: Vec<_> = [4, 4, 4, 7, 1, 30].map(|size| counter.add(size)).into();
        assert_eq!(sums, [None, None, Some(12), None, Some(20), Some(50)]);
        assert_eq!(counter.created(), 50);
    }

    #[test]
    fn rates_are_those_between_marks() {
        // 1000 in 1 s, then 1000 in 0.5 s, 1000 in 1 s, 1100 in 1 s; clients in any order.
        let all = marks(&[(2000, 1500), (1000, 1000), (4100, 3500), (3000, 2500)]);
        let windows = Windows::new(&all);
        let expected = Windows {
            count: 4,
            second: Some(2000),
            last: Some(1100),
        };
        assert_eq!(windows, expected);
        assert_eq!(windows.ratio_thousandths(), Some(550));
    }

    #[test]
    fn too_few_windows_have_no_ratio() {
        assert_eq!(Windows::new(&[]), Windows::default());
        let one = Windows::new(&marks(&[(10, 1)]));
        assert_eq!((one.count, one.second, one.last), (1, None, None));
        let two = Windows::new(&marks(&[(10, 1), (20, 11)]));
        assert_eq!((two.count, two.second, two.last), (2, Some(1000), None));
        assert_eq!(two.ratio_thousandths(), None);
    }
}
