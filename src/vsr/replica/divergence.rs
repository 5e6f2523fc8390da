//! Replicas that have executed the same ops have the same checkpoint, to the byte. They tell each other what
//! identifies theirs; one whose checkpoint is another than that of the others has computed something else
//! from the same log, whatever the reason, and must not serve or acknowledge any more.

use super::{Effect, Replica};
use crate::vsr::FatalReason;
use crate::vsr::members::Voter;
use crate::wire::PeerHeader;
use storage_format::Checksum;

impl Replica {
    /// What identifies the checkpoint that others may rely on.
    pub(super) fn checkpoint_identity(&self) -> Checksum {
        if self.checkpoint_told() == 0 {
            Checksum::ZERO
        } else {
            self.checkpoint_id
        }
    }

    /// Another replica tells of its checkpoint.
    pub(super) fn hear_checkpoint(&mut self, from: Voter, message: &PeerHeader) {
        let known = (message.checkpoint_op.get(), message.checksum_item);
        let told = known.0 == 0 || known.1 != Checksum::ZERO;
        self.peers[from.at()].checkpoint = told.then_some(known);
        self.compare_checkpoints();
    }

    /// Stops if no majority of the replicas that are at the same checkpoint has the one of this member, which
    /// counts if it is a replica itself. Who has been heard lately and is not there yet is waited for.
    fn compare_checkpoints(&mut self) {
        let own = (self.checkpoint_told(), self.checkpoint_identity());
        if own.0 == 0 {
            return;
        }
        let (mut same, mut different) = (0, 0);
        for peer in self.peers_heard() {
            match peer.checkpoint {
                Some((op, _)) if op != own.0 => return,
                Some(other) if other == own => same += 1,
                Some(_) => different += 1,
                None => return,
            }
        }
        if different > same {
            let reason = FatalReason::Diverged { op: own.0 };
            self.effects.push_back(Effect::Stop(reason));
        }
    }
}
