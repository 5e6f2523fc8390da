//! Who belongs to a cluster: replicas, which vote, and standbys, which follow them and have no say.
//!
//! Members count from 0, the replicas first. Whatever is counted towards a quorum takes a [`Voter`], and
//! for the index of a standby there is none.

use super::FatalReason;
use crate::constants::STANDBY_COUNT_MAX;
use storage_format::Superblock;

/// Index of a replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Voter(u8);

impl Voter {
    /// The index.
    #[must_use]
    pub fn index(self) -> u8 {
        self.0
    }

    /// The same, for what there is one of for each replica.
    #[must_use]
    pub fn at(self) -> usize {
        usize::from(self.0)
    }

    /// Its bit in a set of replicas.
    #[must_use]
    pub fn bit(self) -> u8 {
        1 << self.0
    }
}

/// The members of a cluster, as one of them sees them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Members {
    own: u8,
    replica_count: u8,
    standby_count: u8,
}

impl Members {
    /// Those of the cluster of a data file, which has so many standbys.
    #[must_use]
    pub fn new(superblock: &Superblock, standby_count: u8) -> Self {
        Self {
            own: superblock.replica,
            replica_count: superblock.replica_count,
            standby_count,
        }
    }

    /// Those of the cluster of a data file that has so many members.
    ///
    /// # Errors
    /// When there cannot be so many, or this one is none of them.
    pub fn of_count(superblock: &Superblock, count: usize) -> Result<Self, FatalReason> {
        let (own, replicas) = (superblock.replica, superblock.replica_count);
        let standbys = count.checked_sub(usize::from(replicas));
        let standbys = standbys.and_then(|standbys| u8::try_from(standbys).ok());
        let Some(standby_count) = standbys.filter(|standbys| *standbys <= STANDBY_COUNT_MAX) else {
            return Err(FatalReason::MemberCount {
                addresses: count,
                replicas,
            });
        };
        if usize::from(own) >= count {
            return Err(FatalReason::StandbyAddress {
                standby: own,
                replicas,
                addresses: count,
            });
        }
        Ok(Self::new(superblock, standby_count))
    }

    /// Index of this member.
    #[must_use]
    pub fn own(&self) -> u8 {
        self.own
    }

    /// How many vote.
    #[must_use]
    pub fn replica_count(&self) -> u8 {
        self.replica_count
    }

    /// The replica of an index; none if it is that of a standby, or of nobody.
    #[must_use]
    pub fn voter(&self, index: u8) -> Option<Voter> {
        (index < self.replica_count).then_some(Voter(index))
    }

    /// This member, if it votes.
    #[must_use]
    pub fn own_voter(&self) -> Option<Voter> {
        self.voter(self.own)
    }

    /// Whether this is a standby.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.own_voter().is_none()
    }

    /// Whether this is the only replica.
    #[must_use]
    pub fn is_solo(&self) -> bool {
        self.replica_count == 1 && !self.is_standby()
    }

    /// Whether there is no other member at all.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.is_solo() && self.standby_count == 0
    }

    /// Whether this member hears an index: all others hear each other, but for standbys.
    #[must_use]
    pub fn hears(&self, index: u8) -> bool {
        self.voter(index).is_some() || (!self.is_standby() && self.standbys().contains(&index))
    }

    /// The indexes of standbys.
    #[must_use]
    pub fn standbys(&self) -> std::ops::Range<u8> {
        self.replica_count..self.replica_count + self.standby_count
    }

    /// The other replicas.
    pub fn other_replicas(&self) -> impl Iterator<Item = u8> + use<> {
        let own = self.own;
        (0..self.replica_count).filter(move |replica| *replica != own)
    }

    /// One of the other replicas: each in turn, counted from this member on. None if this is the only one.
    #[must_use]
    pub fn other_replica(&self, nth: u64) -> Option<u8> {
        let count = u64::from(self.replica_count);
        let index = match (self.is_standby(), count - 1) {
            (true, _) => nth % count,
            (false, 0) => return None,
            (false, others) => (u64::from(self.own) + 1 + nth % others) % count,
        };
        Some(u8::try_from(index).expect("there are at most six"))
    }

    /// The primary of a view.
    #[must_use]
    pub fn primary_of(&self, view: u32) -> u8 {
        let index = view % u32::from(self.replica_count);
        u8::try_from(index).expect("there are at most six replicas")
    }

    /// The backup that passes the prepares of a view on to a standby: another one for each standby and
    /// view. None if there are no backups.
    #[must_use]
    pub fn feeder(&self, view: u32, standby: u8) -> Option<Voter> {
        let backups = self.replica_count - 1;
        let step = 1 + (standby - self.replica_count).checked_rem(backups)?;
        self.voter((self.primary_of(view) + step) % self.replica_count)
    }
}

#[cfg(test)]
mod tests {
    use super::Members;
    use crate::constants::{REPLICA_COUNT_MAX, STANDBY_COUNT_MAX};
    use storage_format::Superblock;

    fn members(own: u8, replica_count: u8, standby_count: u8) -> Members {
        let mut superblock = Superblock::zeroed();
        (superblock.replica, superblock.replica_count) = (own, replica_count);
        Members::new(&superblock, standby_count)
    }

    #[test]
    fn standbys_have_no_vote() {
        for replicas in 1..=REPLICA_COUNT_MAX {
            let standby = members(replicas, replicas, STANDBY_COUNT_MAX);
            assert!(standby.is_standby() && !standby.is_solo());
            assert_eq!(standby.own_voter(), None);
            assert_eq!(standby.other_replicas().count(), usize::from(replicas));
            for index in standby.standbys() {
                assert_eq!(standby.voter(index), None);
                assert!(!standby.hears(index), "nor do they hear each other");
                assert!(members(0, replicas, STANDBY_COUNT_MAX).hears(index));
                assert!(!members(0, replicas, 0).hears(index));
            }
        }
        assert!(members(0, 1, 1).is_solo());
    }

    #[test]
    fn all_other_replicas_are_asked_in_turn() {
        let turn = |own, count| {
            let members = members(own, count, 1);
            let turn = (0..u64::from(count)).filter_map(|nth| members.other_replica(nth));
            turn.collect::<Vec<_>>()
        };
        assert_eq!(turn(1, 3), [2, 0, 2]);
        assert_eq!(turn(3, 3), [0, 1, 2]);
        assert_eq!(turn(1, 1), [0]);
        assert!(turn(0, 1).is_empty());
    }

    #[test]
    fn backups_feed_standbys() {
        let feeders = |count, view| {
            let members = members(0, count, 3);
            let feeders = members.standbys();
            let feeders = feeders.map(|standby| members.feeder(view, standby));
            feeders
                .map(|it| it.map(|it| it.index()))
                .collect::<Vec<_>>()
        };
        assert_eq!(feeders(3, 3), [Some(1), Some(2), Some(1)]);
        assert_eq!(feeders(3, 5), [Some(0), Some(1), Some(0)]);
        assert_eq!(feeders(1, 5), [None; 3]);
    }
}
