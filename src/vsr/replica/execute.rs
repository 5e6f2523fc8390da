//! Executing what is committed, in order: from memory, or read from the journal again. Alone, also what is
//! being written.

use super::{Effect, Op, Outcome, Prepare, Purpose, Replica};
use crate::constants;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64, to_usize};
use crate::vsr::lineage::checkpoint_interval;
use crate::vsr::log::Body;
use crate::wire::Operation;
use bytes::Bytes;
use storage_format::{PrepareHeader, RequestEntry};

impl Replica {
    /// Reads from the journal what is to be executed or sent.
    pub(super) fn read_next(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let next = self.executing + 1;
        let wanted = self.may_execute(next) && !self.ready.contains_key(&next);
        let execute = wanted
            .then(|| self.log.entry(next))
            .flatten()
            .filter(|entry| matches!(entry.body, Body::Written | Body::Durable))
            .map(|entry| (entry.header, Purpose::Execute));
        self.reading = execute.or_else(|| self.reads.pop_front());
        if let Some((header, _)) = self.reading {
            self.effects.push_back(Effect::ReadPrepare(header));
        }
    }

    pub(super) fn on_prepare_read(&mut self, prepare: Option<Prepare>) {
        let (header, purpose) = self.reading.take().expect("one was being read");
        let Some(prepare) = prepare else {
            self.on_prepare_damaged(&header);
            return;
        };
        match purpose {
            Purpose::Execute => {
                let op = header.op.get();
                if self.log.is_written(&header)
                    && op > self.executing
                    && let Some(other) = self.ready.insert(op, prepare)
                {
                    self.recycle(other.buffer);
                }
            }
            Purpose::Peer(replica) => self.send_prepare(replica, &prepare),
        }
    }

    /// A prepare is not intact in the journal, unless another was written there meanwhile. Alone there is
    /// nobody to ask.
    pub(super) fn on_prepare_damaged(&mut self, header: &PrepareHeader) {
        if self.log.is_written(header) && !self.solo() {
            let op = header.op.get();
            mark(Mark::PrepareDamaged);
            tracing::error!(op, "a prepare is damaged: asking the others");
            self.log.lose(header);
            self.repair();
        }
    }

    /// Whether an op may be handed out: it is committed, and those before it do not pile up.
    fn may_execute(&self, op: u64) -> bool {
        let few = op <= self.executed.0 + constants::PIPELINE_PREPARES_MAX;
        op <= self.commit_max && self.loaded && few
    }

    /// Has the next op executed: committed, here, and the successor of the last. Or stops, if that is not for
    /// this replica to execute.
    pub(super) fn execute_next(&mut self) -> Option<Effect> {
        let next = self.executing + 1;
        if !self.may_execute(next) {
            return None;
        }
        let header = self.log.entry(next)?.header;
        let prepare = self.ready.remove(&next)?;
        if prepare.header.checksum != header.checksum {
            // A view change has put another op in its place.
            self.recycle(prepare.buffer);
            return None;
        }
        if self.executing == self.executed.0 {
            assert_eq!(
                header.parent, self.executed.1,
                "op {next} does not follow what was executed"
            );
        }
        if let Err(reason) = self.check_executable(&header) {
            return Some(Effect::Stop(reason));
        }
        self.executing = next;
        Some(Effect::Execute(Op::Written(prepare)))
    }

    /// Whether an op may be executed while its prepare is being written. What comes of it stays in memory,
    /// and in blocks that no checkpoint names, until the journal has the op: no reply is sent, no session
    /// comes or goes, no checkpoint is made. With several replicas a view change may replace it: never.
    pub(super) fn may_run_ahead(&self, op: u64, requests: &[(RequestEntry, Bytes)]) -> bool {
        let checkpoint_due = op >= self.checkpoint.op() + checkpoint_interval(&self.geometry)
            && !planted(Bug::CheckpointAhead);
        let registers =
            |(entry, _): &(RequestEntry, Bytes)| entry.operation == Operation::Register.code();
        let few = op <= self.executed.0 + constants::PIPELINE_PREPARES_MAX;
        self.solo()
            && op == self.executing + 1
            && few
            && !checkpoint_due
            && !requests.iter().any(registers)
    }

    pub(super) fn on_executed(&mut self, done: Op, outcome: Outcome) {
        let header = *done.header();
        let op = header.op.get();
        assert_eq!(op, self.executed.0 + 1);
        if op > self.commit_max && !planted(Bug::AnswerAhead) {
            mark(Mark::ExecutedAhead);
            self.ahead = Some((done, outcome));
            return;
        }
        self.executed = (op, header.checksum);
        self.timers.progress = self.timers.now;
        self.pulse_next = outcome.pulse_next;
        self.timestamp_last = self.timestamp_last.max(header.timestamp.get());
        if let Op::Written(prepare) = done {
            self.recycle(prepare.buffer);
        }
        self.repair_more();
        if self.pipeline.front().is_none_or(|first| first.op != op) {
            // Somebody else was the primary.
            mark(Mark::ExecutedForOthers);
            return;
        }
        let in_flight = self.pipeline.pop_front().expect("it was there just now");
        self.events_waiting -= in_flight.events;
        for (route, reply) in in_flight.routes.into_iter().zip(outcome.replies) {
            if let Some(frame) = reply {
                self.send_client(route.way, route.client, frame);
            }
        }
    }

    /// Keeps a buffer for the next prepare.
    pub(super) fn recycle(&mut self, buffer: SectorBuf) {
        // Those that were read are as long as they have to be, which may be as long as others.
        let whole = buffer.len() == to_usize(self.geometry.journal_slot_size.get());
        if whole && to_u64(self.buffers.len()) < Self::buffer_count(self.solo()) {
            self.buffers.push(buffer);
        }
    }
}
