//! Checkpoints: the state in grid blocks, then the superblock that names them.
//!
//! Tables are written chunk by chunk, one chunk a block. A chunk that only grows is written as soon
//! as it is full; what else changed is written at the checkpoint. Blocks are never overwritten while
//! a durable checkpoint references them, so a crash at any point leaves the old or the new state.
//! The journal from the checkpoint on is replayed at open, and makes the same blocks again.

use super::commit::State;
use crate::constants;
use crate::grid::FreeSet;
use crate::io::{Io, Storage};
use crate::ledger::Ledger;
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64, to_usize};
use crate::vsr::sessions::{SessionRecord, Sessions};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use storage_format::block::{BlockKind, seal};
use storage_format::{
    BlockHeader, BlockReference, FORMAT_VERSION, Geometry, PrepareHeader, ReplySlotHeader,
    SECTOR_SIZE, Superblock,
};
use zerocopy::IntoBytes;

/// Number of the sessions' table; those of the ledger count from 1.
pub(super) const SESSIONS_TABLE: u8 = 255;
/// Block writes under way at the same time.
pub(super) const WRITES_MAX: usize = 16;

type Writes<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = SectorBuf> + 'a>>>;

/// Ops from one checkpoint to the next: as many as the journal holds, but for what may be prepared
/// while the checkpoint is made.
#[must_use]
pub fn checkpoint_interval(geometry: &Geometry) -> u64 {
    u64::from(geometry.journal_slot_count.get()) - 3 * constants::PIPELINE_PREPARES_MAX
}

/// Which block holds which chunk, and the writes of blocks that are under way.
pub(super) struct Blocks<'a> {
    pub(super) free: FreeSet,
    /// By table, in the order of `Ledger::tables`, then by chunk; `None` when it was never written.
    pub(super) chunks: Vec<Vec<Option<BlockReference>>>,
    /// Blocks of the sessions' table in the last checkpoint.
    pub(super) sessions: Vec<BlockReference>,
    /// Blocks of the index of the last checkpoint.
    pub(super) index: Vec<u64>,
    /// By table: chunks up to here were written when they became full.
    full_written: Vec<usize>,
    buffers: Vec<SectorBuf>,
    /// Nobody waits for them until the next checkpoint.
    writes: Writes<'a>,
    session_count_max: u64,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(geometry: &Geometry, table_count: usize) -> Self {
        Self {
            free: FreeSet::new(geometry.block_count_max()),
            chunks: vec![Vec::new(); table_count],
            sessions: Vec::new(),
            index: Vec::new(),
            full_written: vec![0; table_count],
            buffers: Vec::new(),
            writes: FuturesUnordered::new(),
            session_count_max: u64::from(geometry.session_count_max.get()),
        }
    }

    /// Whether blocks are left for `events` more, and for a checkpoint that writes everything that
    /// can have changed.
    pub(super) fn admits(&self, ledger: &Ledger, events: u64) -> bool {
        let tables = ledger.tables();
        let mutable: usize = tables
            .iter()
            .filter(|t| !t.append_only())
            .map(|t| t.chunk_count())
            .sum();
        // Every event may add a record to every table; a table's last chunk may be half full.
        let growth = tables.iter().map(|table| {
            let records = to_u64(constants::BLOCK_DATA_SIZE / table.record_size());
            events / records + 2
        });
        let used = self.free.taken_count() / (to_u64(constants::BLOCK_DATA_SIZE / 32)) + 2;
        let sessions = 1 + self.session_count_max * 288 / to_u64(constants::BLOCK_DATA_SIZE);
        self.free.free_count() > to_u64(mutable) + growth.sum::<u64>() + used + sessions
    }

    /// Begins to write the chunks of append-only tables that have become full.
    pub(super) async fn write_full<I: Io>(
        &mut self,
        io: &'a I,
        superblock: &Superblock,
        op: u64,
        ledger: &mut Ledger,
    ) {
        let mut jobs = Vec::new();
        for (index, table) in ledger.tables().iter().enumerate() {
            if !table.append_only() {
                continue;
            }
            let written = &mut self.full_written[index];
            while *written < table.chunk_count() && table.chunk_is_full(*written) {
                if table.chunk_dirty(*written) {
                    jobs.push((index, *written));
                }
                *written += 1;
            }
        }
        if !jobs.is_empty() {
            self.write_chunks(io, superblock, op, ledger, jobs).await;
        }
    }

    /// Begins to write chunks; waits only where too many writes are under way.
    async fn write_chunks<I: Io>(
        &mut self,
        io: &'a I,
        superblock: &Superblock,
        op: u64,
        ledger: &mut Ledger,
        jobs: Vec<(usize, usize)>,
    ) {
        let geometry = superblock.geometry;
        for (index, chunk) in jobs {
            let buffer = self.take_buffer().await;
            let mut tables = ledger.tables_mut();
            let table = &mut tables[index];
            let address = self.free.allocate();
            let header = BlockHeader {
                record_size: u32::try_from(table.record_size()).expect("small").into(),
                table: table.id(),
                ..block_header(superblock, BlockKind::Records, op, address, chunk)
            };
            let (buffer, reference, size) = fill(buffer, header, table.chunk_bytes(chunk));
            table.mark_clean(chunk);
            let references = &mut self.chunks[index];
            references.resize(references.len().max(chunk + 1), None);
            if let Some(old) = references[chunk].replace(reference) {
                self.free.release(old.address.get());
            }
            self.write(io, geometry.block_offset(address), buffer, size);
        }
        self.poll_writes().await;
    }

    /// A write starts when it is polled first, in `poll_writes` or where one is awaited.
    fn write<I: Io>(&mut self, io: &'a I, offset: u64, buffer: SectorBuf, size: usize) {
        let write = write_block(io, offset, buffer, size);
        self.writes.push(Box::pin(write));
    }

    /// Starts new writes and takes the buffers of those that are done, without waiting.
    async fn poll_writes(&mut self) {
        let (writes, buffers) = (&mut self.writes, &mut self.buffers);
        std::future::poll_fn(|cx| {
            while let Poll::Ready(Some(buffer)) = writes.poll_next_unpin(cx) {
                buffers.push(buffer);
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Waits for all writes.
    async fn finish_writes(&mut self) {
        while let Some(buffer) = self.writes.next().await {
            self.buffers.push(buffer);
        }
    }

    async fn take_buffer(&mut self) -> SectorBuf {
        if self.writes.len() >= WRITES_MAX {
            self.buffers.extend(self.writes.next().await);
        }
        self.buffers
            .pop()
            .unwrap_or_else(|| SectorBuf::zeroed(constants::BLOCK_SIZE))
    }

    /// Writes the sessions' table; releases that of the last checkpoint.
    async fn write_sessions<I: Io>(
        &mut self,
        io: &'a I,
        superblock: &Superblock,
        op: u64,
        sessions: &Sessions,
    ) {
        for old in std::mem::take(&mut self.sessions) {
            self.free.release(old.address.get());
        }
        let records: Vec<SessionRecord> = sessions.iter().map(|session| session.record).collect();
        let per_block = constants::BLOCK_DATA_SIZE / size_of::<SessionRecord>();
        for (position, records) in records.chunks(per_block).enumerate() {
            let address = self.free.allocate();
            let header = BlockHeader {
                record_size: 288.into(),
                table: SESSIONS_TABLE,
                ..block_header(superblock, BlockKind::Records, op, address, position)
            };
            let buffer = self.take_buffer().await;
            let (buffer, reference, size) = fill(buffer, header, records.as_bytes());
            self.write(io, superblock.geometry.block_offset(address), buffer, size);
            self.sessions.push(reference);
        }
    }

    /// Writes the index: a chain of blocks that lists every block of every table, last one first.
    async fn write_index<I: Io>(
        &mut self,
        io: &'a I,
        superblock: &Superblock,
        op: u64,
    ) -> (BlockReference, u64) {
        for old in std::mem::take(&mut self.index) {
            self.free.release(old);
        }
        let chunks = self.chunks.iter().flatten();
        let all: Vec<BlockReference> = chunks
            .map(|reference| reference.expect("every chunk was written"))
            .chain(self.sessions.iter().copied())
            .collect();
        let per_block = constants::BLOCK_DATA_SIZE / size_of::<BlockReference>();
        let mut next = BlockReference::default();
        for (position, references) in all.chunks(per_block).enumerate().rev() {
            let address = self.free.allocate();
            let header = BlockHeader {
                record_size: 32.into(),
                next,
                ..block_header(superblock, BlockKind::Index, op, address, position)
            };
            let buffer = self.take_buffer().await;
            let (buffer, reference, size) = fill(buffer, header, references.as_bytes());
            self.write(io, superblock.geometry.block_offset(address), buffer, size);
            self.index.push(address);
            next = reference;
        }
        (next, to_u64(all.len()))
    }
}

/// A header with what all blocks share; `position` is that in the table or index.
fn block_header(
    superblock: &Superblock,
    kind: BlockKind,
    op: u64,
    address: u64,
    position: usize,
) -> BlockHeader {
    BlockHeader {
        cluster: superblock.cluster,
        address: address.into(),
        op: op.into(),
        position: to_u64(position).into(),
        version: FORMAT_VERSION.into(),
        kind: kind.code(),
        ..zerocopy::FromZeros::new_zeroed()
    }
}

/// Puts data and header into a buffer; gives it with its reference and the bytes to write.
fn fill(
    mut buffer: SectorBuf,
    mut header: BlockHeader,
    data: &[u8],
) -> (SectorBuf, BlockReference, usize) {
    buffer[..SECTOR_SIZE].fill(0);
    buffer[SECTOR_SIZE..SECTOR_SIZE + data.len()].copy_from_slice(data);
    header.size = u32::try_from(data.len())
        .expect("a block is at most 1 MiB")
        .into();
    let (reference, size) = seal(&mut buffer, header);
    (buffer, reference, size)
}

impl<I: Io> State<'_, I> {
    /// Whether the op just executed is the last one before a checkpoint.
    pub(super) fn checkpoint_due(&self, header: &PrepareHeader) -> bool {
        let last = self.superblock.checkpoint.op.get();
        header.op.get() >= last + checkpoint_interval(&self.geometry())
    }

    /// Makes a checkpoint of the state after `header`'s op.
    pub(super) async fn checkpoint(&mut self, header: &PrepareHeader, sessions: &Sessions) {
        let op = header.op.get();
        let mut next = self.superblock;
        let jobs = self.dirty_chunks();
        let count = jobs.len();
        let blocks = &mut self.blocks;
        blocks
            .write_chunks(self.io, &self.superblock, op, &mut self.ledger, jobs)
            .await;
        if planted(Bug::ReuseBlocksEarly) {
            blocks.free.checkpoint_durable();
        }
        blocks
            .write_sessions(self.io, &self.superblock, op, sessions)
            .await;
        if !planted(Bug::ForgetReplies) {
            write_replies(self.io, &self.superblock, sessions).await;
        }
        let (index, block_count) = blocks.write_index(self.io, &self.superblock, op).await;
        blocks.finish_writes().await;
        next.checkpoint = *header;
        next.checkpoint_index = index;
        next.checkpoint_block_count = block_count.into();
        next.ledger_state = self.ledger.state();
        next.commit_max = header.op;
        super::superblock::write::<I>(self.io.storage(), &mut self.superblock, next).await;
        self.blocks.free.checkpoint_durable();
        tracing::info!(op, blocks = block_count, written = count, "checkpoint");
    }

    fn dirty_chunks(&self) -> Vec<(usize, usize)> {
        let mut jobs = Vec::new();
        for (index, table) in self.ledger.tables().iter().enumerate() {
            let dirty = (0..table.chunk_count()).filter(|chunk| table.chunk_dirty(*chunk));
            jobs.extend(dirty.map(|chunk| (index, chunk)));
        }
        jobs
    }
}

/// Writes the replies that are newer than the last checkpoint to their slots. A slot that is
/// overwritten here held a reply that replaying the journal would make anew, so a crash before the
/// superblock is written loses nothing.
async fn write_replies<I: Io>(io: &I, superblock: &Superblock, sessions: &Sessions) {
    let geometry = superblock.geometry;
    let mut writes = FuturesUnordered::new();
    for session in sessions.iter() {
        let record = &session.record;
        if record.reply.op.get() <= superblock.checkpoint.op.get() {
            continue;
        }
        let frame = session
            .reply
            .as_ref()
            .expect("a reply of this process is in memory");
        let size = SECTOR_SIZE + frame.len().next_multiple_of(SECTOR_SIZE);
        let mut buffer = SectorBuf::zeroed(size);
        let client = record.reply.client.get();
        let header = ReplySlotHeader::new(client, record.reply.op.get(), frame);
        buffer[..size_of::<ReplySlotHeader>()].copy_from_slice(header.as_bytes());
        buffer[SECTOR_SIZE..SECTOR_SIZE + frame.len()].copy_from_slice(frame);
        let offset = reply_offset(&geometry, record.slot.get());
        if writes.len() >= WRITES_MAX {
            drop(writes.next().await);
        }
        writes.push(io.storage().write(offset, buffer, size));
    }
    while let Some(buffer) = writes.next().await {
        drop(buffer);
    }
}

/// Offset of a slot of the client-replies zone.
pub(super) fn reply_offset(geometry: &Geometry, slot: u32) -> u64 {
    geometry.replies_offset() + u64::from(slot) * geometry.reply_slot_size()
}

async fn write_block<I: Io>(io: &I, offset: u64, buffer: SectorBuf, size: usize) -> SectorBuf {
    crate::io::write_unless(Bug::CheckpointBeforeBlocks, io, offset, buffer, size).await
}

/// Reads and verifies the block that `reference` names.
pub(super) async fn read_block<I: Io>(
    io: &I,
    geometry: &Geometry,
    reference: &BlockReference,
) -> Result<(BlockHeader, SectorBuf), crate::vsr::FatalReason> {
    let address = reference.address.get();
    let buffer = SectorBuf::zeroed(to_usize(geometry.block_size.get()));
    let buffer = io
        .storage()
        .read(geometry.block_offset(address), buffer)
        .await;
    match storage_format::block::verify(&buffer, reference) {
        Ok(header) => Ok((header, buffer)),
        Err(error) => Err(crate::vsr::FatalReason::Block { address, error }),
    }
}
