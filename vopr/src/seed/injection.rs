//! The one place that every injected fault goes through.
//!
//! A fault that is about to happen gets the next index of its run, and may be vetoed by it, or with its
//! whole family. All that it draws is drawn before, or from a stream of its own, so that a veto shifts no
//! other draw. An index counts vetoed faults as well: a run with a veto is the run without it up to there.

use super::numbers::Numbers;
use std::collections::BTreeSet;
use std::str::FromStr;

/// What kind of fault it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// Power fails.
    Crash,
    /// Writes under way at a crash are torn or lost; if not, they are done.
    Tear,
    /// A disk is lost with all that is on it.
    DiskLoss,
    /// A disk takes long for an access.
    DiskStall,
    /// A disk is slow for a while.
    DiskSpell,
    /// Something of a journal rots, or of what is beside it: headers, prepares, superblocks, replies.
    Rot,
    /// A block of a checkpoint rots.
    RotBlock,
    /// A read gives something else, once.
    Misread,
    /// A write is lost or lands elsewhere, or a reply rots.
    Astray,
    /// A replica stands still.
    Pause,
    /// Its monotonic clock stands still with it.
    Freeze,
    /// The time of day of a replica is wrong, or steps.
    Clock,
    /// The network falls apart.
    Partition,
    /// A frame is lost.
    FrameLost,
    /// A frame comes once more.
    FrameReplayed,
    /// A client sends a wrong frame.
    Garbage,
    /// A client dies while it waits.
    ClientCrash,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Crash,
        Self::Tear,
        Self::DiskLoss,
        Self::DiskStall,
        Self::DiskSpell,
        Self::Rot,
        Self::RotBlock,
        Self::Misread,
        Self::Astray,
        Self::Pause,
        Self::Freeze,
        Self::Clock,
        Self::Partition,
        Self::FrameLost,
        Self::FrameReplayed,
        Self::Garbage,
        Self::ClientCrash,
    ];

    /// Its name on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Tear => "tear",
            Self::DiskLoss => "disk-loss",
            Self::DiskStall => "disk-stall",
            Self::DiskSpell => "disk-spell",
            Self::Rot => "rot",
            Self::RotBlock => "rot-block",
            Self::Misread => "misread",
            Self::Astray => "astray",
            Self::Pause => "pause",
            Self::Freeze => "freeze",
            Self::Clock => "clock",
            Self::Partition => "partition",
            Self::FrameLost => "frame-lost",
            Self::FrameReplayed => "frame-replayed",
            Self::Garbage => "garbage",
            Self::ClientCrash => "client-crash",
        }
    }

    fn index(self) -> usize {
        let found = Self::ALL.iter().position(|family| *family == self);
        found.expect("the list has all of them")
    }
}

impl FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|family| family.name() == text);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.into_iter().map(Self::name).collect();
            format!("{text}: families of faults are {}", names.join(", "))
        })
    }
}

/// The faults of a run.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    without: BTreeSet<Family>,
    skip: Numbers,
    /// Indexes that were given.
    count: u64,
    /// Those that happened.
    fired: Vec<u64>,
    by_family: [u64; Family::ALL.len()],
}

impl Faults {
    /// No fault yet; of those to come, some are vetoed.
    #[must_use]
    pub fn new(without: &BTreeSet<Family>, skip: &Numbers) -> Self {
        Self {
            without: without.clone(),
            skip: skip.clone(),
            ..Self::default()
        }
    }

    /// A fault is about to happen: its index, and whether it may.
    pub fn inject(&mut self, family: Family) -> (u64, bool) {
        let index = self.count;
        self.count += 1;
        let may = !self.without.contains(&family) && !self.skip.contains(index);
        if may {
            self.fired.push(index);
            self.by_family[family.index()] += 1;
        }
        (index, may)
    }

    /// The indexes of those that happened, in order.
    #[must_use]
    pub fn fired(&self) -> &[u64] {
        &self.fired
    }

    /// How many of each family happened.
    pub fn by_family(&self) -> impl Iterator<Item = (Family, u64)> {
        Family::ALL.into_iter().zip(self.by_family)
    }
}

#[cfg(test)]
mod tests {
    use super::{Family, Faults};
    use std::collections::BTreeSet;

    #[test]
    fn vetoed_faults_have_an_index_too() {
        let without = BTreeSet::from([Family::Pause]);
        let mut faults = Faults::new(&without, &"1".parse().unwrap());
        let mut inject = |family| faults.inject(family);
        assert_eq!(inject(Family::Crash), (0, true));
        assert_eq!(inject(Family::Crash), (1, false));
        assert_eq!(inject(Family::Pause), (2, false));
        assert_eq!(inject(Family::Rot), (3, true));
        assert_eq!(faults.fired(), [0, 3]);
        let happened = faults.by_family().filter(|(_, count)| *count > 0);
        let happened: Vec<_> = happened.collect();
        assert_eq!(happened, [(Family::Crash, 1), (Family::Rot, 1)]);
    }

    #[test]
    fn every_family_has_a_name_of_its_own() {
        for family in Family::ALL {
            assert_eq!(family.name().parse(), Ok(family));
        }
    }
}
