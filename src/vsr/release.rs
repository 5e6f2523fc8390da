//! Releases: the one that a log is at, and those that a binary has.
//!
//! A log is at one release, and so are the data files of all its replicas, from `format` on: every op is
//! executed at it, by whichever binary. A binary has all releases of a range. It runs a log at any of
//! them, beside binaries that have others as well, and leaves a log alone that is at none of them.

use super::FatalReason;
use crate::constants::{RELEASE_LOG_MAX, RELEASE_LOG_MIN, release};

/// The releases that a binary has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Releases {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl Releases {
    /// Those of this binary.
    pub const OF_BINARY: Self = Self {
        oldest: RELEASE_LOG_MIN,
        newest: RELEASE_LOG_MAX,
    };

    /// Whether a log at `found` can be executed.
    ///
    /// # Errors
    /// When it cannot: which binary has to do it.
    pub fn check(self, found: u32) -> Result<(), FatalReason> {
        let Self { oldest, newest } = self;
        if found > newest {
            Err(FatalReason::ReleaseNewer { found, newest })
        } else if found < oldest {
            Err(FatalReason::ReleaseOlder { found, oldest })
        } else {
            Ok(())
        }
    }
}

/// Whether prepares of a release name the checkpoint that they build on.
#[must_use]
pub fn names_checkpoint(of_log: u32) -> bool {
    of_log >= release(0, 17, 10)
}

#[cfg(test)]
mod tests {
    use super::{FatalReason, Releases};

    #[test]
    fn a_binary_runs_logs_of_its_releases_only() {
        let releases = Releases {
            oldest: 5,
            newest: 7,
        };
        let found = [4, 5, 7, 8].map(|found| releases.check(found));
        let older = FatalReason::ReleaseOlder {
            found: 4,
            oldest: 5,
        };
        let newer = FatalReason::ReleaseNewer {
            found: 8,
            newest: 7,
        };
        assert_eq!(found, [Err(older), Ok(()), Ok(()), Err(newer)]);
    }
}
