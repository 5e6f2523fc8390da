//! Executing ops: the ledger, the sessions and the replies.

use super::checkpoint::Blocks;
use crate::constants;
use crate::io::Io;
use crate::ledger::Ledger;
use crate::vsr::sessions::{Sessions, Standing};
use crate::vsr::{Admission, Prepare, Replica};
use crate::wire::{Operation, build};
use bytes::Bytes;
use storage_format::{Geometry, PrepareHeader, PrepareKind, RequestEntry, Superblock};
use zerocopy::IntoBytes;

/// All that executing an op changes, but the sessions, which the replica owns.
pub(super) struct State<'a, I: Io> {
    pub(super) io: &'a I,
    pub(super) superblock: Superblock,
    pub(super) ledger: Ledger,
    pub(super) blocks: Blocks<'a>,
}

impl<I: Io> std::fmt::Debug for State<'_, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("superblock", &self.superblock)
            .finish_non_exhaustive()
    }
}

impl<I: Io> State<'_, I> {
    pub(super) fn geometry(&self) -> Geometry {
        self.superblock.geometry
    }

    /// Executes `prepare`; [`Self::write_full`] has to follow. One reply for each entry; none for
    /// an entry whose session was evicted before its turn: it has no effect either.
    pub(super) fn execute(
        &mut self,
        prepare: &Prepare,
        sessions: &mut Sessions,
    ) -> Vec<Option<Bytes>> {
        let header = &prepare.header;
        let mut replies = Vec::new();
        match header.kind() {
            PrepareKind::Empty | PrepareKind::Root => unreachable!("never prepared"),
            PrepareKind::Pulse => self.ledger.pulse(header.timestamp.get()),
            PrepareKind::Requests => {
                for (index, (entry, body)) in prepare.requests().enumerate() {
                    let index = u32::try_from(index).expect("at most 1000 entries");
                    replies.push(self.execute_entry(prepare, sessions, index, &entry, body));
                }
            }
        }
        replies
    }

    /// Begins to write the blocks that the op filled.
    pub(super) async fn write_full(&mut self, header: &PrepareHeader) {
        self.blocks
            .write_full(self.io, &self.superblock, header.op.get(), &mut self.ledger)
            .await;
    }

    fn execute_entry(
        &mut self,
        prepare: &Prepare,
        sessions: &mut Sessions,
        index: u32,
        entry: &RequestEntry,
        body: &[u8],
    ) -> Option<Bytes> {
        if sessions.standing_entry(entry) != Standing::New {
            return None;
        }
        let operation =
            Operation::from_u8(entry.operation).expect("the primary checked the operation");
        let mut frame = vec![0; constants::HEADER_SIZE];
        if operation == Operation::Register {
            frame.extend_from_slice(build::register_result().as_bytes());
        } else {
            self.ledger
                .execute(operation, entry.timestamp.get(), body, &mut frame);
        }
        let (reply, frame) = Replica::reply(&prepare.header, entry, operation, frame);
        let stored = sessions.store_reply(&reply, index, frame.clone());
        assert!(stored, "the session was there just now");
        Some(frame)
    }
}

impl<I: Io> Admission for State<'_, I> {
    fn admits(&self, operation: Operation, events: u64, events_waiting: u64) -> bool {
        if !self.ledger.admits(operation, events, events_waiting) {
            tracing::error!(
                used = self.ledger.memory_used(),
                "the memory limit is reached: requests that create are refused, queries are \
                 served; start with a greater --limit-memory"
            );
            return false;
        }
        if !self.blocks.admits(&self.ledger, events + events_waiting) {
            tracing::error!(
                "the data file has reached its size limit: requests that create are refused, \
                 queries are served; format a file with a greater --limit-storage"
            );
            return false;
        }
        true
    }
}
