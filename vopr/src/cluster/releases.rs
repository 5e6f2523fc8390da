//! Which binaries replicas are run by: each has releases of its own, and the log is at one of them.

use super::world::World;
use crate::random::Random;
use crate::sim::draws::Draws;
use daftari::constants::{RELEASE_LOG_MAX, RELEASE_LOG_MIN};
use daftari::vsr::Releases;

/// The newest release that a binary pretends to have: one that there is not yet.
pub const NEWEST: u32 = RELEASE_LOG_MAX + 1;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct ReleaseOptions {
    /// The release that the data files are formatted at.
    pub log: u32,
    /// Of 1000 starts of a replica, those by another binary than before.
    pub swaps: u64,
}

impl ReleaseOptions {
    /// Those of a cluster whose binaries are all the same.
    #[must_use]
    pub fn one() -> Self {
        Self {
            log: RELEASE_LOG_MAX,
            swaps: 0,
        }
    }

    /// Those of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let random = &mut Random::stream(seed, 211);
        Self {
            log: random.pick(&[RELEASE_LOG_MIN, RELEASE_LOG_MAX, RELEASE_LOG_MAX, NEWEST]),
            swaps: random.pick(&[0, 200, 1000]),
        }
    }
}

/// The releases of a binary.
#[must_use]
pub fn up_to(newest: u32) -> Releases {
    Releases {
        oldest: RELEASE_LOG_MIN,
        newest,
    }
}

/// A replica is about to start: it may be by another binary, older or newer, that has the release of the log,
/// and that of the file, which is another one when a newer binary has just made it for a standby.
pub fn swap(world: &mut World, replica: u8) {
    let options = world.options.releases;
    if world.random.release.chance(options.swaps) {
        let file = world.checker.platter(replica).superblock.release.get();
        let oldest = options.log.max(file);
        let random = &mut world.random.release;
        let more = random.below(u64::from(NEWEST - oldest) + 1);
        let newest = oldest + u32::try_from(more).expect("a few releases");
        let process = &mut world.processes[usize::from(replica)];
        world.checker.counts.swaps += u64::from(process.newest != newest);
        process.newest = newest;
    }
}
