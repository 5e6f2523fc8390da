//! A replica that lags by more than the others' journals goes on from a checkpoint of the primary.
//!
//! Checkpoint, view and the top of the log go into the superblock together: before that, this replica is
//! as it was, and after it, all that it says and does follows from the new state. Blocks of the
//! checkpoint come later, as they are needed, and in the background; until all are here, nobody is told
//! of the checkpoint, since nobody could rely on it.
//!
//! The log that is given up was acknowledged in part. All of that is in the checkpoint or in the log of the
//! view, which is why only the start of a view brings a checkpoint.

use super::timers::PATIENCE;
use super::{JournalWrite, Replica};
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_usize, u64_to_usize};
use crate::vsr::log::Body;
use crate::vsr::message::CheckpointState;
use crate::vsr::replica::Effect;
use crate::vsr::vote::Decided;
use storage_format::PrepareHeader;

impl Replica {
    /// The op of the checkpoint that others may rely on.
    pub(super) fn checkpoint_told(&self) -> u64 {
        let missing = self.content_missing && !planted(Bug::TellCheckpointEarly);
        if missing || self.syncing.is_some() {
            mark(Mark::CheckpointNotTold);
            0
        } else {
            self.checkpoint.op()
        }
    }

    /// Whether there is room for the top of a log, and for all that lies between it and the checkpoint.
    pub(super) fn fits(&self, headers: &[PrepareHeader]) -> bool {
        let slots = self.slots();
        headers[0].op.get() < self.checkpoint.op() + 2 * slots
    }

    /// Whether this replica has not got what it needs of a checkpoint from another one, so that it cannot
    /// execute anything.
    pub(super) fn lacks_state(&self) -> bool {
        self.content_missing && !self.loaded
    }

    /// Whether a log is all in the journals of others, from its first op on.
    pub(super) fn is_in_journals(&self, checkpoint: &CheckpointState, decided: &Decided) -> bool {
        let slots = self.slots();
        checkpoint.op() == 0 && decided.headers[0].op.get() < slots
    }

    /// Whether the next op to execute is in no journal any more, if logs end with `head`.
    pub(super) fn is_overwritten(&self, head: u64) -> bool {
        let slots = self.slots();
        head > self.executed.0 + slots
    }

    /// Whether this backup has not come on for long, and others have a checkpoint that it could go on from.
    pub(super) fn is_stuck(&self) -> bool {
        let primary = &self.peers[usize::from(self.primary_of(self.view))];
        let head = self.log.head().op.get();
        let waits = if self.lacks_state() {
            // Nobody may have the blocks any more that it waits for.
            self.timers.content + 2 * PATIENCE
        } else if self.loaded && self.is_overwritten(self.primary_head.max(head)) {
            let next = self.log.entry(self.executing + 1);
            let missing = next.is_none_or(|next| next.body == Body::Missing);
            match missing && !self.ready.contains_key(&(self.executing + 1)) {
                // Others may have it, but the longer it asks for that, the more it lacks: journals are short.
                true => self.timers.progress + PATIENCE / 2,
                false => self.timers.progress + 2 * PATIENCE,
            }
        } else {
            self.timers.progress + 20 * PATIENCE
        };
        self.follows()
            && !planted(Bug::LagForever)
            && self.syncing.is_none()
            && self.executed.0 < self.commit_max
            && primary.checkpoint_op > self.executed.0
            && self.timers.due(waits)
    }

    /// Goes on from `checkpoint`, in a view that has begun with the log that was decided.
    pub(super) fn sync(&mut self, view: u32, checkpoint: CheckpointState, decided: &Decided) {
        let (op, head) = (checkpoint.op(), decided.headers[0].op.get());
        let slots = self.slots();
        if op <= self.executed.0 || head < op || head >= op + slots || self.syncing.is_some() {
            if self.told.replace(view) != Some(view) {
                let checkpoint = op;
                tracing::warn!(
                    head,
                    checkpoint,
                    "this replica is too far behind to take part"
                );
            }
            return;
        }
        mark(Mark::Syncs);
        tracing::info!(
            from = self.executed.0,
            to = op,
            view,
            "going on from another checkpoint"
        );
        self.view = view;
        self.leave();
        self.install(decided);
        self.commit_max = self.commit_max.max(op);
        self.catch_up_with_checkpoint();
        for prepare in std::mem::take(&mut self.ready).into_values() {
            self.recycle(prepare.buffer);
        }
        for prepare in std::mem::take(&mut self.to_write) {
            if prepare.header.op.get() > op {
                self.to_write.push_back(prepare);
            } else {
                // The checkpoint has it.
                mark(Mark::SyncDropsWrite);
                let _ = self.log.set_body(&prepare.header, Body::Missing);
                self.recycle(prepare.buffer);
            }
        }
        self.syncing = Some(checkpoint);
        let state = self.view_state();
        let sync = Effect::Sync(Box::new((checkpoint, state)));
        self.effects.push_back(sync);
    }

    pub(super) fn on_synced(&mut self) {
        let checkpoint = self.syncing.take().expect("it was on its way");
        self.set_checkpoint(checkpoint);
        self.content_missing = true;
        self.loaded = false;
        self.executed = (checkpoint.op(), checkpoint.header.checksum);
        self.executing = checkpoint.op();
        self.timers.progress = self.timers.now;
        self.timers.content = self.timers.now;
        // What came meanwhile was to follow the state that is given up.
        for prepare in std::mem::take(&mut self.ready).into_values() {
            self.recycle(prepare.buffer);
        }
        self.renew_buffers();
        // The view may have been left again; the log view not, meanwhile.
        self.view_durable = (self.log_view, self.log_view);
        self.installs_durable = self.installs;
        self.end_recovery();
        if self.view_is_durable() {
            self.view_became_durable();
        } else {
            mark(Mark::SyncOutrun);
        }
    }

    /// The checkpoint was made here meanwhile. If the superblock has another view yet, that is written now.
    pub(super) fn on_sync_needless(&mut self) {
        mark(Mark::SyncNeedless);
        self.syncing = None;
        if self.view_is_durable() {
            self.view_became_durable();
        }
    }

    /// What was handed out to be executed is not given back.
    fn renew_buffers(&mut self) {
        let slot_size = to_usize(self.geometry.journal_slot_size.get());
        let used = self.to_write.len() + usize::from(self.journal == JournalWrite::Prepare);
        let count = u64_to_usize(Self::buffer_count(self.solo()));
        let missing = count.saturating_sub(used + self.buffers.len());
        let new = (0..missing).map(|_| SectorBuf::zeroed(slot_size));
        self.buffers.extend(new);
    }
}
