//! Checkpoints: the state in grid blocks, then the superblock that names them.
//!
//! Most of the state is in blocks already when a checkpoint begins: what only grows is written as
//! soon as it fills a block. The rest is written now, then the manifest, which names every
//! block; last, the superblock. A block is never overwritten while a durable checkpoint references
//! it, so a crash at any point leaves the old or the new state. The journal from the checkpoint on is
//! replayed at open, and makes the same blocks again.

use super::commit::State;
use super::scrub::Durable;
use crate::constants;
use crate::grid::{BlockStore, NewBlock};
use crate::io::{Io, Storage};
use crate::ledger::catalog::{SESSION_SIZE, table};
use crate::lsm::Chunk;
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64};
use crate::vsr::lineage::checkpoint_interval;
use crate::vsr::sessions::{SessionRecord, Sessions, SharedSessions};
use futures_util::stream::{FuturesUnordered, StreamExt};
use storage_format::{
    BlockKind, BlockReference, MANIFEST_RECORD_SIZE, ManifestKind, ManifestRecord, ManifestTag,
    PrepareHeader, ReplySlotHeader, SECTOR_SIZE, Superblock,
};
use zerocopy::IntoBytes;

/// Writes of replies under way at the same time.
pub(super) const WRITES_MAX: usize = 16;
/// Bytes that the blocks of one event take at most, merges included.
const EVENT_BLOCKS_SIZE_MAX: u64 = 4096;
/// Sessions of a block.
const SESSIONS_PER_BLOCK: usize = Chunk::<SessionRecord>::CAPACITY;
const _: () = assert!(size_of::<SessionRecord>() == SESSION_SIZE);
/// Records of a block of the manifest.
const MANIFEST_PER_BLOCK: usize = constants::BLOCK_DATA_SIZE / MANIFEST_RECORD_SIZE;

/// Blocks of the last checkpoint that belong to the driver.
#[derive(Debug, Default)]
pub(super) struct Checkpointed {
    /// Of the sessions' table.
    pub(super) sessions: Vec<BlockReference>,
    /// Of the manifest.
    pub(super) manifest: Vec<BlockReference>,
}

impl<I: Io> State<'_, I> {
    /// Whether the op just executed is the last one before a checkpoint.
    pub(super) fn checkpoint_due(&self, header: &PrepareHeader) -> bool {
        let last = self.superblock.current().checkpoint.op.get();
        header.op.get() >= last + checkpoint_interval(&self.geometry)
    }

    /// Makes a checkpoint of the state after `header`'s op.
    pub(super) async fn checkpoint(&mut self, header: &PrepareHeader) {
        let mut manifest = self.ledger.checkpoint(&mut self.grid).await;
        if planted(Bug::ReuseBlocksEarly) {
            self.grid.free.checkpoint_durable();
        }
        self.write_sessions(&mut manifest).await;
        if !planted(Bug::ForgetReplies) {
            let replies = replies_to_write(&self.superblock.current(), &self.sessions.borrow());
            write_replies(self.io, replies, &self.sessions).await;
        }
        let index = self.write_manifest(&manifest).await;
        self.grid.finish_writes().await;
        let blocks = to_u64(storage_format::manifest::blocks(&manifest).count());
        let ledger_state = self.ledger.state();
        let checkpoint = |next: &mut Superblock| {
            next.checkpoint = *header;
            next.checkpoint_index = index;
            next.checkpoint_block_count = blocks.into();
            next.ledger_state = ledger_state;
            // While the journal is replayed, more is known to be committed than is executed.
            next.commit_max = next.commit_max.get().max(header.op.get()).into();
        };
        self.superblock.update(self.io.storage(), checkpoint).await;
        self.durable.set(Durable::of(&self.superblock.current()));
        self.grid.damage().settle().await;
        self.grid.free.checkpoint_durable();
        tracing::info!(op = header.op.get(), blocks, "checkpoint");
    }

    /// Writes the sessions' table; releases that of the last checkpoint.
    async fn write_sessions(&mut self, manifest: &mut Vec<u8>) {
        for old in std::mem::take(&mut self.checkpointed.sessions) {
            self.grid.release(&old);
        }
        let records: Vec<SessionRecord> = {
            let sessions = self.sessions.borrow();
            sessions.iter().map(|session| session.record).collect()
        };
        for (position, records) in (0..).zip(records.chunks(SESSIONS_PER_BLOCK)) {
            let mut chunk = Chunk::new();
            records.iter().for_each(|record| chunk.push(record));
            let block = chunk.block(table::SESSIONS, position, &mut self.grid).await;
            let block = self.grid.write(block);
            let record = ManifestRecord {
                block,
                first: 0.into(),
                count: to_u64(records.len()).into(),
                tag: ManifestTag {
                    kind: ManifestKind::TableBlock as u8,
                    table: table::SESSIONS,
                    ..ManifestTag::default()
                },
            };
            manifest.extend_from_slice(record.as_bytes());
            self.checkpointed.sessions.push(block);
        }
    }

    /// Writes the manifest, the last block first: each names the one after it. Gives the first.
    async fn write_manifest(&mut self, manifest: &[u8]) -> BlockReference {
        for old in std::mem::take(&mut self.checkpointed.manifest) {
            self.grid.release(&old);
        }
        let mut next = BlockReference::default();
        let chunks = manifest.chunks(MANIFEST_PER_BLOCK * MANIFEST_RECORD_SIZE);
        for (position, bytes) in chunks.enumerate().rev() {
            let mut buffer = self.grid.buffer().await;
            buffer[SECTOR_SIZE..SECTOR_SIZE + bytes.len()].copy_from_slice(bytes);
            next = self.grid.write(NewBlock {
                kind: BlockKind::Manifest,
                table: 0,
                record_size: u32::try_from(MANIFEST_RECORD_SIZE).expect("it is 64"),
                position: to_u64(position),
                size: bytes.len(),
                next,
                buffer,
                sums: None,
            });
            self.checkpointed.manifest.push(next);
        }
        next
    }

    /// Blocks in use, and those that a checkpoint and all merges may need beside them.
    pub(super) fn blocks_needed(&self) -> u64 {
        let sessions = to_u64(self.sessions_blocks_max());
        let manifest = to_u64(self.checkpointed.manifest.len()) + 2;
        // While a merge goes on its inputs and its output are there, and then the inputs until a
        // checkpoint; of the mutable tables the old blocks and the new ones.
        let reserve = self.ledger.blocks_rewritten() + sessions + 2 * manifest + 64;
        self.grid.free.taken_count() + reserve
    }

    fn sessions_blocks_max(&self) -> usize {
        let count = crate::stdx::to_usize(self.geometry.session_count_max.get());
        count.div_ceil(SESSIONS_PER_BLOCK)
    }
}

/// Blocks that so many events take at most.
pub(super) fn blocks_of(events: u64) -> u64 {
    let size = events.saturating_mul(EVENT_BLOCKS_SIZE_MAX);
    size.div_ceil(to_u64(constants::BLOCK_DATA_SIZE))
}

/// A reply in its slot: whose and of which op, where, and the bytes.
type ReplyWrite = ((u128, u64), u64, SectorBuf);

/// The replies that their slots do not have. A slot that is overwritten held a reply that replaying the
/// journal would make anew, so a crash before the superblock is written loses nothing.
fn replies_to_write(superblock: &Superblock, sessions: &Sessions) -> Vec<ReplyWrite> {
    let unsaved = sessions.iter().filter(|session| !session.saved);
    unsaved
        .filter_map(|session| {
            let record = &session.record;
            // One that is damaged here stays so until somebody has it.
            let frame = session.reply.as_ref()?;
            let size = SECTOR_SIZE + frame.len().next_multiple_of(SECTOR_SIZE);
            let mut buffer = SectorBuf::zeroed(size);
            let (client, op) = (record.reply.client.get(), record.reply.op.get());
            let header = ReplySlotHeader::new(client, op, frame);
            buffer[..size_of::<ReplySlotHeader>()].copy_from_slice(header.as_bytes());
            buffer[SECTOR_SIZE..SECTOR_SIZE + frame.len()].copy_from_slice(frame);
            let offset = superblock.geometry.reply_offset(record.slot.get().into());
            Some(((client, op), offset, buffer))
        })
        .collect()
}

async fn write_replies<I: Io>(io: &I, replies: Vec<ReplyWrite>, sessions: &SharedSessions) {
    let mut writes = FuturesUnordered::new();
    let mut saved = Vec::new();
    for (whose, offset, buffer) in replies {
        saved.push(whose);
        if writes.len() >= WRITES_MAX {
            drop(writes.next().await);
        }
        let size = buffer.len();
        writes.push(io.storage().write(offset, buffer, size));
    }
    while let Some(buffer) = writes.next().await {
        drop(buffer);
    }
    let mut sessions = sessions.borrow_mut();
    for (client, op) in saved {
        sessions.set_saved(client, op);
    }
}
