//! When the trees of a forest do what they do together.
//!
//! Time is what was added, in units: the same on every replica.

/// Units of a bar; few in the simulator, so that a short run has several tiers.
pub const BAR: u64 = if cfg!(madsim) { 12 } else { 32 * 1024 };
/// Units of a beat.
pub const BEAT: u64 = if cfg!(madsim) { 4 } else { 1024 };

const _: () = assert!(BAR.is_multiple_of(BEAT));

/// Counts units. All of it is state: a checkpoint holds it as it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Clock {
    /// Units since the last bar.
    pub bar_units: u64,
    /// Units since the last beat.
    pub beat_units: u64,
    /// Bars that ended.
    pub bars: u64,
}

/// What is due at the end of an op: first the beat, then the bar.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Due {
    /// A beat of so many units.
    pub beat: Option<u64>,
    /// A bar.
    pub bar: bool,
}

impl Clock {
    /// An op ends that added so many units.
    #[must_use]
    pub fn op_end(&mut self, units: u64) -> Due {
        self.bar_units += units;
        self.beat_units += units;
        let beat = (self.beat_units >= BEAT).then(|| std::mem::take(&mut self.beat_units));
        let bar = self.bar_units >= BAR;
        if bar {
            self.bar_units = 0;
            self.bars += 1;
        }
        Due { beat, bar }
    }
}

#[cfg(test)]
mod tests {
    use super::{BAR, BEAT, Clock, Due};

    #[test]
    fn beats_and_bars_come_at_the_end_of_ops() {
        let mut clock = Clock::default();
        let mut end = |units| clock.op_end(units);
        assert_eq!(end(BEAT - 1), Due::default());
        let beat = Some(BEAT);
        assert_eq!(end(1), Due { beat, bar: false });
        let beat = Some(BAR - 1);
        assert_eq!(end(BAR - 1), Due { beat, bar: true });
        assert_eq!(end(1), Due::default());
        assert_eq!(clock.bar_units, 1);
        assert_eq!((clock.beat_units, clock.bars), (1, 1));
    }
}
