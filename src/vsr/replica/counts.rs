//! All data files of a cluster name the same number of replicas: quorums follow from it, and which members are
//! standbys.
//!
//! If one file names another number, its member and the rest would be two clusters that answer at the same
//! addresses. So nobody hears who names another number; and a member of whom so many others differ that
//! they need none like it stops.

use super::{Effect, Replica};
use crate::vsr::FatalReason;
use crate::wire::PeerHeader;
use crate::wire::header::command;

impl Replica {
    /// Whether the file of another member names as many replicas as this one's. Older binaries do not say, and
    /// whoever recovers is told in another way.
    pub(super) fn is_of_count(&mut self, message: &PeerHeader) -> bool {
        let (own, others) = (self.members.replica_count(), message.replica_count);
        let (member, now) = (message.replica, self.timers.now);
        if others == 0 || matches!(message.command, command::RECOVER | command::RECOVERY) {
            return true;
        }
        if others == own {
            self.other_counts.agree(member);
            return true;
        }
        if self.other_counts.hear(member, others.into(), now) {
            tracing::warn!(
                member,
                own,
                others,
                "the data file of another member names another number of replicas: it is not heard"
            );
        }
        if self.other_counts.count(others.into(), now) >= usize::from(self.quorums.view_change) {
            let reason = FatalReason::ReplicasOfOthers { own, others };
            self.effects.push_back(Effect::Stop(reason));
        }
        false
    }
}
