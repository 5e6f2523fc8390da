//! All data files of a cluster name the same number of replicas: quorums follow from it, and which members are
//! standbys.
//!
//! If one file names another number, its member and the rest would be two clusters that answer at the same
//! addresses. So nobody hears who names another number; and a member of whom so many others differ that
//! they need none like it stops. They have to say so for a while: one frame that somebody made up ends nothing.

use super::Replica;
use super::timers::PATIENCE;
use crate::constants::{REPLICA_COUNT_MAX, STANDBY_COUNT_MAX};
use crate::vsr::FatalReason;
use crate::vsr::replica::Effect;
use crate::wire::PeerHeader;
use crate::wire::header::command;

/// Members that there can be.
const MEMBERS_MAX: usize = (REPLICA_COUNT_MAX + STANDBY_COUNT_MAX) as usize;

/// That the file of another member names another number of replicas.
#[derive(Clone, Copy, Debug)]
pub(super) struct OtherCount {
    count: u8,
    /// Since when it says so,
    first: u64,
    /// and when it did last.
    last: u64,
}

/// By member.
pub(super) type OtherCounts = [Option<OtherCount>; MEMBERS_MAX];

impl Replica {
    /// Whether the file of another member names as many replicas as this one's. Older binaries do not say, and
    /// whoever recovers is told in another way.
    pub(super) fn is_of_count(&mut self, message: &PeerHeader) -> bool {
        let (own, others) = (self.members.replica_count(), message.replica_count);
        let recovers = matches!(message.command, command::RECOVER | command::RECOVERY);
        let known = &mut self.other_counts[usize::from(message.replica)];
        if others == 0 || recovers {
            return true;
        }
        if others == own {
            *known = None;
            return true;
        }
        let now = self.timers.now;
        let before = known.filter(|it| it.count == others && now <= it.last + 6 * PATIENCE);
        *known = Some(OtherCount {
            count: others,
            first: before.map_or(now, |before| before.first),
            last: now,
        });
        if before.is_none() {
            tracing::warn!(
                member = message.replica,
                own,
                others,
                "the data file of another member names another number of replicas: it is not heard"
            );
        }
        let same = self.other_counts.iter().flatten().filter(|it| {
            let long = it.last >= it.first + 4 * PATIENCE;
            it.count == others && long && !self.timers.due(it.last + 6 * PATIENCE)
        });
        if same.count() >= usize::from(self.quorums.view_change) {
            let reason = FatalReason::ReplicasOfOthers { own, others };
            self.effects.push_back(Effect::Stop(reason));
        }
        false
    }
}
