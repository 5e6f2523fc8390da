//! Replicas that have executed the same ops have the same checkpoint, to the byte. One whose checkpoint is
//! another than that of the others has computed something else from the same log, whatever the reason, and
//! must not serve or acknowledge any more. It shows in two ways.
//!
//! * Replicas tell each other what identifies their checkpoint, with their clocks.
//! * Every prepare names the checkpoint that it builds on (`vsr::lineage`). A replica that has another one
//!   neither keeps nor acknowledges the prepare: its primary may be the one that is wrong, and must not
//!   commit it. Once the prepare is committed a quorum is of another opinion, and the replica stops.

use super::{Effect, Replica};
use crate::stdx::planted::{Bug, planted};
use crate::vsr::members::Voter;
use crate::vsr::release::names_checkpoint;
use crate::vsr::{FatalReason, lineage};
use crate::wire::PeerHeader;
use storage_format::{Checksum, PrepareHeader};

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

    /// What a prepare of `op` names as the checkpoint that it builds on; none if that cannot be told here.
    pub(super) fn base_identity(&self, op: u64) -> Option<Checksum> {
        if !names_checkpoint(self.release) {
            return Some(Checksum::ZERO);
        }
        let own = (&self.checkpoint, self.checkpoint_id);
        lineage::base_identity(op, own, &self.geometry)
    }

    /// Whether a prepare builds on another checkpoint than this replica has.
    pub(super) fn contradicts(&self, header: &PrepareHeader) -> bool {
        let own = self.base_identity(header.op.get());
        own.is_some_and(|own| own != header.checkpoint_id) && !planted(Bug::TrustCheckpointId)
    }

    /// A prepare that builds on another checkpoint is not taken, whoever is wrong; if this very prepare is
    /// committed, this replica is.
    pub(super) fn reject(&mut self, header: &PrepareHeader) {
        let op = header.op.get();
        tracing::error!(op, "a prepare builds on another checkpoint: it is rejected");
        // An op of an earlier view may be committed as another prepare.
        let entry = self.log.entry(op);
        let of_log = entry.is_some_and(|entry| entry.header.checksum == header.checksum);
        let of_view = header.view.get() == self.view && self.follows();
        if op <= self.commit_max && (of_log || of_view) {
            self.effects.push_back(Effect::Stop(self.diverged(header)));
        }
    }

    fn diverged(&self, header: &PrepareHeader) -> FatalReason {
        let op = lineage::base_of(header.op.get(), &self.geometry);
        FatalReason::Diverged { op }
    }

    /// Whether a committed op is one that this replica may execute: at the release of its log, and on top of
    /// its checkpoint.
    pub(super) fn check_executable(&self, header: &PrepareHeader) -> Result<(), FatalReason> {
        let (own, others) = (self.release, header.release.get());
        if own != others {
            self.releases.check(others)?;
            Err(FatalReason::ReleaseOfOthers { own, others })
        } else if self.contradicts(header) {
            Err(self.diverged(header))
        } else {
            Ok(())
        }
    }
}
