//! From a data file to a replica that serves: superblock, checkpoint, journal, replay.

use super::checkpoint::{Checkpointed, reply_offset};
use super::commit::State;
use super::scrub::{Durable, SharedDurable};
use super::superblock::Keeper;
use super::{HeaderRing, RunOptions, superblock};
use crate::constants;
use crate::grid::{BlockStore, Damage, Grid};
use crate::io::{Io, Storage};
use crate::ledger::catalog::table;
use crate::ledger::{Ledger, LedgerOptions};
use crate::lsm::Chunk;
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64, to_usize, u64_to_usize};
use crate::vsr::journal::{Decision, SlotRead, recover_cluster, recover_solo};
use crate::vsr::log::{Entry, Log};
use crate::vsr::message::CheckpointState;
use crate::vsr::replica::ReplicaOptions;
use crate::vsr::sessions::{SessionRecord, Sessions, SharedSessions};
use crate::vsr::{FatalReason, Prepare, Replica};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use storage_format::geometry::HEADERS_PER_SECTOR;
use storage_format::{
    BlockHeader, Checksum, Geometry, ManifestRecord, PrepareHeader, ReplySlotHeader, SECTOR_SIZE,
    Superblock, checksum,
};
use zerocopy::FromBytes;

/// Reads under way at the same time.
const READS_MAX: usize = 16;
/// Prepares that are read ahead of their execution.
const REPLAY_READS_MAX: usize = 4;

/// Opens the data file: on success every acknowledged op is executed again or part of the
/// checkpoint, and the view is a new one, durable.
pub(super) async fn open<'a, I: Io>(
    io: &'a I,
    options: &RunOptions,
) -> Result<(Box<State<'a, I>>, Replica, HeaderRing), FatalReason> {
    let (superblock, stale) = superblock::read(io.storage()).await?;
    check_identity(io, &superblock, options)?;
    let geometry = superblock.geometry;
    let keeper = Keeper::new(superblock);
    let sessions = Sessions::new(geometry.session_count_max.get());
    let mut state = empty_state(
        io,
        options,
        Rc::clone(&keeper),
        Rc::new(RefCell::new(sessions)),
        (
            Rc::new(Cell::new(Durable::of(&superblock))),
            Damage::default(),
        ),
    );
    let damage = state.grid.damage();
    let journal = read_journal(io, &superblock).await;
    let (ring, from) = if superblock.replica_count == 1 {
        let load = Box::pin(load(&mut state, options.memory_limit));
        unless_damaged(&damage, load).await??;
        open_solo(io, &mut state, &journal, &stale).await?
    } else {
        open_one_of_several(io, &state, &journal, &stale).await?
    };
    let current = *keeper.current();
    let replica = Replica::new(ReplicaOptions {
        cluster: current.cluster.get(),
        replica: current.replica,
        replica_count: current.replica_count,
        geometry,
        view: current.view.get(),
        log_view: current.log_view.get(),
        log: from.log,
        certain: from.certain,
        executed: from.executed,
        commit_max: current.commit_max.get(),
        checkpoint: CheckpointState::of(&current),
        content_missing: current.content_missing == 1,
        sessions: Rc::clone(&state.sessions),
        nonce: u128::from(io.realtime()) << 64 | u128::from(io.monotonic()),
    });
    Ok((state, replica, ring))
}

/// A state whose checkpoint is not loaded yet.
pub(super) fn empty_state<'a, I: Io>(
    io: &'a I,
    options: &RunOptions,
    superblock: Rc<Keeper>,
    sessions: SharedSessions,
    (durable, damage): (SharedDurable, Damage),
) -> Box<State<'a, I>> {
    let ledger = Ledger::new(LedgerOptions {
        memory_limit: options.memory_limit,
        account_cache_size: options.account_cache_size,
    });
    let current = *superblock.current();
    Box::new(State {
        io,
        geometry: current.geometry,
        superblock,
        ledger,
        grid: Grid::with_damage(io, &current, options.cache_size, damage),
        sessions,
        checkpointed: Checkpointed::default(),
        durable,
    })
}

/// Loads the checkpoint into an empty state.
pub(super) async fn load<I: Io>(
    state: &mut State<'_, I>,
    memory_limit: u64,
) -> Result<(), FatalReason> {
    load_checkpoint(state).await?;
    if state.superblock.current().replica_count > 1 {
        // What was written later is made again when the log is executed.
        load_replies(state.io, &state.geometry, &state.sessions).await;
    }
    let needed = state.ledger.memory_used();
    if needed > memory_limit {
        return Err(FatalReason::MemoryLimit {
            needed,
            limit: memory_limit,
        });
    }
    Ok(())
}

/// What the replica starts from.
struct From {
    log: Log,
    certain: bool,
    executed: PrepareHeader,
}

/// Alone: all that the journal has beyond the checkpoint is committed, and is executed again; the view is
/// a new one.
async fn open_solo<I: Io>(
    io: &I,
    state: &mut State<'_, I>,
    journal: &Journal,
    stale: &[usize],
) -> Result<(HeaderRing, From), FatalReason> {
    let superblock = *state.superblock.current();
    let recovered = recover_solo(&journal.headers, &journal.prepares, &superblock.checkpoint)?;
    let ring = mend_journal(io, &superblock, journal, &recovered.decisions).await;
    if !planted(Bug::LeaveStaleCopies) {
        superblock::mend(io.storage(), &superblock, stale).await;
    }
    let view = superblock.view.get() + 1;
    let next = |next: &mut Superblock| {
        next.view = view.into();
        next.log_view = view.into();
        next.commit_max = recovered.head.op;
    };
    state.superblock.update(io.storage(), next).await;
    tracing::info!(
        checkpoint = superblock.checkpoint.op.get(),
        head = recovered.head.op.get(),
        view,
        "journal recovered"
    );
    let damage = state.grid.damage();
    unless_damaged(&damage, Box::pin(replay(state, &recovered.log))).await??;
    load_replies(io, &superblock.geometry, &state.sessions).await;
    for session in state.sessions.borrow().iter() {
        if session.reply.is_none() {
            let client = session.record.reply.client.get();
            tracing::error!(%client, "a stored reply is damaged: its client is evicted if it asks \
                                     for it again");
        }
    }
    let slots: Vec<Entry> = ring.headers.iter().map(Entry::durable).collect();
    let from = From {
        log: Log::new(&slots, &recovered.head),
        certain: true,
        executed: recovered.head,
    };
    Ok((ring, from))
}

/// With others: what the journal has beyond the checkpoint is executed again when it is known to be
/// committed. Replies that the checkpoint did not write are made again by that.
async fn open_one_of_several<I: Io>(
    io: &I,
    state: &State<'_, I>,
    journal: &Journal,
    stale: &[usize],
) -> Result<(HeaderRing, From), FatalReason> {
    let superblock = *state.superblock.current();
    let recovered = recover_cluster(&journal.headers, &journal.prepares, &superblock)?;
    let ring = mend_journal(io, &superblock, journal, &recovered.decisions).await;
    if !planted(Bug::LeaveStaleCopies) {
        superblock::mend(io.storage(), &superblock, stale).await;
    }
    tracing::info!(
        checkpoint = superblock.checkpoint.op.get(),
        head = recovered.log.head().op.get(),
        view = superblock.view.get(),
        certain = recovered.certain,
        "journal recovered"
    );
    let from = From {
        log: recovered.log,
        certain: recovered.certain,
        executed: superblock.checkpoint,
    };
    Ok((ring, from))
}

/// Executes what the journal holds beyond the checkpoint; the next prepares are read meanwhile.
async fn replay<I: Io>(state: &mut State<'_, I>, log: &[PrepareHeader]) -> Result<(), FatalReason> {
    let (io, geometry) = (state.io, state.geometry());
    let reads = log.iter().map(|header| read_prepare(io, &geometry, header));
    let mut reads = stream::iter(reads).buffered(REPLAY_READS_MAX);
    while let Some(prepare) = reads.next().await {
        let prepare = prepare?;
        drop(state.execute(&prepare).await);
        let _checkpoint: bool = state.finish(&prepare.header).await;
    }
    Ok(())
}

/// Waits for `work`, unless it needs a block that cannot be read.
async fn unless_damaged<T>(
    damage: &Damage,
    mut work: Pin<Box<dyn Future<Output = T> + '_>>,
) -> Result<T, FatalReason> {
    std::future::poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => match damage.found() {
            Some((address, error)) => Poll::Ready(Err(FatalReason::Block { address, error })),
            None => Poll::Pending,
        },
    })
    .await
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

/// Reads the manifest, and restores what it names.
async fn load_checkpoint<I: Io>(state: &mut State<'_, I>) -> Result<(), FatalReason> {
    let superblock = *state.superblock.current();
    if superblock.checkpoint.op.get() == 0 {
        return Ok(());
    }
    let mut manifest = Vec::new();
    let mut next = superblock.checkpoint_index;
    while next.address.get() != 0 {
        state
            .grid
            .free
            .restore(next.address.get())
            .map_err(confused)?;
        let block = state.grid.read(&next).await;
        let (header, _) = BlockHeader::read_from_prefix(&block).expect("a block has a header");
        manifest.extend_from_slice(&block[SECTOR_SIZE..SECTOR_SIZE + to_usize(header.size.get())]);
        state.checkpointed.manifest.push(next);
        next = header.next;
        state.grid.recycle(block);
    }
    let mut count = 0;
    for record in storage_format::manifest::blocks(&manifest) {
        let address = record.block.address.get();
        state.grid.free.restore(address).map_err(confused)?;
        count += 1;
        if record.tag.table == table::SESSIONS {
            load_sessions(state, &record).await?;
        }
    }
    if count != superblock.checkpoint_block_count.get() {
        return Err(confused(
            "the manifest does not list as many blocks as the superblock says",
        ));
    }
    let restored = state
        .ledger
        .restore(&superblock.ledger_state, &manifest, &mut state.grid)
        .await;
    restored.map_err(|error| confused(&error.to_string()))
}

fn confused(what: &str) -> FatalReason {
    FatalReason::Checkpoint { what: what.into() }
}

async fn load_sessions<I: Io>(
    state: &mut State<'_, I>,
    record: &ManifestRecord,
) -> Result<(), FatalReason> {
    let block = state.grid.read(&record.block).await;
    let count = u64_to_usize(record.count.get());
    if count > Chunk::<SessionRecord>::CAPACITY {
        return Err(confused("a block of sessions has too many"));
    }
    for at in 0..count {
        let session = *Chunk::<SessionRecord>::record(&block, at);
        let restored = state.sessions.borrow_mut().restore(session);
        restored.map_err(confused)?;
    }
    state.grid.recycle(block);
    state.checkpointed.sessions.push(record.block);
    Ok(())
}

/// Both rings of the journal, slot by slot.
struct Journal {
    /// The headers as they were read, whatever they are.
    ring: Vec<PrepareHeader>,
    headers: Vec<SlotRead>,
    prepares: Vec<SlotRead>,
}

async fn read_journal<I: Io>(io: &I, superblock: &Superblock) -> Journal {
    let geometry = superblock.geometry;
    let cluster = superblock.cluster.get();
    let checkpoint_op = superblock.checkpoint.op.get();
    let slot_count = u64::from(geometry.journal_slot_count.get());
    let ring_size = u64_to_usize(slot_count) * constants::HEADER_SIZE;
    let buffer = SectorBuf::zeroed(ring_size.next_multiple_of(SECTOR_SIZE));
    let buffer = io.storage().read(geometry.headers_offset(), buffer).await;
    let ring: Vec<PrepareHeader> = buffer[..ring_size]
        .chunks_exact(constants::HEADER_SIZE)
        .map(|bytes| PrepareHeader::read_from_bytes(bytes).expect("256 bytes"))
        .collect();
    let headers = (0..)
        .zip(&ring)
        .map(|(slot, header)| SlotRead::classify(header, cluster, slot, slot_count))
        .collect();
    let reads = (0..slot_count).map(|slot| read_slot(io, &geometry, cluster, slot, checkpoint_op));
    let prepares = stream::iter(reads).buffered(READS_MAX).collect().await;
    Journal {
        ring,
        headers,
        prepares,
    }
}

/// Writes the headers that recovery mends. All others stay as they are, whatever that is: what looks
/// damaged now has to look damaged after the next crash.
async fn mend_journal<I: Io>(
    io: &I,
    superblock: &Superblock,
    journal: &Journal,
    decisions: &[Decision],
) -> HeaderRing {
    let cluster = superblock.cluster.get();
    let mut mended = HeaderRing {
        offset: superblock.geometry.headers_offset(),
        headers: journal.ring.clone(),
        unsettled: BTreeSet::new(),
    };
    let sound = |decision: &Decision| match decision {
        Decision::Keep | Decision::Fix | Decision::CleanEmpty | Decision::FixEmpty => true,
        Decision::Torn | Decision::Discard | Decision::Faulty | Decision::Fatal => false,
    };
    let unsound = decisions.iter().enumerate().filter(|(_, of)| !sound(of));
    mended.unsettled.extend(unsound.map(|(slot, _)| slot));
    let mut sectors = Vec::new();
    // Left as it is until the slot is written again, with all its sector: if a crash damaged that now,
    // neither ring would say any more that the append was never acknowledged.
    let torn = decisions.iter().position(|of| *of == Decision::Torn);
    let torn = torn.map(|slot| slot / HEADERS_PER_SECTOR);
    for (slot, decision) in decisions.iter().enumerate() {
        let header = match (decision, &journal.prepares[slot]) {
            (Decision::Fix, SlotRead::Valid(header)) => *header,
            (Decision::FixEmpty, _) => PrepareHeader::empty(cluster, to_u64(slot)),
            _ => continue,
        };
        mended.headers[slot] = header;
        let sector = slot / HEADERS_PER_SECTOR;
        if torn != Some(sector) && sectors.last() != Some(&sector) {
            sectors.push(sector);
        }
    }
    for sector in sectors {
        let (offset, buffer) = mended.sector(sector * HEADERS_PER_SECTOR);
        drop(io.storage().write(offset, buffer, SECTOR_SIZE).await);
    }
    mended
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
pub(super) async fn read_body<I: Io>(
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

/// Loads the stored replies of sessions that have none in memory.
async fn load_replies<I: Io>(io: &I, geometry: &Geometry, sessions: &SharedSessions) {
    let missing: Vec<SessionRecord> = sessions
        .borrow()
        .iter()
        .filter(|session| session.reply.is_none())
        .map(|session| session.record)
        .collect();
    for record in missing {
        let client = record.reply.client.get();
        match read_reply(io, geometry, &record).await {
            Some(frame) => sessions.borrow_mut().restore_reply(client, frame),
            None => tracing::debug!(%client, "a stored reply is not there"),
        }
    }
}

pub(super) async fn read_reply<I: Io>(
    io: &I,
    geometry: &Geometry,
    record: &SessionRecord,
) -> Option<Bytes> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{FormatOptions, format, read_superblock};
    use crate::io::MemoryIo;
    use crate::stdx::run_to_end;
    use crate::vsr::journal::Recovered;
    use storage_format::PrepareKind;
    use zerocopy::IntoBytes;

    const CLUSTER: u128 = 7;

    fn made() -> (MemoryIo, Superblock) {
        let io = MemoryIo::default();
        let options = FormatOptions {
            cluster: CLUSTER,
            replica: 0,
            replica_count: 1,
            geometry: Geometry {
                journal_slot_count: 48.into(),
                message_size_max: (1 << 20).into(),
                journal_slot_size: ((1 << 20) + 65536).into(),
                session_count_max: 2.into(),
                block_size: u32::try_from(constants::BLOCK_SIZE).unwrap().into(),
                file_size_max: (1 << 30).into(),
                ..Geometry::default()
            },
        };
        let superblock = run_to_end(async {
            Box::pin(format(io.storage(), &options)).await.unwrap();
            read_superblock(io.storage()).await.unwrap()
        });
        (io, superblock)
    }

    fn put(io: &MemoryIo, offset: u64, bytes: &[u8]) {
        let mut sector = SectorBuf::zeroed(SECTOR_SIZE);
        sector[..bytes.len()].copy_from_slice(bytes);
        let _buffer = run_to_end(io.storage().write(offset, sector, SECTOR_SIZE));
    }

    /// An op whose header is missing in its ring, in the slot of its number.
    fn put_prepare(io: &MemoryIo, geometry: &Geometry, op: u64, parent: Checksum) -> Checksum {
        let mut header = PrepareHeader::root(CLUSTER);
        header.kind = PrepareKind::Pulse as u8;
        header.op = op.into();
        header.parent = parent;
        header.timestamp = (1000 + op).into();
        header.checksum_body = checksum(&[]);
        header.seal();
        put(io, Replica::prepare_offset(geometry, op), header.as_bytes());
        header.checksum
    }

    fn sectors(io: &MemoryIo, geometry: &Geometry) -> Vec<SectorBuf> {
        let count = to_u64(geometry.journal_slot_count.get() as usize / HEADERS_PER_SECTOR);
        let read = |sector: u64| {
            let offset = geometry.headers_offset() + sector * to_u64(SECTOR_SIZE);
            let buffer = SectorBuf::zeroed(SECTOR_SIZE);
            run_to_end(io.storage().read(offset, buffer))
        };
        (0..count).map(read).collect()
    }

    async fn recover(io: &MemoryIo, superblock: &Superblock) -> (HeaderRing, Recovered) {
        let journal = read_journal(io, superblock).await;
        let (headers, prepares) = (&journal.headers, &journal.prepares);
        let recovered = recover_solo(headers, prepares, &superblock.checkpoint).unwrap();
        let ring = mend_journal(io, superblock, &journal, &recovered.decisions).await;
        (ring, recovered)
    }

    #[test]
    fn the_header_sector_of_a_torn_append_is_left_as_it_is() {
        let (io, superblock) = made();
        let geometry = superblock.geometry;
        // Headers of the last ops are missing, in two sectors; the append of op 18 was torn.
        let mut parent = PrepareHeader::root(CLUSTER).checksum;
        for op in 1..=17 {
            parent = put_prepare(&io, &geometry, op, parent);
        }
        put(
            &io,
            Replica::prepare_offset(&geometry, 18),
            &[0xA5; SECTOR_SIZE],
        );
        let before = sectors(&io, &geometry);
        let (ring, recovered) = run_to_end(recover(&io, &superblock));
        assert_eq!(recovered.decisions[17], Decision::Fix);
        assert_eq!(recovered.decisions[18], Decision::Torn);
        assert_eq!(ring.headers[17].op.get(), 17);
        let after = sectors(&io, &geometry);
        assert!(
            after[0][..] != before[0][..],
            "the headers of ops 1 to 15 are mended"
        );
        assert!(
            after[1][..] == before[1][..],
            "that of op 18 is in no danger"
        );
        // A restart finds the same.
        let (_, again) = run_to_end(recover(&io, &superblock));
        assert_eq!(again.decisions[17..=18], recovered.decisions[17..=18]);
    }
}
