//! Writing the journal: prepares in the order in which they came, and the redundant headers behind them.

use super::{Effect, JournalWrite, Prepare, Replica};
use crate::constants;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{to_u64, u64_to_usize};
use crate::vsr::log::Body;
use storage_format::{Geometry, PrepareHeader};

impl Replica {
    /// Whether headers wait for a quiet moment to be written.
    #[must_use]
    pub fn puts_off(&self) -> bool {
        self.solo() && self.journal == JournalWrite::Idle && !self.headers_behind.is_empty()
    }

    /// Begins the next journal write, if the journal is free: a prepare if something waits, headers
    /// if too many are behind or there is time.
    pub(super) fn journal_next(&mut self) {
        // What belongs to a view is written when the superblock has the view.
        if self.journal != JournalWrite::Idle || !self.view_is_durable() {
            return;
        }
        let behind = self.headers_behind.len();
        if behind < constants::HEADERS_BEHIND_MAX {
            if self.to_write.is_empty() {
                if self.solo() {
                    // What comes before the next op is handed out first, or that could not run ahead.
                    while let Some(due) = self.execute_next() {
                        self.effects.push_back(due);
                    }
                }
                self.prepare_next();
            }
            if let Some(prepare) = self.to_write.pop_front() {
                // A header that waits for the prepare before it in the slot means nothing any more.
                let slots = self.slots();
                let slot = prepare.header.op.get() % slots;
                self.headers_behind
                    .retain(|header| header.op.get() % slots != slot);
                self.journal = JournalWrite::Prepare;
                self.effects.push_back(Effect::WritePrepare(prepare));
            }
        }
        let write = !self.solo() || self.quiet || behind == constants::HEADERS_BEHIND_MAX;
        if self.journal == JournalWrite::Idle && write && behind > 0 {
            self.write_headers();
        }
    }

    /// Writes the oldest header that is behind, and those in the same sector.
    fn write_headers(&mut self) {
        let per_sector = to_u64(storage_format::geometry::HEADERS_PER_SECTOR);
        let slots = self.slots();
        let sector = |header: &PrepareHeader| header.op.get() % slots / per_sector;
        let first = sector(&self.headers_behind[0]);
        let count = self
            .headers_behind
            .iter()
            .take_while(|header| sector(header) == first)
            .count();
        self.headers_writing = self.headers_behind.drain(..count).collect();
        self.journal = JournalWrite::Headers;
        let headers = self.headers_writing.clone();
        self.effects.push_back(Effect::WriteHeaders(headers));
    }

    pub(super) fn on_prepare_durable(&mut self, prepare: Prepare) {
        assert_eq!(self.journal, JournalWrite::Prepare);
        self.journal = JournalWrite::Idle;
        self.headers_behind.push_back(prepare.header);
        self.quiet = self.shutdown;
        let op = prepare.header.op.get();
        let current = self.log.set_body(&prepare.header, Body::Written);
        if self.solo() {
            self.commit_max = op;
        } else if planted(Bug::AcknowledgeWithoutHeader) {
            self.acknowledge(&prepare.header);
        }
        let soon = op <= self.executed.0 + 2 * constants::PIPELINE_PREPARES_MAX;
        let room = soon && to_u64(self.ready.len()) < constants::PIPELINE_PREPARES_MAX;
        if self.solo() && op == self.executing {
            // It runs ahead of the journal, or did.
            self.buffers.push(prepare.buffer);
            if let Some((op, outcome)) = self.ahead.take() {
                self.on_executed(op, outcome);
            }
        } else if current && op > self.executing && (self.solo() || room) {
            if let Some(other) = self.ready.insert(op, prepare) {
                self.recycle(other.buffer);
            }
        } else {
            // It is read again when its turn comes.
            mark(Mark::ReadAgainLater);
            self.buffers.push(prepare.buffer);
        }
        self.repair_more();
    }

    pub(super) fn on_headers_durable(&mut self) {
        assert_eq!(self.journal, JournalWrite::Headers);
        self.journal = JournalWrite::Idle;
        for header in std::mem::take(&mut self.headers_writing) {
            // A view change may have taken it out of the log meanwhile, or the prepare was found damaged.
            let entry = self.log.entry(header.op.get());
            let written = entry.is_some_and(|entry| entry.body == Body::Written);
            if !written {
                mark(Mark::HeaderOfDropped);
            }
            if written && self.log.set_body(&header, Body::Durable) && !self.solo() {
                self.acknowledge(&header);
            }
        }
    }

    /// Highest op that may be prepared or accepted: its slot is not needed any more.
    pub(super) fn limit(&self) -> u64 {
        self.limit_of(self.checkpoint.op())
    }

    /// That of a replica with its checkpoint at `op`.
    pub(super) fn limit_of(&self, op: u64) -> u64 {
        let slots = self.slots();
        // The header of the checkpoint's op stays, and what an op builds on is known (`vsr::lineage`).
        op + slots - 1
    }

    /// Slots of the journal.
    pub(super) fn slots(&self) -> u64 {
        self.geometry.journal_slot_count.get().into()
    }

    /// Offset of the slot of `op` in the prepare ring.
    #[must_use]
    pub fn prepare_offset(geometry: &Geometry, op: u64) -> u64 {
        let slot = op % u64::from(geometry.journal_slot_count.get());
        geometry.prepares_offset() + slot * u64::from(geometry.journal_slot_size.get())
    }

    /// Slot of `op`.
    #[must_use]
    pub fn slot(geometry: &Geometry, op: u64) -> usize {
        u64_to_usize(op % u64::from(geometry.journal_slot_count.get()))
    }
}
