//! From a data file to a replica that serves: superblock, checkpoint, journal, replay.

use super::checkpoint::{Blocks, SESSIONS_TABLE, read_block, reply_offset};
use super::commit::State;
use super::{HeaderRing, RunOptions, superblock};
use crate::constants;
use crate::io::{Io, Storage};
use crate::ledger::{Ledger, LedgerOptions};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64, to_usize, u64_to_usize};
use crate::vsr::journal::{Decision, Recovered, SlotRead, recover_solo};
use crate::vsr::replica::ReplicaOptions;
use crate::vsr::sessions::{SessionRecord, Sessions};
use crate::vsr::{FatalReason, Prepare, Replica};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use storage_format::{
    BlockReference, Checksum, Geometry, PrepareHeader, ReplySlotHeader, SECTOR_SIZE, Superblock,
    checksum,
};
use zerocopy::FromBytes;

/// Reads under way at the same time.
const READS_MAX: usize = 16;

/// Opens the data file: on success every acknowledged op is executed again or part of the
/// checkpoint, and the view is a new one, durable.
pub(super) async fn open<'a, I: Io>(
    io: &'a I,
    options: &RunOptions,
) -> Result<(State<'a, I>, Replica, HeaderRing), FatalReason> {
    let (superblock, stale) = superblock::read(io.storage()).await?;
    check_identity(io, &superblock, options)?;
    let geometry = superblock.geometry;
    let ledger = Ledger::new(LedgerOptions {
        memory_limit: options.memory_limit,
    });
    let blocks = Blocks::new(&geometry, ledger.tables().len());
    let mut sessions = Sessions::new(geometry.session_count_max.get());
    let mut state = State {
        io,
        superblock,
        ledger,
        blocks,
    };
    load_checkpoint(&mut state, &mut sessions).await?;
    let needed = state.ledger.memory_used();
    if needed > options.memory_limit {
        return Err(FatalReason::MemoryLimit {
            needed,
            limit: options.memory_limit,
        });
    }

    let (ring, recovered) = recover_journal(io, &superblock).await?;
    if !planted(Bug::LeaveStaleCopies) {
        superblock::mend(io.storage(), &superblock, &stale).await;
    }
    let mut next = superblock;
    next.view = (superblock.view.get() + 1).into();
    next.log_view = next.view;
    next.commit_max = recovered.head.op;
    superblock::write::<I>(io.storage(), &mut state.superblock, next).await;

    tracing::info!(
        checkpoint = superblock.checkpoint.op.get(),
        head = recovered.head.op.get(),
        view = state.superblock.view.get(),
        "journal recovered"
    );
    for header in &recovered.log {
        let prepare = read_prepare(io, &geometry, header).await?;
        drop(state.execute(&prepare, &mut sessions));
        state.write_full(header).await;
        if state.checkpoint_due(header) {
            state.checkpoint(header, &sessions).await;
        }
    }
    load_replies(io, &geometry, &mut sessions).await;
    let replica = Replica::new(ReplicaOptions {
        cluster: superblock.cluster.get(),
        replica: superblock.replica,
        geometry,
        view: state.superblock.view.get(),
        head: recovered.head,
        checkpoint_op: state.superblock.checkpoint.op.get(),
        sessions,
        pulse_next: state.ledger.pulse_next(),
        timestamp_last: state.ledger.timestamp_last(),
    });
    Ok((state, replica, ring))
}

fn check_identity<I: Io>(
    io: &I,
    superblock: &Superblock,
    options: &RunOptions,
) -> Result<(), FatalReason> {
    if superblock.release.get() > constants::RELEASE {
        let found = superblock.release.get();
        return Err(FatalReason::Release {
            own: constants::RELEASE,
            found,
        });
    }
    let found = superblock.cluster.get();
    if let Some(expected) = options.cluster
        && expected != found
    {
        return Err(FatalReason::Cluster { expected, found });
    }
    if let Some(expected) = options.replica
        && expected != superblock.replica
    {
        return Err(FatalReason::Replica {
            expected,
            found: superblock.replica,
        });
    }
    if options.replica_count != usize::from(superblock.replica_count) {
        let found = superblock.replica_count;
        return Err(FatalReason::ReplicaCount {
            expected: options.replica_count,
            found,
        });
    }
    let (expected, found) = (superblock.geometry.grid_offset(), io.storage().size());
    if found < expected {
        return Err(FatalReason::Size { expected, found });
    }
    if to_usize(superblock.geometry.block_size.get()) != constants::BLOCK_SIZE {
        let what = format!("blocks of {} bytes", superblock.geometry.block_size.get());
        return Err(FatalReason::Checkpoint { what });
    }
    if to_usize(superblock.geometry.message_size_max.get()) != constants::MESSAGE_SIZE_MAX {
        let size = superblock.geometry.message_size_max.get();
        let what = format!("messages of {size} bytes");
        return Err(FatalReason::Checkpoint { what });
    }
    Ok(())
}

/// Walks the index and loads every block that it lists.
async fn load_checkpoint<I: Io>(
    state: &mut State<'_, I>,
    sessions: &mut Sessions,
) -> Result<(), FatalReason> {
    let confused = |what: &str| FatalReason::Checkpoint { what: what.into() };
    let geometry = state.geometry();
    let superblock = state.superblock;
    if superblock.checkpoint.op.get() == 0 {
        return Ok(());
    }
    let io = state.io;
    let mut listed: Vec<BlockReference> = Vec::new();
    let mut next = superblock.checkpoint_index;
    while next.address.get() != 0 {
        let (header, buffer) = read_block(io, &geometry, &next).await?;
        let data = &buffer[SECTOR_SIZE..SECTOR_SIZE + to_usize(header.size.get())];
        let references = <[BlockReference]>::ref_from_bytes(data)
            .map_err(|_| confused("an index block has half a reference"))?;
        listed.extend_from_slice(references);
        state
            .blocks
            .free
            .restore(next.address.get())
            .map_err(confused)?;
        state.blocks.index.push(next.address.get());
        next = header.next;
    }
    if to_u64(listed.len()) != superblock.checkpoint_block_count.get() {
        return Err(confused(
            "the index does not list as many blocks as the superblock says",
        ));
    }
    let reads = listed
        .iter()
        .map(|reference| async move { (*reference, read_block(io, &geometry, reference).await) });
    let mut reads = stream::iter(reads).buffered(READS_MAX);
    while let Some((reference, read)) = reads.next().await {
        let (header, buffer) = read?;
        let data = &buffer[SECTOR_SIZE..SECTOR_SIZE + to_usize(header.size.get())];
        state
            .blocks
            .free
            .restore(reference.address.get())
            .map_err(confused)?;
        if reference.table == SESSIONS_TABLE {
            let records = <[SessionRecord]>::ref_from_bytes(data)
                .map_err(|_| confused("a sessions block has half a record"))?;
            for record in records {
                sessions.restore(*record).map_err(confused)?;
            }
            state.blocks.sessions.push(reference);
            continue;
        }
        let tables = state.ledger.tables_mut();
        let index = tables
            .iter()
            .position(|table| table.id() == reference.table)
            .ok_or_else(|| confused("a block belongs to no table"))?;
        let chunks = &mut state.blocks.chunks[index];
        if header.position.get() != to_u64(chunks.len()) {
            return Err(confused("the blocks of a table are out of order"));
        }
        chunks.push(Some(reference));
        tables[index]
            .load_chunk(data)
            .map_err(|error| confused(&error.to_string()))?;
    }
    drop(reads);
    let restored = state.ledger.restore(&superblock.ledger_state);
    restored.map_err(|error| confused(&error.to_string()))
}

/// Reads both rings, applies the recovery table, and writes the headers that it mends.
async fn recover_journal<I: Io>(
    io: &I,
    superblock: &Superblock,
) -> Result<(HeaderRing, Recovered), FatalReason> {
    let geometry = superblock.geometry;
    let cluster = superblock.cluster.get();
    let checkpoint = &superblock.checkpoint;
    let slot_count = u64::from(geometry.journal_slot_count.get());
    let ring_size = u64_to_usize(slot_count) * constants::HEADER_SIZE;
    let ring = SectorBuf::zeroed(ring_size.next_multiple_of(SECTOR_SIZE));
    let ring = io.storage().read(geometry.headers_offset(), ring).await;
    let header_at = |slot: u64| {
        let at = u64_to_usize(slot) * constants::HEADER_SIZE;
        PrepareHeader::read_from_bytes(&ring[at..at + constants::HEADER_SIZE]).expect("256 bytes")
    };
    let headers: Vec<SlotRead> = (0..slot_count)
        .map(|slot| SlotRead::classify(&header_at(slot), cluster, slot, slot_count))
        .collect();
    let reads =
        (0..slot_count).map(|slot| read_slot(io, &geometry, cluster, slot, checkpoint.op.get()));
    let prepares: Vec<SlotRead> = stream::iter(reads).buffered(READS_MAX).collect().await;
    let recovered = recover_solo(&headers, &prepares, checkpoint)?;

    let mut mended = HeaderRing {
        offset: geometry.headers_offset(),
        headers: Vec::new(),
    };
    let mut sectors = Vec::new();
    for (slot, decision) in recovered.decisions.iter().enumerate() {
        let (header, write) = match (decision, &prepares[slot]) {
            (Decision::Keep, SlotRead::Valid(header)) => (*header, false),
            (Decision::Fix, SlotRead::Valid(header)) => (*header, true),
            (Decision::CleanEmpty, _) => (PrepareHeader::empty(cluster, to_u64(slot)), false),
            // Left as it is until the slot is written again: if a crash damaged the sector now,
            // neither ring would say any more that the append was never acknowledged.
            (Decision::Torn, _) => match &headers[slot] {
                SlotRead::Valid(header) => (*header, false),
                SlotRead::Empty | SlotRead::Bad => {
                    (PrepareHeader::empty(cluster, to_u64(slot)), false)
                }
            },
            (_, _) => (PrepareHeader::empty(cluster, to_u64(slot)), true),
        };
        mended.headers.push(header);
        let sector = slot / storage_format::geometry::HEADERS_PER_SECTOR;
        if write && sectors.last() != Some(&sector) {
            sectors.push(sector);
        }
    }
    for sector in sectors {
        let slot = sector * storage_format::geometry::HEADERS_PER_SECTOR;
        let (offset, buffer) = mended.sector(slot);
        drop(io.storage().write(offset, buffer, SECTOR_SIZE).await);
    }
    Ok((mended, recovered))
}

/// Reads the prepare in a slot; its body only if its op is above the checkpoint.
async fn read_slot<I: Io>(
    io: &I,
    geometry: &Geometry,
    cluster: u128,
    slot: u64,
    checkpoint_op: u64,
) -> SlotRead {
    let slot_count = u64::from(geometry.journal_slot_count.get());
    let offset = Replica::prepare_offset(geometry, slot);
    let first = io
        .storage()
        .read(offset, SectorBuf::zeroed(SECTOR_SIZE))
        .await;
    let header = PrepareHeader::read_from_bytes(&first[..constants::HEADER_SIZE]);
    let header = header.expect("a header is 256 bytes of any value");
    let read = SlotRead::classify(&header, cluster, slot, slot_count);
    let SlotRead::Valid(header) = read else {
        return read;
    };
    if header.op.get() <= checkpoint_op || planted(Bug::TakeTornHead) {
        return read;
    }
    match read_body(io, geometry, &header).await {
        Some(_) => read,
        None => SlotRead::Bad,
    }
}

/// The whole prepare, if it is intact.
async fn read_body<I: Io>(
    io: &I,
    geometry: &Geometry,
    header: &PrepareHeader,
) -> Option<SectorBuf> {
    let size = to_usize(header.size.get());
    if header.size > geometry.journal_slot_size {
        return None;
    }
    let offset = Replica::prepare_offset(geometry, header.op.get());
    let buffer = SectorBuf::zeroed(size.next_multiple_of(SECTOR_SIZE));
    let buffer = io.storage().read(offset, buffer).await;
    let intact = buffer[..constants::HEADER_SIZE] == *zerocopy::IntoBytes::as_bytes(header)
        && (planted(Bug::TakeTornHead)
            || checksum(&buffer[constants::HEADER_SIZE..size]) == header.checksum_body)
        && buffer[size..].iter().all(|byte| *byte == 0);
    intact.then_some(buffer)
}

async fn read_prepare<I: Io>(
    io: &I,
    geometry: &Geometry,
    header: &PrepareHeader,
) -> Result<Prepare, FatalReason> {
    match read_body(io, geometry, header).await {
        Some(buffer) => Ok(Prepare {
            header: *header,
            buffer,
        }),
        None => Err(FatalReason::JournalGap {
            op: header.op.get(),
        }),
    }
}

/// Loads the replies that replaying the journal did not make.
async fn load_replies<I: Io>(io: &I, geometry: &Geometry, sessions: &mut Sessions) {
    let missing: Vec<SessionRecord> = sessions
        .iter()
        .filter(|session| session.reply.is_none())
        .map(|session| session.record)
        .collect();
    for record in missing {
        let client = record.reply.client.get();
        match read_reply(io, geometry, &record).await {
            Some(frame) => sessions.restore_reply(client, frame),
            None => tracing::error!(%client, "a stored reply is damaged: its client is evicted \
                                     if it asks for it again"),
        }
    }
}

async fn read_reply<I: Io>(io: &I, geometry: &Geometry, record: &SessionRecord) -> Option<Bytes> {
    let offset = reply_offset(geometry, record.slot.get());
    let first = io
        .storage()
        .read(offset, SectorBuf::zeroed(SECTOR_SIZE))
        .await;
    let (header, _) = ReplySlotHeader::read_from_prefix(&first).ok()?;
    let of_session = header.client == record.reply.client && header.op == record.reply.op;
    if !header.valid() || !of_session || header.size > geometry.message_size_max {
        return None;
    }
    let size = to_usize(header.size.get());
    let buffer = SectorBuf::zeroed(size.next_multiple_of(SECTOR_SIZE).max(SECTOR_SIZE));
    let buffer = io
        .storage()
        .read(offset + to_u64(SECTOR_SIZE), buffer)
        .await;
    let frame = &buffer[..size];
    let checksum: Checksum = checksum(frame);
    (checksum == header.checksum_message).then(|| Bytes::copy_from_slice(frame))
}
