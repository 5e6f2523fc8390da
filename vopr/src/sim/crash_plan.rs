//! When the next crash of a process comes, counted in its accesses to the disk.

use super::disk::Zone;
use super::draws::Draws;
use crate::random::Random;

/// See the module.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrashPlan {
    /// Not at all.
    Never,
    /// When so many writes have been started, before the last one completes.
    AtWrite(u64),
    /// When so many accesses have completed, before the replica sees the last one.
    AfterAccess(u64),
    /// From the next block on, when so many writes have been started.
    Checkpoint(u64),
    /// From the next superblock on, when so many writes have completed.
    Superblock(u64),
}

impl CrashPlan {
    /// A plan; `distance` is the number of writes until the crash, on average.
    #[must_use]
    pub fn new(starting: bool, distance: u64, random: &mut Random) -> Self {
        match random.below(10) {
            0..=2 if starting => Self::AfterAccess(random.between(1, 60)),
            0 | 1 if starting => Self::AtWrite(random.between(1, 6)),
            3 | 4 => Self::Checkpoint(random.between(1, 16)),
            5 => Self::Superblock(random.between(1, 5)),
            6 | 7 => Self::AfterAccess(1 + random.exponential(2 * distance)),
            _ => Self::AtWrite(1 + random.exponential(distance)),
        }
    }

    /// A write starts; whether the crash comes now.
    #[must_use]
    pub fn on_write(&mut self, zone: Zone) -> bool {
        match *self {
            Self::AtWrite(1) => return true,
            Self::AtWrite(left) => *self = Self::AtWrite(left - 1),
            Self::Checkpoint(left) if zone == Zone::Grid => *self = Self::AtWrite(left),
            Self::Superblock(left) if zone == Zone::Superblock => *self = Self::AfterAccess(left),
            Self::Never | Self::AfterAccess(_) | Self::Checkpoint(_) | Self::Superblock(_) => {}
        }
        false
    }

    /// An access has completed; whether the crash comes now.
    #[must_use]
    pub fn on_access(&mut self) -> bool {
        match *self {
            Self::AfterAccess(1) => return true,
            Self::AfterAccess(left) => *self = Self::AfterAccess(left - 1),
            Self::Never | Self::AtWrite(_) | Self::Checkpoint(_) | Self::Superblock(_) => {}
        }
        false
    }
}
